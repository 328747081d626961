"""The course of a trial as plain numbers: its evaluations, and what each optimizer step had.

Promise: whatever a journal lacks or spells as text ("NaN", "Infinity") is left out here, once, so
that who reads a course finds finite numbers in the order of steps. Price: numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sftray.config import TrialConfig
from sftray.results.diagnosis.one_diagnosis import NO_CHANGE
from sftray.results.records import Floats, TrialRecord, points_of

USUAL_STEPS = 20
"""What is usual is the median of so many steps before: a warm-up long, and two spikes in a row do
not shift it."""
FIRST_STEPS = 5
"""Nothing is usual before so many steps."""


@dataclass(frozen=True)
class Evaluation:
    """One finite eval loss after the start."""

    step: int
    eval_loss: float
    epoch: float | None
    train_loss: float | None
    """Mean a supervised token since the evaluation before."""


@dataclass(frozen=True)
class TrialCurves:
    """What a trial's metrics say, oldest first."""

    evaluations: tuple[Evaluation, ...]
    base_overflows: bool
    """The untrained base's own eval loss is not finite."""
    lost: int | None
    """The step of the first evaluation whose eval loss is not finite."""
    curve: Floats
    """[step, train loss, learning rate, gradient norm] of every step that is known, [steps, 4]."""
    steps: int | None
    """Optimizer steps of the whole trial; None where no evaluation tells its epoch."""
    supervised_share: float | None
    """Supervised tokens over all tokens, without padding."""

    @property
    def known_until(self) -> int:
        """The last step of which anything is known."""
        evaluated = self.evaluations[-1].step if self.evaluations else 0
        return max(evaluated, self.lost or 0)

    @property
    def best(self) -> Evaluation:
        """The evaluation with the lowest loss; there must be one."""
        return min(self.evaluations, key=lambda evaluation: evaluation.eval_loss)

    @property
    def last(self) -> Evaluation:
        """The newest evaluation; there must be one."""
        return self.evaluations[-1]


def read_course(trial: TrialRecord, config: TrialConfig) -> TrialCurves:
    """The course of `trial`. A step that comes again, after a resume, counts as it came last."""
    evaluated: dict[int, Evaluation] = {}
    lost: list[int] = []
    steps, share = None, None
    for metrics in trial.results:
        step, eval_loss, epoch, train_loss, tokens, supervised = (
            _number(metrics.get(name)) for name in _READ
        )
        if step is None:
            continue
        if eval_loss is None and metrics.get("eval_loss") is not None:
            lost.append(int(step))
        elif eval_loss is not None and step > 0:
            evaluated[int(step)] = Evaluation(int(step), eval_loss, epoch, train_loss)
        if epoch:
            steps = round(step * config.num_train_epochs / epoch)
        if tokens and supervised is not None:
            share = supervised / tokens
    return TrialCurves(
        evaluations=tuple(evaluated[step] for step in sorted(evaluated)),
        base_overflows=0 in lost,
        lost=next((step for step in lost if step > 0), None),
        curve=_curve(trial),
        steps=steps,
        supervised_share=share,
    )


def usual(values: Floats) -> Floats:
    """The median of up to USUAL_STEPS values before each one; NaN for the first FIRST_STEPS."""
    medians = np.full(len(values), np.nan)
    for step in range(FIRST_STEPS, min(USUAL_STEPS, len(values))):
        medians[step] = np.median(values[:step])
    if len(values) > USUAL_STEPS:
        windows = sliding_window_view(values[:-1], USUAL_STEPS)
        medians[USUAL_STEPS:] = np.median(windows, axis=1)
    return medians


def largest_rise(losses: list[float]) -> float:
    """The largest rise from any loss to a later one; 0 where they only fall."""
    lowest, largest = math.inf, 0.0
    for loss in losses:
        lowest = min(lowest, loss)
        largest = max(largest, loss - lowest)
    return largest


def still_falling(losses: Sequence[float]) -> bool:
    """Whether the last of three eval losses or more is the lowest, and by NO_CHANGE below the one
    before."""
    if len(losses) < 3 or losses[-1] > min(losses):
        return False
    return losses[-1] < losses[-2] * (1 - NO_CHANGE)


def falls(values: Floats) -> bool:
    """Whether the second half lies below the first by more than twice the error of their means."""
    first, second = np.array_split(values, 2)
    if len(second) < 2:
        return False
    error = math.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    return bool(first.mean() - second.mean() > 2 * error)


def _curve(trial: TrialRecord) -> Floats:
    parts = [points_of(metrics.get("curve")) for metrics in trial.results]
    newest_first: Floats = np.concatenate([*parts, points_of(trial.last_curve)])[::-1]
    finite: Floats = newest_first[np.isfinite(newest_first).all(axis=1)]
    _, firsts = np.unique(finite[:, 0], return_index=True)
    return np.asarray(finite[firsts], dtype=float)


def _number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


_READ = ("step", "eval_loss", "epoch", "train_loss", "tokens", "supervised_tokens")
