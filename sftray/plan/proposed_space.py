"""What a proposal trains, searches, and how often, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sftray.config import TrialConfig
from sftray.config.spaces import Space, choice, fitting, loguniform, uniform
from sftray.plan.checkpoint_format import held_in
from sftray.plan.prior_points import published_rate
from sftray.storage.model_files import BaseConfig

TRIALS_AN_AXIS, TRIALS_AN_AXIS_ON_CPU = 12, 4


def proposed_trial(
    model: str, base: BaseConfig, gpus: int, conversations: int, reasons: dict[str, str]
) -> TrialConfig:
    why = "on all linear layers LoRA learns most; on attention alone it falls behind"
    reasons["trial.lora_target_modules"] = why
    reasons["trial.base_precision"] = (
        "QLoRA: the frozen base in 4 bits, a quarter of the memory"
        if gpus
        else "4 bits are slow on a CPU"
    )
    trial = TrialConfig(model, base_precision="nf4" if gpus else "fp32")
    if trial.base_precision not in (true := held_in(base)):
        reasons["trial.base_precision"] = "as the checkpoint is saved"
        trial = replace(trial, base_precision=true[0])
    if gpus:
        return trial
    if conversations > 10_000:
        return trial
    reasons["trial.num_train_epochs"] = "a small dataset wants more than one pass"
    return replace(trial, num_train_epochs=2.0)


def proposed_space(
    base: BaseConfig, trial: TrialConfig, conversations: int, reasons: dict[str, str]
) -> dict[str, Space]:
    low, high = 2e-5, 2e-3
    why = "LoRA's usual start is 1e-4 to 2e-4, and it diverges at some point above 1e-3"
    if (usual := published_rate(base, trial)) is not None:
        low, high = float(f"{usual / 8:.0e}"), float(f"{usual * 4:.0e}")
        why = f"published as good for a base of this family and size: {usual:.1e}"
    reasons["search_space.learning_rate"] = why
    space: dict[str, Space] = {
        "learning_rate": loguniform(low, high),
        "effective_batch_size": fitting([16, 32, 64, 128]),
    }
    if conversations <= 100_000:
        epochs = [1, 2, 3] if conversations <= 10_000 else [1, 2]
        space["num_train_epochs"] = choice(epochs)
        reasons["search_space.num_train_epochs"] = (
            "a small dataset wants more than one pass, and three can memorise it; trials are "
            "compared with those of as many epochs"
        )
    space["warmup_ratio"] = uniform(0.03, 0.1)
    reasons["search_space.warmup_ratio"] = "Adam's moments settle before full-size steps"
    space["lora_r"] = choice([8, 16, 32, 64])
    reasons["search_space.lora_r"] = (
        "capacity; alpha is the same at every rank, so that the best learning rate hardly moves"
    )
    return space


def proposed_trials(search: Mapping[str, Space], gpus: int, reasons: dict[str, str]) -> int:
    each = TRIALS_AN_AXIS if gpus else TRIALS_AN_AXIS_ON_CPU
    number = each * len(search)
    number += -number % max(gpus, 1)
    reasons["num_trials"] = (
        f"about {each} for each of {len(search)} axes"
        f"{f', a multiple of {gpus} GPUs' if gpus > 1 else ''}; most are stopped at a rung"
    )
    return number
