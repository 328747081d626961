"""How a sweep's trials fit what they run on; the same for a run and for `--plan`.

Promise: whatever cannot run is a ConfigError here, or a reason why the search passes a point by.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sftray.config import SweepConfig, TrialConfig
from sftray.errors import ConfigError
from sftray.plan.memory import choose_execution, too_large
from sftray.plan.trial_plan import Execution, field_values


@dataclass(frozen=True)
class Fit:
    """How the trials of a sweep fit what they run on."""

    execution: Execution
    too_large: Callable[[TrialConfig], str | None] = lambda trial: None
    """Why a trial of this sweep does not fit."""
    at_once: int = 1
    """How many trials run at a time."""


def fit_train(sweep: SweepConfig, base: Mapping[str, Any], memory: float | None) -> Fit:
    """How the `train` trainer runs a sweep's trials on a GPU of `memory` bytes (None: a CPU).

    Raises ConfigError where the smallest of them does not fit, or one of the sweep's `points`.
    """
    refuse = functools.partial(
        too_large, base=base, max_length=sweep.data.max_length, memory=memory
    )
    execution = choose_execution(sweep, base, memory=memory)
    smallest = {"lora_r": min(field_values(sweep, "lora_r") or [])}
    trials = [sweep.trial.at(point) for point in sweep.points or (smallest,)]
    reasons = [reason for trial in trials if (reason := refuse(trial))]
    if execution is None or reasons:
        raise ConfigError(f"trial: {reasons[0]}")
    return Fit(execution, refuse)
