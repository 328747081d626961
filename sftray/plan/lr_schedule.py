"""The learning rate at each optimizer step: linear warm-up, then a cosine, a line, or a plateau and
a decay, as transformers has them."""

from __future__ import annotations

import math
from typing import TypedDict

from sftray.config import TrialConfig


class Decay(TypedDict):
    """What transformers' warmup_stable_decay is given."""

    num_decay_steps: int
    decay_type: str
    min_lr_ratio: float


def scheduled_rate(trial: TrialConfig, step: int, *, steps: int, warmup_steps: int) -> float:
    """The rate of optimizer step `step`, counted from 1: transformers' cosine_with_min_lr, or its
    warmup_stable_decay with `decay`.

    The peak comes right after the warm-up, and after the last step the rate is min_lr_ratio × peak.
    A cosine's warm-up begins at 0, the others' at min_lr_ratio × peak.
    """
    done, floor = step - 1, trial.min_lr_ratio
    begins = 0.0 if trial.lr_scheduler == "cosine" else floor
    if done < warmup_steps:
        return trial.learning_rate * (begins + (1 - begins) * done / warmup_steps)
    decay_steps = decay(trial, steps)["num_decay_steps"]
    progress = max(0.0, (done - (steps - decay_steps)) / max(1, decay_steps))
    if trial.lr_scheduler == "cosine":
        height = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        height = 1 - (progress if trial.lr_scheduler == "linear" else math.sqrt(progress))
    return trial.learning_rate * (height * (1 - floor) + floor)


def decay(trial: TrialConfig, steps: int) -> Decay:
    """How the rate falls: from the warm-up's end on, but for wsd in the last lr_decay_ratio of the
    steps (1 - sqrt: Hägele et al. 2024, arXiv:2405.18392)."""
    falling = steps - warmup_steps(trial, steps)
    if trial.lr_scheduler == "wsd":
        falling = min(falling, math.ceil(trial.lr_decay_ratio * steps))
    return {
        "num_decay_steps": falling,
        "decay_type": "1-sqrt" if trial.lr_scheduler == "wsd" else "linear",
        "min_lr_ratio": trial.min_lr_ratio,
    }


def warmup_steps(trial: TrialConfig, steps: int) -> int:
    """How many of a trial's optimizer steps are warm-up."""
    return math.ceil(trial.warmup_ratio * steps)
