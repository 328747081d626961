"""Two small model types that have between them every field of the layer description, written with
transformers' own modules: no type of theirs has so many."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from saved_bases import TOKENIZER
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.cohere2 import modeling_cohere2 as cohere
from transformers.models.gemma3 import modeling_gemma3 as gemma
from transformers.models.ministral3.modeling_ministral3 import get_llama_4_attn_scale
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from sftray.config import TrialConfig
from sftray.demo import FOLDER
from sftray.plan.layer_description import SPLIT, Family, Norms

BETA, ORIGINAL = 0.3, 64


class NormedConfig(gemma.Gemma3TextConfig):
    """Gemma 3 with soft caps, biases, multipliers, and gate and up in one."""

    model_type = "every_field_normed"
    residual_multiplier: float = 0.6
    embedding_multiplier: float = 0.8


class ParallelConfig(cohere.Cohere2Config):
    """Cohere 2 with norms of queries and keys, and queries scaled by position."""

    model_type = "every_field_parallel"


class _GateUp(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> Any:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(nn.functional.gelu(gate, approximate="tanh") * up)


class _NormedLayer(gemma.Gemma3DecoderLayer):
    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.mlp = _GateUp(config)

    def forward(self, hidden_states: torch.Tensor, **rest: Any) -> torch.Tensor:
        cap, factor = self.config.attn_logit_softcapping, self.config.residual_multiplier
        x = hidden_states
        mixed, _ = self.self_attn(self.input_layernorm(x), softcap=cap, **rest)
        x = x + factor * self.post_attention_layernorm(mixed)
        return x + factor * self.post_feedforward_layernorm(
            self.mlp(self.pre_feedforward_layernorm(x))
        )


class Normed(gemma.Gemma3ForCausalLM):
    """Its model."""

    config_class = NormedConfig
    _supports_sdpa = False  # as of all with a soft cap

    def __init__(self, config: NormedConfig) -> None:
        super().__init__(config)
        layers = [_NormedLayer(config, k) for k in range(config.num_hidden_layers)]
        self.model.layers = nn.ModuleList(layers)
        scale = config.embedding_multiplier
        self.model.embed_tokens.register_forward_hook(lambda _, __, rows: rows * scale)


class _NormedHeads(cohere.Cohere2Attention):
    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.q_norm = Olmo2RMSNorm(self.q_proj.out_features, config.layer_norm_eps)
        self.k_norm = Olmo2RMSNorm(self.k_proj.out_features, config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any,
        attention_mask: Any,
        position_ids: Any,
        **rest: Any,
    ) -> Any:
        shape = hidden_states.shape[:-1]
        query, key = (
            self.q_norm(self.q_proj(hidden_states)),
            self.k_norm(self.k_proj(hidden_states)),
        )
        query, key, value = (
            part.view(*shape, -1, self.head_dim).transpose(1, 2)
            for part in (query, key, self.v_proj(hidden_states))
        )
        if self.sliding_window is not None:
            query, key = cohere.apply_rotary_pos_emb(query, key, *position_embeddings)
        query = query * get_llama_4_attn_scale(position_ids, BETA, ORIGINAL)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, cohere.eager_attention_forward
        )
        how = {"scaling": self.scaling, "sliding_window": self.sliding_window}
        rest = {name: value for name, value in rest.items() if name != "cache"}
        out, weights = attend(self, query, key, value, attention_mask, **how, **rest)
        return self.o_proj(out.reshape(*shape, -1)), weights


class Parallel(cohere.Cohere2ForCausalLM):
    """Its model."""

    config_class = ParallelConfig

    def __init__(self, config: ParallelConfig) -> None:
        super().__init__(config)
        for number, layer in enumerate(self.model.layers):
            layer.self_attn = _NormedHeads(config, number)


TYPES: dict[str, tuple[Any, Any, Family, dict[str, Any]]] = {
    "every_field_normed": (
        NormedConfig,
        Normed,
        Family(
            norms=Norms(
                after_attention="post_attention_layernorm",
                before_mlp="pre_feedforward_layernorm",
                after_mlp="post_feedforward_layernorm",
            ),
            groups=(*SPLIT[:2], ("gate_up_proj",), ("down_proj",)),
            one_plus=True,
            windowed=True,
            fields=frozenset(
                """hidden_activation query_pre_attn_scalar attn_logit_softcapping
                final_logit_softcapping residual_multiplier embedding_multiplier""".split()  # noqa: SIM905
            ),
        ),
        {
            "head_dim": 12,
            "attention_bias": True,
            "query_pre_attn_scalar": 24,
            "sliding_window": 24,
            "layer_types": ["sliding_attention"] * 2,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "tie_word_embeddings": True,
        },
    ),
    "every_field_parallel": (
        ParallelConfig,
        Parallel,
        Family(
            norms=Norms(before_mlp=None),
            exact_norms=True,
            centred=True,
            parallel=True,
            interleaved=True,
            paired_tables=True,
            rotary_in_windows=True,
            fields=frozenset({"layer_norm_eps", "logit_scale", "llama_4_scaling_beta"}),
        ),
        {
            "attention_bias": True,
            "logit_scale": 0.3,
            "sliding_window": 24,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": ORIGINAL,
                "llama_4_scaling_beta": BETA,
            },
        },
    ),
}
"""Model type → its classes, its line in the layer description, and what its configuration says."""


@functools.cache
def register() -> None:
    """Make them known to transformers."""
    for kind, (config, model, _, _) in TYPES.items():
        AutoConfig.register(kind, config)
        AutoModelForCausalLM.register(config, model)


def save_every_field(folder: Path, kind: str) -> TrialConfig:
    """Write a random model of it with the demo's tokenizer; returns a trial of it."""
    register()
    for name in TOKENIZER:
        shutil.copy(FOLDER / name, folder / name)
    demo = json.loads((FOLDER / "config.json").read_text())
    shared = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    config, model_class, _, fields = TYPES[kind]
    torch.manual_seed(0)
    model = model_class(
        config(
            **{name: demo[name] for name in (*shared, "max_position_embeddings")},
            **{"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2},
            **{"num_attention_heads": 4, "num_key_value_heads": 2},
            **fields,
        )
    )
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, float(parameter.detach().mean()) if "norm" in name else 0.0, 0.1)
    model.save_pretrained(folder)
    return TrialConfig(str(folder), base_precision="fp32", learning_rate=5e-3, lora_r=4)
