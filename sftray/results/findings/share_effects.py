"""How the loss of each source moves with the share of one.

Promise: the losses of a part of the range are those of one trial, the best there by the objective,
so they can be had together; all are taken after the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftray.config.checks import is_number
from sftray.config.points import short
from sftray.config.shares import source_of
from sftray.results.findings.comparisons import ComparedTrial, Comparison, Sweep, comparisons
from sftray.results.records import by_source
from sftray.storage.journal.event_types import Metrics

PARTS = 3
"""Of a range; a choice of up to MOST_VALUES has a part a value."""
MOST_VALUES = 6


@dataclass(frozen=True)
class SharePart:
    """The trials of a part of an axis."""

    low: float
    high: float
    """The least and the greatest share among them."""
    trials: int
    best: str
    eval_loss: float
    by_source: dict[str, float]


@dataclass(frozen=True)
class ShareEffect:
    """An axis, from its least share to its greatest."""

    axis: str
    parts: tuple[SharePart, ...]
    compared: str


def share_effects(sweep: Sweep) -> tuple[ShareEffect, ...]:
    """Of every axis that is a share and was tried in two parts, at the place of most losses."""
    axes = [name for name in sweep.spaces if source_of(name) is not None]
    place = max(comparisons(sweep), key=lambda one: len(one.finite), default=None)
    if not axes or place is None:
        return ()
    trials = [trial for trial in sweep.searched if trial.name in place.finite]
    found = [ShareEffect(axis, _parts(trials, place, axis), str(place)) for axis in axes]
    return tuple(one for one in found if len(one.parts) > 1)


def says(part: SharePart) -> str:
    """A part in words."""
    ends = dict.fromkeys((short(part.low), short(part.high)))
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in part.by_source.items())
    return f"{' … '.join(ends)}: {losses} ({part.best}, the best of {part.trials})"


def _parts(trials: Sequence[ComparedTrial], place: Comparison, axis: str) -> tuple[SharePart, ...]:
    of = {trial.name: float(s) for trial in trials if is_number(s := trial.point[axis])}
    values = sorted({*of.values()})
    low, width = min(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)
    groups: dict[int, list[ComparedTrial]] = {}
    for trial in trials:
        if trial.name in of:
            share = of[trial.name]
            part = values.index(share)
            if len(values) > MOST_VALUES:
                part = min(int(PARTS * (share - low) / width), PARTS - 1)
            groups.setdefault(part, []).append(trial)
    return tuple(_part(groups[part], place, of) for part in sorted(groups))


def _part(trials: Sequence[ComparedTrial], place: Comparison, of: dict[str, float]) -> SharePart:
    best = min(trials, key=lambda trial: place.finite[trial.name])
    shares = [of[trial.name] for trial in trials]
    losses = by_source(_result(best, place.rows))
    loss = place.finite[best.name]
    return SharePart(min(shares), max(shares), len(trials), best.name, loss, losses)


def _result(trial: ComparedTrial, rows: int | None) -> Metrics:
    """A trial's evaluation after so many rows, or its last."""
    step = {rung.rows: rung.step for rung in trial.plan.rungs}.get(rows or 0)
    at = (one for one in trial.record.results if one["step"] == step)
    return next(at, trial.record.last)
