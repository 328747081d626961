"""Bases with experts, small or by their published sizes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers as t
from saved_bases import TOKENIZER

from sftray.demo import FOLDER

SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 8192,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts_per_tok": 2,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
WITHOUT_HEADS = {name: size for name, size in SMALL.items() if "num_" not in name}
WITHOUT_HEADS |= {"num_hidden_layers": 2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SMALL_CONFIGS: dict[str, Any] = {
    "mixtral": lambda: t.MixtralConfig(**SMALL, num_local_experts=4),
    "qwen3_moe": lambda: t.Qwen3MoeConfig(
        **SMALL, head_dim=8, moe_intermediate_size=16, num_experts=4
    ),
    "gpt_oss": lambda: t.GptOssConfig(
        **SMALL, head_dim=8, num_local_experts=4, rope_parameters=ROPE
    ),
}
EXPERT_KINDS = tuple(SMALL_CONFIGS)
SMALL_CONFIGS |= {
    "mamba": lambda: t.MambaConfig(**WITHOUT_HEADS, state_size=4),
    "mamba2": lambda: t.Mamba2Config(
        **WITHOUT_HEADS, num_heads=4, head_dim=16, state_size=8, n_groups=1, chunk_size=16
    ),
    "jamba": lambda: t.JambaConfig(
        **SMALL, num_experts=4, attn_layer_offset=1, attn_layer_period=2, mamba_d_state=4
    ),
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "mixtral": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "num_experts_per_tok": 2, "vocab_size": 32000,
    },
    "qwen3_moe": {
        "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936,
        "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
    "qwen2_moe": {
        "hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 60,
        "num_experts_per_tok": 4, "vocab_size": 151936,
    },
    "olmoe": {
        "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64,
        "num_experts_per_tok": 8, "vocab_size": 50304,
    },
    "gpt_oss": {
        "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
        "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201088,
    },
    "phimoe": {
        "hidden_size": 4096, "intermediate_size": 6400, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 16,
        "num_experts_per_tok": 2, "vocab_size": 32064,
    },
}  # fmt: skip
"""Mixtral 8x7B, Qwen3 30B-A3B, Qwen1.5 2.7B-A, OLMoE 1B-7B, gpt-oss 20B, Phi-3.5 MoE."""


def small_expert_base(folder: Path, kind: str) -> Path:
    """A base of random weights with the bundled tokenizer."""
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(SMALL_CONFIGS[kind](), dtype=torch.float32)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1)
    model.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(FOLDER / name, folder / name)
    return folder
