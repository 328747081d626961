"""The learning rate at each optimizer step: linear warm-up, then a cosine to zero."""

from __future__ import annotations

import math

from sftray.config import TrialConfig


def scheduled_rate(trial: TrialConfig, step: int, *, steps: int, warmup_steps: int) -> float:
    """The rate of optimizer step `step`, counted from 1: transformers' cosine_with_min_lr.

    0 at the first step of a warm-up, the peak right after it, then half a cosine down to
    min_lr_ratio × peak after the last step.
    """
    done = step - 1
    if done < warmup_steps:
        return trial.learning_rate * done / warmup_steps
    progress = (done - warmup_steps) / max(1, steps - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return trial.learning_rate * (cosine * (1 - trial.min_lr_ratio) + trial.min_lr_ratio)


def warmup_steps(trial: TrialConfig, steps: int) -> int:
    """How many of a trial's optimizer steps are warm-up."""
    return math.ceil(trial.warmup_ratio * steps)
