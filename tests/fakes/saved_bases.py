"""The bundled base in the forms in which people find one: quantised, with an adapter, padded, …"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from sftray.demo import FOLDER

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BITS: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    # what a checkpoint says of computing is not what a trial does
    "fp4": {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float16},
}
FP8: dict[str, Any] = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [1, 192]},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
                "input_activations": {
                    "num_bits": 8, "type": "float", "strategy": "token", "dynamic": True,
                },
            }
        },
    },
}  # fmt: skip


def copy_of_the_base(folder: Path, **config: object) -> Path:
    """The bundled base, with some settings of its own."""
    folder.mkdir(parents=True)
    for name in (*TOKENIZER, "config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(FOLDER / name, folder / name)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


def in_bits(folder: Path, kind: str) -> Path:
    """The bundled base as bitsandbytes saves it."""
    AutoModelForCausalLM.from_pretrained(
        FOLDER,
        quantization_config=BitsAndBytesConfig(**BITS[kind]),
        device_map={"": "cpu"},
        dtype=torch.float32,
        use_safetensors=True,
    ).save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(FOLDER / name, folder / name)
    return folder


def in_fp8(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    """The bundled base in FP8 with a scale for each row; returns its decoded weights."""
    copy_of_the_base(folder, quantization_config=FP8[kind])
    scale_name = "weight_scale_inv" if kind == "fp8" else "weight_scale"
    saved, decoded = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        saved[name] = weight
        if name.endswith("proj.weight"):
            scale = weight.float().abs().amax(1, keepdim=True) / 448
            saved[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
            saved[name.removesuffix("weight") + scale_name] = scale
            decoded[name] = saved[name].float() * scale
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    return decoded


def with_tokens(folder: Path, **tokens: str | None) -> Path:
    """The bundled base whose tokenizer has other special tokens, or lacks some."""
    copy_of_the_base(folder, eos_token_id=None, pad_token_id=None)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | tokens
    file.write_text(json.dumps({name: text for name, text in settings.items() if text is not None}))
    (folder / "generation_config.json").unlink()
    return folder


def resized(folder: Path, rows: int) -> Path:
    """The bundled base with so many rows in its embedding."""
    copy_of_the_base(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    model.resize_token_embeddings(rows)
    model.save_pretrained(folder)
    return folder
