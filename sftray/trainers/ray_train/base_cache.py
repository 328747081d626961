"""The base of a worker's last trial, kept for the next.

Promise: a trial that gets it trains as it would on a base loaded anew; what a trial has done to it
is undone by `keep`, but for full fine-tuning, after which a base is loaded anew. Price: the base's
memory between trials.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from sftray.config import TrialConfig
from sftray.trainers.ray_train.fused_lora import make_resident
from sftray.trial.attention import Attention, settle_attention
from sftray.trial.base_model import load_base
from sftray.trial.gpu_memory import free_memory
from sftray.trial.isolation import prove_isolation


class Bases:
    """One base at a time."""

    def __init__(self) -> None:
        self._key: tuple[Hashable, ...] = ()
        self._kept: tuple[PreTrainedModel, Attention, float] | None = None
        self._forward: Callable[..., object] | None = None
        """The base's own, where it is not that of its class."""

    def take(
        self, trial: TrialConfig, device: torch.device, attention: Attention, *, resident: bool
    ) -> tuple[PreTrainedModel, Attention, float]:
        """The base for a trial, dequantised where it is to be `resident`, the attention that
        computes it (`attention`, or the next), and what proving that has found."""
        key = (
            trial.model,
            trial.model_revision,
            trial.trust_remote_code,
            trial.finetune,
            trial.base_precision,
            trial.shard_base,
            attention,
            device,
            resident,
        )
        kept, self._kept = self._kept, None
        if kept is not None and key == self._key:
            return kept
        del kept
        free_memory()
        model = load_base(trial, device, attention)
        settled = settle_attention(model, attention, trial)
        change = prove_isolation(model, settled)
        if resident:
            make_resident(model)
        self._key, self._forward = key, vars(model).get("forward")
        return model, settled, change

    def keep(
        self, trained: PeftModel, attention: Attention, change: float, trial: TrialConfig
    ) -> None:
        """Take the adapter off a PEFT model and keep its base; not one that was taken apart, or
        whose own weights were trained."""
        if trial.shard_base or trial.finetune == "full":
            return
        base = trained.unload()
        if base.is_activation_checkpointing:
            base.activation_checkpointing_disable()
            base.disable_input_require_grads()
        vars(base).pop("peft_config", None)
        del base.forward  # TRL's fused head in front of the model's own
        if self._forward is not None:
            base.forward = self._forward
        base.eval().requires_grad_(False)
        self._kept = base, attention, change
