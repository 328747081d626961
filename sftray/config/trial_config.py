"""TrialConfig: one fine-tune; every field can be an axis of the search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftray.config.checks import (
    is_number,
    known_fields,
    no_secrets,
    one_of,
    require,
    require_types,
    with_known_fields,
)

BASE_PRECISIONS = ("nf4", "bf16", "fp32")
FINETUNES = ("lora", "full")
ATTENTIONS = ("flash_attention_3", "flash_attention_2", "varlen", "sdpa")


@with_known_fields
@dataclass(frozen=True)
class TrialConfig:
    """One fine-tune. A point of the search is applied with `replace(trial, **point)`."""

    model: str
    """The base: a local folder or a Hub model id."""
    model_revision: str | None = None
    """Git revision of a Hub model; None takes the newest and records it."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository brings. Off unless you have read it."""
    finetune: str = "lora"
    """What is trained: lora, an adapter on a frozen base; full, all weights, held in float32."""
    base_precision: str = "nf4"
    """How the frozen base is held: nf4 (QLoRA, double-quantised), bf16 or fp32. In full
    fine-tuning, where no nf4 is: what is computed in."""

    learning_rate: float = 1e-4
    """Peak learning rate of AdamW; LoRA usually wants 1e-4 … 2e-4, full fine-tuning
    1e-5 … 5e-5."""
    effective_batch_size: int = 16
    """Packed rows an optimizer step; always micro-batch × accumulation × workers exactly."""
    num_train_epochs: float = 1.0
    """Passes over the packed rows; fractions are allowed."""
    warmup_ratio: float = 0.05
    """Share of the optimizer steps in which the learning rate rises from 0 (rounded up)."""
    min_lr_ratio: float = 0.0
    """The cosine ends at this share of the peak."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay, on all LoRA weights; in full fine-tuning not on norms and biases."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999

    lora_r: int = 16
    """LoRA rank."""
    lora_alpha: float | None = None
    """LoRA's alpha; None derives lora_alpha_ratio × lora_r, so that rank can be searched alone."""
    lora_alpha_ratio: float = 2.0
    """alpha / r where lora_alpha is None."""
    lora_dropout: float = 0.0
    """Dropout in front of lora_A."""
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    """The modules that get an adapter, in PEFT's words."""

    num_workers: int = 1
    """Workers (GPUs) a trial."""
    micro_batch_size: int | None = None
    """Rows a worker holds at once; None derives it."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass; None derives it."""
    attention: str | None = None
    """flash_attention_3, flash_attention_2, varlen or sdpa; None takes the fastest that works."""
    shard_base: bool = False
    """Spread the base over the trial's workers (FSDP2), instead of a whole one on each."""
    seed: int = 0
    """Row order, adapter initialisation and dropout."""

    def __post_init__(self) -> None:
        require_types("trial.", self)
        no_secrets("trial.", self)
        require(bool(self.model), "trial.model", repr(self.model), "a folder or a Hub model id")
        one_of("trial.finetune", self.finetune, FINETUNES)
        one_of("trial.base_precision", self.base_precision, BASE_PRECISIONS)
        require(
            self.finetune == "lora" or self.base_precision != "nf4",
            "trial.base_precision",
            "'nf4' with finetune='full'",
            "'bf16' or 'fp32': 4-bit weights cannot be trained",
        )
        if self.attention is not None:
            one_of("trial.attention", self.attention, ATTENTIONS)
        for name, low in (
            ("effective_batch_size", 1),
            ("lora_r", 1),
            ("num_workers", 1),
            ("micro_batch_size", 1),
        ):
            value = getattr(self, name)
            if value is not None:
                require(
                    isinstance(value, int) and value >= low,
                    f"trial.{name}",
                    repr(value),
                    f"a whole number of at least {low}",
                )
        for name in ("learning_rate", "num_train_epochs", "max_grad_norm", "lora_alpha_ratio"):
            value = getattr(self, name)
            require(
                is_number(value) and math.isfinite(value) and value > 0,
                f"trial.{name}",
                repr(value),
                "a finite number above 0",
            )
        for name in ("warmup_ratio", "min_lr_ratio", "lora_dropout", "adam_beta1", "adam_beta2"):
            value = getattr(self, name)
            require(is_number(value) and 0 <= value < 1, f"trial.{name}", repr(value), "0 <= x < 1")
        require(
            is_number(self.weight_decay) and self.weight_decay >= 0,
            "trial.weight_decay",
            repr(self.weight_decay),
            "at least 0",
        )
        require(
            self.lora_alpha is None or self.lora_alpha > 0,
            "trial.lora_alpha",
            repr(self.lora_alpha),
            "above 0, or None for lora_alpha_ratio × lora_r",
        )
        require(
            self.effective_batch_size % self.num_workers == 0,
            "trial.effective_batch_size",
            f"{self.effective_batch_size} with num_workers={self.num_workers}",
            "a multiple of num_workers",
        )
        require(
            not self.shard_base or (self.num_workers > 1 and self.base_precision == "nf4"),
            "trial.shard_base",
            f"True with num_workers={self.num_workers}, base_precision={self.base_precision!r}",
            "with several workers and an nf4 base",
        )
        require(
            not self.shard_base or self.lora_target_modules == "all-linear",
            "trial.shard_base",
            f"True with lora_target_modules={self.lora_target_modules!r}",
            "with 'all-linear': only adapted layers can be taken apart",
        )
        if isinstance(self.lora_target_modules, list):
            object.__setattr__(self, "lora_target_modules", tuple(self.lora_target_modules))

    @property
    def alpha(self) -> float:
        """LoRA's alpha as PEFT wants it."""
        if self.lora_alpha is not None:
            return self.lora_alpha
        return self.lora_alpha_ratio * self.lora_r

    def at(self, point: Mapping[str, Any]) -> TrialConfig:
        """This baseline with a point of the search applied, checked again."""
        known_fields("point", point, TrialConfig)
        return dataclasses.replace(self, **point)
