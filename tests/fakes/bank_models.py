"""Tiny random models of every family that a bank computes, one trial's gradients by PEFT, and
short trials of a tiny model on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import get_peft_model
from torch import nn

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.demo import FOLDER
from sftray.plan.bank_settings import BankSettings
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.bank.batches import Batch, Buffers, PackedRow, read_row, smallest
from sftray.trial.lora_adapter import init_adapters, lora_config
from sftray.trial.trial_spec import TrialSpec

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 128,
}

CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "llama with biases and llama3 rope": lambda: transformers.LlamaConfig(
        **SIZES,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "smollm (tied)": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=16),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=None),
    "mistral with a window": lambda: transformers.MistralConfig(**SIZES, sliding_window=5),
    "qwen2 with windows": lambda: transformers.Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **SIZES,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "smollm3": lambda: transformers.SmolLM3Config(**SIZES, no_rope_layers=[1, 0], pad_token_id=0),
    "ministral": lambda: transformers.MinistralConfig(**SIZES, head_dim=16, sliding_window=5),
    "ministral3": lambda: transformers.Ministral3Config(
        **SIZES,
        head_dim=16,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 8,
            "llama_4_scaling_beta": 0.3,
        },
    ),
    "phi3": lambda: transformers.Phi3Config(
        **SIZES,
        sliding_window=5,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    ),
    "olmo2": lambda: transformers.Olmo2Config(**SIZES),
    "olmo3": lambda: transformers.Olmo3Config(
        **SIZES, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
    "phi3 with longrope": lambda: transformers.Phi3Config(
        **SIZES | {"max_position_embeddings": 64},
        pad_token_id=0,
        original_max_position_embeddings=12,
        rope_scaling={
            "type": "longrope",
            "short_factor": [1.0, 1.2, 1.4, 1.6],
            "long_factor": [2.0, 3.0, 5.0, 8.0],
        },
    ),
    "gemma": lambda: transformers.GemmaConfig(**SIZES, head_dim=16),
    "gemma2": lambda: transformers.Gemma2Config(
        **SIZES,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=5,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=1.5,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "vaultgemma": lambda: transformers.VaultGemmaConfig(
        **SIZES, head_dim=16, sliding_window=5, attn_logit_softcapping=2.0
    ),
    "cohere": lambda: transformers.CohereConfig(**SIZES, logit_scale=0.3),
    "cohere2": lambda: transformers.Cohere2Config(
        **SIZES, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
    "cwm": lambda: transformers.CwmConfig(
        **SIZES,
        head_dim=16,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
        eos_token_id=1,
        bos_token_id=0,
    ),
    "ernie4_5": lambda: transformers.Ernie4_5Config(**SIZES, head_dim=16, use_bias=True),
    "helium": lambda: transformers.HeliumConfig(**SIZES, head_dim=8),
    "glm": lambda: transformers.GlmConfig(**SIZES, head_dim=16, pad_token_id=0),
    "granite": lambda: transformers.GraniteConfig(
        **SIZES,
        mlp_bias=True,
        attention_multiplier=0.2,
        embedding_multiplier=3.0,
        residual_multiplier=0.6,
        logits_scaling=1.7,
    ),
    "glm4": lambda: transformers.Glm4Config(**SIZES, head_dim=16, pad_token_id=0),
    "seed_oss": lambda: transformers.SeedOssConfig(
        **SIZES, head_dim=16, attention_out_bias=True, attention_dropout=0.0, residual_dropout=0.0
    ),
    "exaone4": lambda: transformers.Exaone4Config(
        **SIZES, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
}


def random_model(family: str, seed: int = 0) -> Any:
    """A float32 model of the family with weights large enough to matter, norms and biases too."""
    torch.manual_seed(seed)
    config, capped = CONFIGS[family](), family in ("gemma2", "vaultgemma")
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager" if capped else "sdpa", dtype=torch.float32
    )
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1)
    return model.requires_grad_(False)


def random_rows(count: int, length: int, vocabulary: int, seed: int) -> list[dict[str, Any]]:
    """Packed rows of three or four documents, some positions supervised."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        cuts = np.sort(random.choice(np.arange(1, length), size=3, replace=False))
        lengths = np.diff(np.concatenate([[0], cuts, [length]]))
        ids = random.integers(0, vocabulary, size=length)
        labels = np.where(random.random(length) < 0.6, ids, -100)
        labels[np.cumsum(lengths) - lengths] = -100
        rows.append({"input_ids": ids, "labels": labels, "seq_lengths": lengths})
    return rows


