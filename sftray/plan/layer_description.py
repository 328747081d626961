"""A decoder layer as data: what the bank computes of a base, read from its configuration.

Promise: neither torch nor transformers is needed. What a configuration does not say, because it
follows from the model type, is a line of `FAMILIES`; the next such model is a line there and a
test. The proof of the loaded base (`trial.equality`) holds each line to transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sftray.storage.model_files import BaseConfig


@dataclass(frozen=True)
class Norms:
    """The names of a layer's norms; None where it has none there."""

    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None


Groups = tuple[tuple[str, ...], ...]
"""Projections that share an input, in the order of the forward pass: those to queries, keys and
values, back to the residual sum, to gate and up, back again."""
SPLIT: Groups = (
    ("q_proj", "k_proj", "v_proj"),
    ("o_proj",),
    ("gate_proj", "up_proj"),
    ("down_proj",),
)


@dataclass(frozen=True)
class Family:
    """What a model type's decoder layers are, where a configuration does not say it."""

    norms: Norms = Norms()
    groups: Groups = SPLIT
    exact_norms: bool = False
    """Norms multiply in float32, and round then."""
    one_plus: bool = False
    """The same by 1 + weight."""
    centred: bool = False
    """Norms are LayerNorm without a bias."""
    parallel: bool = False
    """The feed-forward layer has the input of attention, not its result."""
    interleaved: bool = False
    """Rotary embeddings turn neighbours, not the halves of a head."""
    paired_tables: bool = False
    """So do transformers' tables of them."""
    rotary_in_windows: bool = False
    """Where some layers have windows, the others have no rotary embedding."""
    windowed: bool = False
    """`sliding_window` is every layer's, not that of the layers that `layer_types` names."""
    fields: frozenset[str] = frozenset()
    """Fields of its config.json that are computed besides those of every family."""


_AFTER = Norms(None, "post_attention_layernorm", None, "post_feedforward_layernorm")
_GATE_UP: Groups = (*SPLIT[:2], ("gate_up_proj",), ("down_proj",))
_SANDWICH = Norms(
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)

_COHERE = Family(
    norms=Norms(before_mlp=None),
    exact_norms=True,
    centred=True,
    parallel=True,
    interleaved=True,
    paired_tables=True,
    fields=frozenset(
        """layer_norm_eps logit_scale sliding_window_pattern layer_switch use_parallel_block
        order_of_interleaved_layers position_embedding_type use_embedding_sharing
        use_gated_activation""".split()  # noqa: SIM905
    ),
)
_GEMMA_2 = frozenset(
    """hidden_activation query_pre_attn_scalar attn_logit_softcapping
    final_logit_softcapping""".split()  # noqa: SIM905
)

FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(windowed=True),
    "qwen2": Family(),
    "qwen3": Family(),
    "gemma3_text": Family(
        norms=_SANDWICH,
        one_plus=True,
        fields=frozenset(
            """hidden_activation query_pre_attn_scalar sliding_window_pattern
            rope_local_base_freq""".split()  # noqa: SIM905
        ),
    ),
    "gemma": Family(one_plus=True),
    "gemma2": Family(norms=_SANDWICH, one_plus=True, fields=_GEMMA_2),
    "vaultgemma": Family(
        norms=Norms(before_mlp="pre_feedforward_layernorm"), one_plus=True, fields=_GEMMA_2
    ),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, rotary_in_windows=True),
    "cwm": Family(),
    "ernie4_5": Family(interleaved=True, fields=frozenset({"use_bias"})),
    "helium": Family(exact_norms=True, interleaved=True),
    "glm": Family(groups=_GATE_UP, interleaved=True, fields=frozenset({"partial_rotary_factor"})),
    "smollm3": Family(fields=frozenset({"no_rope_layers", "no_rope_layer_interval"})),
    "ministral": Family(),
    "ministral3": Family(windowed=True, fields=frozenset({"llama_4_scaling_beta"})),
    "phi3": Family(
        windowed=True,
        groups=(("qkv_proj",), ("o_proj",), ("gate_up_proj",), ("down_proj",)),
        fields=frozenset({"partial_rotary_factor", "original_max_position_embeddings"}),
    ),
    "olmo2": Family(_AFTER, exact_norms=True),
    "olmo3": Family(_AFTER, exact_norms=True),
    "granite": Family(
        fields=frozenset(
            """attention_multiplier embedding_multiplier residual_multiplier
            logits_scaling""".split()  # noqa: SIM905
        )
    ),
    "glm4": Family(
        norms=Norms(
            after_attention="post_self_attn_layernorm",
            after_mlp="post_mlp_layernorm",
        ),
        groups=_GATE_UP,
        interleaved=True,
        fields=frozenset({"partial_rotary_factor"}),
    ),
    "seed_oss": Family(fields=frozenset({"attention_out_bias"})),
    "exaone4": Family(_AFTER, rotary_in_windows=True, fields=frozenset({"sliding_window_pattern"})),
}
"""The model types whose decoder layers the bank computes; SmolLM and SmolLM2 are of type llama."""

LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
ACTIVATIONS = {"silu": False, "gelu_pytorch_tanh": True}
"""Activation → whether it is GELU by tanh."""


@dataclass(frozen=True)
class LayerKind:
    """In what the layers of one base differ."""

    window: int | None = None
    """Tokens that a token sees, itself included; None: all before it."""
    rotary: str | None = ""
    """Whose rotary embedding it has: that of a layer type, the base's only one, or none."""


@dataclass(frozen=True)
class Description:
    """The decoder layers of a base."""

    family: Family
    kinds: tuple[LayerKind, ...]
    """Of each layer."""
    scale: float
    """Attention scores are multiplied by it."""
    gelu: bool
    """GELU by tanh gates the feed-forward layer, not SiLU."""
    embedding: float
    """The embedding's rows are multiplied by it."""
    residual: float
    """What a branch adds to the residual sum is multiplied by it."""
    logits: float
    """Logits are multiplied by it."""
    stretch: tuple[float, int]
    """(β, L): the queries at position p are multiplied by 1 + β · ln(1 + ⌊p / L⌋)."""
    original: int | None
    """Longer documents have the long factors of LongRoPE; None: its type is another."""
    attention_cap: float | None
    """Attention scores are squashed to ± it by tanh."""
    cap: float | None
    """So are logits."""


def describe(config: BaseConfig, head_dim: int) -> Description:
    """The layers of a base with this configuration of a loaded model, which the bank computes."""
    family = FAMILIES[config["model_type"]]
    count = config["num_hidden_layers"]
    types = config.get("layer_types") or [""] * count
    turned = config.get("no_rope_layers") or [1] * count
    window = config.get("sliding_window")
    rope = rotary_fields(config)[0]
    original = int(str(rope.get("original_max_position_embeddings") or 0))
    own = set(config.get("rope_parameters") or {}) & LAYER_TYPES
    kinds = []
    for kind, turns in zip(types, turned, strict=True):
        seen = window if family.windowed or kind == "sliding_attention" else None
        without = not turns or (family.rotary_in_windows and window is not None and seen is None)
        kinds.append(LayerKind(seen, None if without else kind if kind in own else ""))
    scalar = config.get("query_pre_attn_scalar") or head_dim
    return Description(
        family=family,
        kinds=tuple(kinds),
        scale=config.get("attention_multiplier") or scalar**-0.5,
        gelu=ACTIVATIONS[activation(config)],
        embedding=config.get("embedding_multiplier", 1.0),
        residual=config.get("residual_multiplier", 1.0),
        logits=config.get("logit_scale") or 1 / config.get("logits_scaling", 1.0),
        stretch=(float(str(rope.get("llama_4_scaling_beta") or 0)), original or 1),
        original=original if rope.get("rope_type") == "longrope" else None,
        attention_cap=config.get("attn_logit_softcapping"),
        cap=config.get("final_logit_softcapping"),
    )


def activation(config: BaseConfig) -> str:
    """What gates the feed-forward layer."""
    return str(config.get("hidden_activation") or config["hidden_act"])


def rotary_fields(config: BaseConfig) -> list[Mapping[str, object]]:
    """What a config.json says of its rotary embedding, or of that of each layer type."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    parts = [rope.get(kind) for kind in sorted(LAYER_TYPES)]
    own = {name: value for name, value in rope.items() if name not in LAYER_TYPES}
    return [own, *(part for part in parts if isinstance(part, dict))]
