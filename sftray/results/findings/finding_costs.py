"""What the losses cost, and when they came.

GPU-seconds of a trial are its time in training steps (evaluations, checkpoints and start left out)
times its workers; in a bank what its rows cost there, all passes of the bank together, so the same
point costs the same whatever trains beside it. Without a GPU they are seconds of workers.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random

from sftray.config.points import Point
from sftray.results.findings.comparisons import ComparedTrial, Sweep
from sftray.search.asha import asha
from sftray.storage.journal.event_types import Outcome


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


@dataclass(frozen=True)
class Chosen:
    """What the sweep would have chosen with a part of its tokens."""

    share: float
    """Of all tokens."""
    tokens: int
    trial: str
    point: Point
    eval_loss: float
    """The lowest until then."""
    trial_best: float
    """The lowest of that trial in the end, however far it was trained."""


@dataclass(frozen=True)
class Alternatives:
    """What other searches would have taken with the points of this one, in tokens."""

    own: int
    """Until the best loss was reached."""
    grid: int
    """All points to their ends."""
    random: float | None
    """Points to their ends, in random order, until the best has ended: the median of ORDERS."""
    random_asha: float | None
    """The same where ASHA stops trials, one after another; None where in most orders it stops the
    best."""


ORDERS = 200
SHARES = (1 / 9, 1 / 3, 1.0)
"""Of a sweep's tokens after which its answer is looked at."""


def alternatives(
    trials: Sequence[ComparedTrial], reached: int, reduction_factor: int
) -> Alternatives | None:
    """Of trials that were stopped or have ended; None before any has come to its end. A point that
    was stopped here is stopped at its next rung at the latest."""
    tried = [one for one in trials if one.outcome in (Outcome.COMPLETED, Outcome.PRUNED)]
    ends = [one for one in tried if one.final is not None]
    if not ends:
        return None
    best = min(ends, key=lambda one: one.final or 0.0)
    full = {one.name: one.record.last["tokens"] * one.budget_ratio for one in tried}
    shuffled = Random(0)
    plain, stopped = [], []
    for _ in range(ORDERS):
        order = shuffled.sample(tried, len(tried))
        until = order[: order.index(best) + 1]
        plain.append(sum(full[one.name] for one in until))
        stopped.append(_by_asha(until, full, reduction_factor))
    asha_tokens = statistics.median(stopped)
    return Alternatives(
        own=reached,
        grid=round(sum(full.values())),
        random=statistics.median(plain),
        random_asha=asha_tokens if math.isfinite(asha_tokens) else None,
    )


def _by_asha(
    order: Sequence[ComparedTrial], full: Mapping[str, float], reduction_factor: int
) -> float:
    """Tokens of trials one after another; infinite where the last, the best, is stopped."""
    rungs = defaultdict[tuple[str, int], list[float]](list)
    spent = 0.0
    for trial in order:
        share = 1.0
        for rung in trial.plan.rungs:
            loss = trial.at_rungs.get(rung.rows)
            here = rungs[trial.plan.bracket, rung.rows]
            goes_on = loss is not None and asha(here, loss, reduction_factor).goes_on
            if loss is not None:
                here.append(loss)
            if not goes_on:
                share = rung.rows / trial.plan.rows
                break
        spent += share * full[trial.name]
    return spent if share == 1.0 else math.inf


def chosen_by(sweep: Sweep, started: str | None) -> tuple[Chosen, ...]:
    """The answer after each of SHARES of the search's tokens, by the losses of single runs; none
    before the first evaluation, nor where the objective is no eval loss."""
    trials = {one.name: one for one in sweep.searched}
    moments = regret(sweep.searched, started)
    found = []
    for share in SHARES if moments and sweep.config.objective == "eval_loss" else ():
        tokens = round(share * moments[-1].tokens)
        if until := [one for one in moments if one.tokens <= tokens]:
            chosen, loss = trials[until[-1].trial], until[-1].eval_loss
            best = loss if chosen.best is None else chosen.best
            found.append(Chosen(share, tokens, chosen.name, chosen.record.point, loss, best))
    return tuple(found)


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
