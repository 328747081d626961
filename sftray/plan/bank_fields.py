"""The fields of a base's config.json that the bank computes, or that change nothing it computes.

Promise: what is not here, and neither off nor at its default, is a reason to decline: a base with a
field of a newer transformers, or of a fork, is not one that the bank was written for.
"""

from __future__ import annotations

from collections.abc import Mapping

from sftray.plan.layer_description import FAMILIES, LAYER_TYPES, rotary_fields
from sftray.storage.model_files import BaseConfig

COMPUTED = frozenset(
    """model_type hidden_size intermediate_size num_hidden_layers num_attention_heads head_dim
    num_key_value_heads vocab_size rms_norm_eps tie_word_embeddings attention_bias mlp_bias
    hidden_act rope_theta rope_scaling rope_parameters layer_types sliding_window is_causal
    use_sliding_window max_window_layers attention_dropout max_position_embeddings auto_map
    quantization_config""".split()  # noqa: SIM905
)
"""Read by the bank, or refused by value (`trainer_choice`)."""
HARMLESS = frozenset(
    """architectures dtype torch_dtype transformers_version use_cache initializer_range
    pretraining_tp bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id mask_token_id
    decoder_start_token_id
    output_attentions output_hidden_states output_scores return_dict return_dict_in_generate
    id2label label2id problem_type task_specific_params finetuning_task tokenizer_class
    is_encoder_decoder is_decoder chunk_size_feed_forward use_bfloat16 tf_legacy_loss torchscript
    do_sample temperature top_k top_p typical_p num_beams num_beam_groups num_return_sequences
    repetition_penalty length_penalty diversity_penalty max_length min_length early_stopping
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids model_max_length
    max_sequence_length is_llama_config unsloth_version unsloth_fixed name_or_path
    cache_implementation transformers.js_config""".split()  # noqa: SIM905
)
"""Of saving, generating and older versions, whatever they say."""
DEFAULTS: dict[str, object] = {
    "partial_rotary_factor": 1.0,
    "rotary_pct": 1.0,
    "rope_interleaved": False,
}
"""Other fields, with what they say where they change nothing."""
ROPE = frozenset(
    """rope_theta rope_type type factor low_freq_factor high_freq_factor beta_fast beta_slow mscale
    mscale_all_dim attention_factor truncate short_factor long_factor
    original_max_position_embeddings max_position_embeddings finetuned""".split()  # noqa: SIM905
)
"""Fields of rope_parameters that transformers' own tables, which the bank takes, are made from."""


def unknown_field(base: BaseConfig) -> str | None:
    """The first field of what a config.json says of the language model, or of its rotary embedding,
    that the bank does not know and that is not off, with its value; None where there is none."""
    own = FAMILIES[base["model_type"]].fields
    base = base.get("text_config") or base  # of the rest of a checkpoint nothing is computed
    known = COMPUTED | HARMLESS | own
    for fields, names in ((base, known), *((rope, ROPE | own) for rope in rotary_fields(base))):
        for name, value in _on(fields):
            if name not in names and value != DEFAULTS.get(name, ...):
                return f"{name} is {value!r:.60}"
    kinds = sorted({*(base.get("layer_types") or ())} - LAYER_TYPES)
    return f"layer_types has {kinds[0]!r}" if kinds else None


def _on(fields: Mapping[str, object]) -> list[tuple[str, object]]:
    """Those that are not null, false, nought or empty, nor metadata."""
    return [(name, value) for name, value in fields.items() if value and not name.startswith("_")]
