"""How sure the answer is: the best points, run again with other seeds.

A search picks the best of many noisy losses, so the best one is partly luck. Repetitions with new
seeds (row order, initialisation, dropout) were not picked: their mean is what the point gives.
Points are compared in pairs of one seed (`paired_seeds`); the interval of a point's own mean is
Student's, its scatter pooled over all repeated points, since a few seeds say little of one.

A repetition that diverged is a result of its point, an infinite one. One that failed, ran out of
memory, was preempted or stopped by the search says nothing of the point: it is left out, and
counted. Where seeds were searched or given, all trials of a point are its repetitions.

Promise: of points that are not worse than the lowest mean beyond chance that mean is the answer,
unless another of at least MIN_SEEDS seeds costs less by more than a few rows. Price: numpy.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypedDict

from sftray.config.checks import is_number
from sftray.config.points import Point
from sftray.config.spaces import label
from sftray.results.paired_seeds import MIN_SEEDS, Pairs, compare, critical_value
from sftray.results.records import TrialRecord
from sftray.storage.journal.event_types import Outcome

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
    above: float | None
    """By how much its loss is above that of the lowest mean, in pairs of one seed; None of that
    one, and where chance is not known."""
    above_interval: Sequence[float] | None
    """95 %, for all such differences together."""
    verdict: str
    """"best", "worse" or "open" (not worse beyond chance)."""
    more_seeds: int | None
    """That each point needs to decide what is open, where the difference stays; None where nothing
    is open, or too many would be needed."""
    tokens: int
    """That a repetition trained."""


class Confirmation(TypedDict):
    """What the repetitions say, as leaderboard.json has it."""

    points: Sequence[Confirmed]
    """The lowest mean first, those without one last."""
    winner: str | None
    """The search's trial whose point is the answer; None where no repetition counts."""
    tied: Sequence[str]
    """Trials, the winner among them, that are not worse than the lowest mean beyond chance."""
    too_low: float | None
    """How much the lowest mean is too low, having been picked, where the points are equal; less
    where they are not. None where chance is not known, or for one point."""


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
        return {"points": points, "winner": None, "tied": [], "too_low": None}
    pairs = compare(_by_seed(repeated), best["trial"]) if math.isfinite(best["mean"]) else None
    for one in points:
        _judge(one, best, pairs)
    winner, tied = best, [one for one in points if one["verdict"] in ("best", "open")]
    for one in tied[1:]:
        if min(map(len, (one["eval_losses"], best["eval_losses"]))) >= MIN_SEEDS and _cheaper(
            one, winner
        ):
            winner = one
    return {
        "points": points,
        "winner": winner["trial"],
        "tied": [one["trial"] for one in tied],
        "too_low": pairs.too_low if pairs and len(points) > 1 else None,
    }


def _judge(one: Confirmed, best: Confirmed, pairs: Pairs | None) -> None:
    """Set what the comparison of a point with the best says."""
    if one is best:
        one["verdict"] = "best"
    elif one["mean"] is None or math.isinf(one["mean"]):
        one["verdict"] = "worse"  # or nothing is known of it
    elif pairs is not None and one["trial"] in pairs.differences:
        found = pairs.differences[one["trial"]]
        one["above"] = found.above
        one["above_interval"] = [found.above - found.half_width, found.above + found.half_width]
        one["verdict"] = "worse" if found.worse else "open"
        one["more_seeds"] = found.more_seeds


def _by_seed(repeated: Mapping[str, Sequence[TrialRecord]]) -> dict[str, dict[Hashable, float]]:
    """Finite losses that count, of points whose mean is finite."""
    losses: dict[str, dict[Hashable, float]] = {}
    for name, runs in repeated.items():
        own = [run for run in runs if run.outcome not in LEFT_OUT]
        if own and all(math.isfinite(_loss(run)) for run in own):
            losses[name] = {label(run.point.get("seed")): _loss(run) for run in own}
    return losses


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
        "above": None,
        "above_interval": None,
        "verdict": "open",
        "more_seeds": None,
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
    return critical_value(2, freedom) * math.sqrt(squares / freedom)


def _cheaper(one: Confirmed, other: Confirmed) -> bool:
    """Whether using a point costs less: tokens to train, then the adapter's size."""
    if abs(one["tokens"] - other["tokens"]) >= CHEAPER * other["tokens"]:
        return one["tokens"] < other["tokens"]
    rank, other_rank = one["point"].get("lora_r"), other["point"].get("lora_r")
    return is_number(rank) and is_number(other_rank) and rank < other_rank
