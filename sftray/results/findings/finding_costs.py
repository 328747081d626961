"""What the losses cost, and when they came.

GPU-seconds of a trial are its time in training steps (evaluations, checkpoints and start left out)
times its workers; in a bank the time of a pass is divided among the trials that were in it, so the
same point costs less where more trials train beside it. Without a GPU they are seconds of workers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sftray.results.findings.comparisons import ComparedTrial


@dataclass(frozen=True)
class Cost:
    """A trial's best eval loss, and what the trial took."""

    trial: str
    eval_loss: float
    gpu_seconds: float


@dataclass(frozen=True)
class Moment:
    """When the sweep's best eval loss became better, or its newest evaluation."""

    tokens: int
    """Of all trials until then."""
    seconds: float | None
    """Since the sweep was started, pauses included; None where the journal has no times."""
    trial: str
    eval_loss: float
    """The best so far."""
    regret: float
    """What it lies above the best of the whole sweep."""


def pareto_front(costs: Iterable[Cost]) -> tuple[Cost, ...]:
    """Those that no other beats in one of loss and cost without being worse in the other, the
    cheapest first."""
    front: list[Cost] = []
    for cost in sorted(costs, key=lambda cost: (cost.gpu_seconds, cost.eval_loss)):
        if not front or cost.eval_loss < front[-1].eval_loss:
            front.append(cost)
    return tuple(front)


def regret(trials: Sequence[ComparedTrial], started: str | None) -> tuple[Moment, ...]:
    """The best eval loss so far, at each evaluation that lowered it and at the last one.

    started: when the sweep was, as in sweep.json. Evaluations are in the order of their times;
    where the journal has none, trial after trial.
    """
    begun = None if started is None else datetime.fromisoformat(started).timestamp()
    evaluations = [
        (when, trial.name, result)
        for trial in trials
        for when, result in zip(trial.record.times, trial.record.results, strict=True)
    ]
    evaluations.sort(key=lambda one: one[0] or 0.0)  # stable: without times as they are
    moments: list[Moment] = []
    newest: Moment | None = None
    spent, tokens = defaultdict[str, int](int), 0
    for when, trial, result in evaluations:
        tokens += result["tokens"] - spent[trial]
        spent[trial] = result["tokens"]
        if result["step"] == 0 or not math.isfinite(result["eval_loss"]):
            continue
        best = (float(result["eval_loss"]), trial)
        if newest is not None and newest.eval_loss <= best[0]:
            best = (newest.eval_loss, newest.trial)
        seconds = None if when is None or begun is None else max(0.0, when - begun)
        newest = Moment(tokens, seconds, best[1], best[0], regret=0.0)
        if not moments or best[0] < moments[-1].eval_loss:
            moments.append(newest)
    if newest is None:
        return ()
    if newest != moments[-1]:
        moments.append(newest)
    return tuple(replace(one, regret=one.eval_loss - newest.eval_loss) for one in moments)
