"""LoRA adapters by PEFT: where they go, how they begin, in float32."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Sequence

import torch
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from sftray.config import TrialConfig
from sftray.plan.lora_targets import INSIDE, not_adapted
from sftray.trial.reference_model import is_linear
from sftray.trial.text_part import is_text_part


def lora_config(trial: TrialConfig, model: PreTrainedModel | None = None) -> LoraConfig:
    """The trial's adapter in PEFT's words; on a `model` of which PEFT takes "all-linear" for more
    or less than its linear layers, their names; on the language model of a larger one a pattern of
    these there."""
    targets = trial.lora_target_modules
    if model is not None and targets == "all-linear":
        out = not_adapted(model.config.model_type)
        if out or is_text_part(model):
            head = model.get_output_embeddings()
            linear = [n for n, m in model.named_modules() if is_linear(m) and m is not head]
            targets = tuple(sorted({name.rpartition(".")[2] for name in linear} - out))
    if model is not None and isinstance(targets, tuple) and is_text_part(model):
        targets = only_inside(targets)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=trial.lora_r,
        # whole where it can be: other readers of adapter_config.json (Ollama's) take no other
        lora_alpha=int(trial.alpha) if trial.alpha == int(trial.alpha) else trial.alpha,
        use_rslora=trial.use_rslora,
        lora_dropout=trial.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        target_parameters=list(trial.lora_target_parameters) or None,
        bias="none",
    )


def only_inside(names: Collection[str]) -> str:
    """A pattern of modules in the language model of a larger one, whose other parts may have some
    of these names, too."""
    return rf".*\b{INSIDE}\.(.*\.)?({'|'.join(map(re.escape, sorted(names)))})"


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train_all(model: PreTrainedModel) -> None:
    """Train every weight of a base, and not an adapter on it."""
    model.requires_grad_(True)
    try:
        model.generation_config.validate(strict=True)
    except ValueError:  # a temperature without sampling, which transformers reads and does not save
        model.generation_config.do_sample = True


def init_adapters(model: nn.Module, seed: int) -> None:
    """Float32 adapters: lora_A Kaiming-uniform from a generator of its own (seed, module name),
    lora_B zero.

    Seeded by name, an adapter starts the same on every device, worker and trainer.
    """
    for name, parameter in trained_parameters(model).items():
        parameter.data = parameter.data.to(torch.float32)
        if "lora_B" in name:
            parameter.data.zero_()
            continue
        # without PEFT's wrapping, so that every trainer seeds it alike
        plain = name.removeprefix("base_model.model.").replace(".default.", ".")
        parameter.data.copy_(init_lora_a(plain, parameter.shape, seed))


def init_lora_a(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """A fresh lora_A [rank, input] in float32: Kaiming-uniform with a = √5, as PEFT draws it."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(tuple(shape)).uniform_(-bound, bound, generator=generator)


def require_float32(model: nn.Module) -> None:
    """Raise RuntimeError unless every trained parameter is float32 (decision 6)."""
    wrong = [name for name, p in trained_parameters(model).items() if p.dtype != torch.float32]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} trained weights are not float32 (first: {wrong[0]}): in bfloat16, AdamW "
            "updates of 1e-5 on weights of 1e-2 round to nothing"
        )
