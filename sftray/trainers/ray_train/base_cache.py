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
from sftray.trial.base_model import load_base
from sftray.trial.gpu_memory import free_memory
from sftray.trial.kept_proofs import prove_once
from sftray.trial.proof import Proof


class Bases:
    """One base at a time."""

    def __init__(self) -> None:
        self._key: tuple[Hashable, ...] = ()
        self._kept: tuple[PreTrainedModel, Proof] | None = None
        self._forward: Callable[..., object] | None = None
        """The base's own, where it is not that of its class."""

    def take(
        self, trial: TrialConfig, device: torch.device, max_length: int, *, resident: bool
    ) -> tuple[PreTrainedModel, Proof]:
        """The base for a trial on rows of `max_length` tokens, dequantised where it is to be
        `resident`, and the proof of the attention that it computes with."""
        key = (
            trial.model,
            trial.model_revision,
            trial.trust_remote_code,
            trial.finetune,
            trial.base_precision,
            trial.shard_base,
            trial.attention,
            max_length,
            device,
            resident,
        )
        kept, self._kept = self._kept, None
        if kept is not None and key == self._key:
            return kept
        del kept
        free_memory()
        model = load_base(trial, device)
        proof = prove_once(model, trial, max_length)
        if resident:
            make_resident(model)
        self._key, self._forward = key, vars(model).get("forward")
        return model, proof

    def keep(self, trained: PeftModel, proof: Proof, trial: TrialConfig) -> None:
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
        self._kept = base, proof
