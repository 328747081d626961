"""How sure the answer is: the best points, run again with other seeds.

A search picks the best of many noisy losses, so the best one is partly luck. Repetitions with new
seeds (row order, initialisation, dropout) were not picked: their mean is what the point gives, and
their scatter is what a seed alone makes of it. The scatter is pooled over all repeated points, for
a few seeds tell little of a point's own; the interval is Student's.

A repetition that diverged is a result of its point, an infinite one. One that failed, ran out of
memory, was preempted or stopped by the search says nothing of the point: it is left out, and
counted. Where seeds were searched or given, all trials of a point are its repetitions.

Promise: points whose intervals overlap with the best one's are not told apart. Of those the lowest
mean is the answer, unless another costs less by more than a few rows. Price: standard library only.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypedDict

from sftray.config.checks import is_number
from sftray.config.points import Point
from sftray.config.spaces import label
from sftray.results.records import TrialRecord
from sftray.storage.journal.event_types import Outcome

T_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t, two-sided 95 %, for 1 … 30 degrees of freedom; 1.96 beyond."""


CHEAPER = 0.05
"""A point is cheaper than another from this share of its tokens on; sizes that drop a few rows
of an epoch differ by less."""


HUGE = 1e100
"""A loss beyond this has diverged, too: its square is no float."""


LEFT_OUT = (
    Outcome.FAILED, Outcome.PREEMPTED, Outcome.OUT_OF_MEMORY, Outcome.DATA_ERROR, Outcome.PRUNED,
)  # fmt: skip
"""Outcomes of a repetition that are no results of its point."""


class Confirmed(TypedDict):
    """A point that was run with several seeds, as leaderboard.json has it."""

    trial: str
    """The search's trial; where seeds were searched or given, the point's first."""
    point: Point
    runs: Sequence[str]
    """The trials that count for the mean or are left out; the search's own is none of those that
    repeat it, because it was picked for its loss."""
    eval_losses: Sequence[float]
    """The best of each repetition that counts; infinite where it diverged."""
    left_out: Mapping[str, int]
    """How many repetitions do not count, by outcome."""
    mean: float | None
    """None where no repetition counts."""
    interval: Sequence[float] | None
    """95 %; None with fewer than two repetitions in all."""
    tokens: int
    """That a repetition trained."""


class Confirmation(TypedDict):
    """What the repetitions say, as leaderboard.json has it."""

    points: Sequence[Confirmed]
    """The lowest mean first, those without one last."""
    winner: str | None
    """The search's trial whose point is the answer; None where no repetition counts."""
    tied: Sequence[str]
    """Trials, the winner among them, that are not told apart from the lowest mean."""


def half_width(one: Confirmed) -> float | None:
    """Half the interval of a point's mean."""
    if one["interval"] is None or one["mean"] is None:
        return None
    return one["interval"][1] - one["mean"]


def confirmation(trials: Sequence[TrialRecord]) -> Confirmation | None:
    """What the repetitions among the trials say; None where none has ended."""
    tried = {trial.trial: trial.point for trial in trials}
    repeated = _repetitions(trials) or _by_point(trials)
    if not repeated:
        return None
    half = _half_width(list(repeated.values()))
    points = sorted(
        (_confirmed(name, tried[name], runs, half) for name, runs in repeated.items()),
        key=lambda one: (one["mean"] is None, one["mean"] or 0.0, one["trial"]),
    )
    best = points[0]
    if best["mean"] is None:
        return {"points": points, "winner": None, "tied": []}
    tied = [one for one in points if one is best or _overlap(one, best)]
    winner = tied[0]
    for one in tied[1:]:
        if _cheaper(one, winner):
            winner = one
    return {
        "points": points,
        "winner": winner["trial"],
        "tied": [one["trial"] for one in tied],
    }


def answers(confirmed: Confirmation | None, trial: TrialRecord) -> bool:
    """Whether a trial ran the answer's point, in the search or again; any may have where
    repetitions do not say."""
    winner = confirmed and confirmed["winner"]
    if confirmed is None or winner is None:
        return True
    runs = next(one["runs"] for one in confirmed["points"] if one["trial"] == winner)
    return trial.trial == winner or trial.trial in runs


def _repetitions(trials: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Those that have ended, by the trial that they repeat."""
    known = {trial.trial for trial in trials}
    repeated: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.confirms in known and trial.outcome is not None:
            repeated.setdefault(trial.confirms, []).append(trial)
    return repeated


def _by_point(trials: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Trials that have ended by the first that differs from them in nothing but its seed; nothing
    where no two are alike."""
    alike: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.outcome is not None:
            point = {name: label(value) for name, value in trial.point.items() if name != "seed"}
            alike.setdefault(repr(sorted(point.items())), []).append(trial)
    groups = {runs[0].trial: runs for runs in alike.values()}
    return groups if any(len(runs) > 1 for runs in groups.values()) else {}


def _confirmed(
    name: str, point: Point, runs: Sequence[TrialRecord], half: float | None
) -> Confirmed:
    losses = _losses(runs)
    mean = statistics.fmean(losses) if losses else None
    interval = None
    if half is not None and mean is not None:
        width = half / math.sqrt(len(losses))
        interval = [mean - width, mean + width]
    return {
        "trial": name,
        "point": {n: value for n, value in point.items() if n != "seed"},
        "runs": [run.trial for run in runs],
        "eval_losses": losses,
        "left_out": Counter(run.outcome for run in runs if run.outcome in LEFT_OUT),
        "mean": mean,
        "interval": interval,
        "tokens": max(run.last["tokens"] for run in runs),
    }


def _losses(runs: Sequence[TrialRecord]) -> list[float]:
    """Of the repetitions that count."""
    return [_loss(run) for run in runs if run.outcome not in LEFT_OUT]


def _loss(run: TrialRecord) -> float:
    best = run.best
    if run.outcome != Outcome.COMPLETED or best is None or abs(best["eval_loss"]) > HUGE:
        return math.inf
    return float(best["eval_loss"])


def _half_width(repeated: Sequence[Sequence[TrialRecord]]) -> float | None:
    """Half the interval of one repetition: Student's t times the pooled standard deviation."""
    groups = [[loss for loss in _losses(runs) if math.isfinite(loss)] for runs in repeated]
    freedom = sum(len(losses) - 1 for losses in groups if losses)
    if freedom < 1:
        return None
    squares = sum(
        (loss - statistics.fmean(losses)) ** 2 for losses in groups if losses for loss in losses
    )
    t = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else 1.96
    return t * math.sqrt(squares / freedom)


def _overlap(one: Confirmed, best: Confirmed) -> bool:
    if one["interval"] is None or best["interval"] is None:
        return False
    return one["interval"][0] <= best["interval"][1]


def _cheaper(one: Confirmed, other: Confirmed) -> bool:
    """Whether using a point costs less: tokens to train, then the adapter's size."""
    if abs(one["tokens"] - other["tokens"]) >= CHEAPER * other["tokens"]:
        return one["tokens"] < other["tokens"]
    rank, other_rank = one["point"].get("lora_r"), other["point"].get("lora_r")
    return is_number(rank) and is_number(other_rank) and rank < other_rank
