"""Small checkpoints with a vision tower, of random weights, and the bundled tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers as t
from saved_bases import TOKENIZER

from sftray.demo import FOLDER

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 8192,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
WINDOWS = {"sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]}
CONFIGS: dict[str, Any] = {
    "gemma3": lambda: t.Gemma3Config(
        text_config={**TEXT, **WINDOWS}, vision_config=TOWER, mm_tokens_per_image=4
    ),
    "mistral3": lambda: t.Mistral3Config(
        text_config={**TEXT, "model_type": "ministral3"},
        vision_config={**TOWER, "model_type": "pixtral", "head_dim": 8},
    ),
    "qwen3_5": lambda: t.Qwen3_5Config(
        text_config={
            **TEXT,
            "layer_types": ["linear_attention", "full_attention"],
            **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
            **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
        },
        vision_config={"hidden_size": 16, "out_hidden_size": 32, "depth": 2, "num_heads": 2,
                       "intermediate_size": 24, "patch_size": 14},
    ),
    "gemma4": lambda: t.Gemma4Config(
        text_config={**TEXT, **WINDOWS, "hidden_size_per_layer_input": 0,
                     "num_kv_shared_layers": 0, "global_head_dim": 8},
        vision_config={**TOWER, "head_dim": 8, "num_key_value_heads": 2},
        audio_config=None,
    ),
}  # fmt: skip


def whole_model(kind: str) -> Any:
    """All parts of such a checkpoint, with weights large enough to matter."""
    torch.manual_seed(0)
    model = t.AutoModelForImageTextToText.from_config(CONFIGS[kind](), dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "A_log" not in name:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    return model.eval()


def multimodal_base(folder: Path, kind: str) -> Path:
    """Such a checkpoint, saved."""
    whole_model(kind).save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(FOLDER / name, folder / name)
    return folder