def peft_model(model: Any, trial: TrialConfig, seed: int, spread: float = 0.05) -> Any:
    """The model with the trial's adapter, lora_B random instead of zero."""
    adapted = get_peft_model(model, lora_config(trial))
    init_adapters(adapted, trial.seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, spread, generator=generator)
    return adapted


def loss_sum(model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    """The sum of token losses, by transformers and PEFT, each document alone."""
    losses = []
    for ids, labels in documents_of(rows):
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        losses.append(nn.functional.cross_entropy(logits, labels[1:], reduction="sum"))
    return torch.stack(losses).sum()


def documents_of(rows: list[dict[str, Any]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and labels of each document of packed rows."""
    for row in rows:
        ends = np.cumsum(row["seq_lengths"])[:-1]
        ids, labels = (np.split(row[name], ends) for name in ("input_ids", "labels"))
        yield from zip(map(torch.from_numpy, ids), map(torch.from_numpy, labels), strict=True)


def bank_batch(rows: list[dict[str, Any]], unused: int = 3, device: torch.device = CPU) -> Batch:
    """The same rows as the bank takes them, with unused entries in both buffers."""
    return roomy_batch([read_row(row) for row in rows], unused, unused, device)


def roomy_batch(
    rows: list[PackedRow], documents: int, targets: int, device: torch.device = CPU
) -> Batch:
    """A batch of rows in buffers with room for so many documents and targets more."""
    exact = smallest([rows])
    roomy = replace(exact, documents=exact.documents + documents, targets=exact.targets + targets)
    buffers = Buffers(roomy, len(rows), len(rows[0].ids), device)
    buffers.fill(rows)
    return buffers.batch


def save_tiny(folder: Path, kind: str = "llama", **fields: Any) -> TrialConfig:
    """Write a random model of 2 layers with the demo's tokenizer; returns a trial of it. Of another
    model type than the demo's, with weights large enough that each of its `fields` matters."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(FOLDER / name, folder / name)
    config = json.loads((FOLDER / "config.json").read_text())
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
    torch.manual_seed(0)
    dropped = ("architectures", "dtype", "model_type")
    known = {k: v for k, v in config.items() if k not in dropped}
    if kind != "llama":
        shared = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
        known = {k: v for k, v in known.items() if k in (*shared, "max_position_embeddings")}
    made = transformers.AutoConfig.for_model(kind, **{**known, **sizes, **heads, **fields})
    model = transformers.AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    if kind != "llama":
        for name, parameter in model.named_parameters():
            mean = float(parameter.detach().mean()) if "norm" in name else 0.0
            nn.init.normal_(parameter, mean, 0.1)
    model.save_pretrained(folder)
    return TrialConfig(str(folder), base_precision="fp32", learning_rate=5e-3, lora_r=4)


def short_spec(
    packs: Packs, trial: TrialConfig, folder: Path, ladder: tuple[int, ...] = (), evals: int = 4
) -> TrialSpec:
    """The trial in a folder of its own, over 40 rows unless it says how many epochs."""
    rows = packs.rows("train")
    if trial.num_train_epochs == 1.0:
        trial = replace(trial, num_train_epochs=40 / rows)
    plan = plan_trial(trial, rows, ladder=ladder, evals_per_trial=evals, execution=Execution(1))
    return TrialSpec(folder.name, trial, plan, packs.root, str(folder), None, 0)


def settings_for(trials: Sequence[TrialConfig], slots: int) -> BankSettings:
    """A bank on a CPU that can train these trials."""
    return BankSettings(
        slots=slots,
        micro_batch_size=1,
        lora_r=max(trial.lora_r for trial in trials),
        dropout=any(trial.lora_dropout for trial in trials),
        resident=True,
        activation_checkpointing=False,
        memory_gb=0.0,
    )
