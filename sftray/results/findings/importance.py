"""Which hyper-parameter decides.

How much of the order of the trials an axis explains: of their ranks at equal data, the share of the
variance that a parabola in the axis takes (in the logarithm of log axes, in the order of a choice
among numbers), or the means of a choice among other things. Trials that were stopped come behind
all that came further, in the order of their losses where they were stopped; those that diverged
come last. Optuna's evaluators look at the best quarter alone (PED-ANOVA), or need scikit-learn and
a finite loss of every trial (fANOVA): a sampler crowds where it is good, so the best quarter of its
trials hardly differs from the rest, and PED-ANOVA found no axis of twelve.

Few trials differ on every axis by chance, and the more axes there are, the more one of them does.
So the same is computed with the ranks shuffled among the trials, many times, and an axis decides
where it stands out further than any axis does in 19 of 20 shuffles, however many there are. That
is a test of random points; benchmarks/importance.py has what it finds where TPE and ASHA ran.

Promise: numpy alone, 10 ms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sftray.config import Space
from sftray.config.checks import is_number
from sftray.config.points import Point
from sftray.config.spaces import Value, label
from sftray.results.findings.comparisons import ComparedTrial, Comparison, Sweep, ranking
from sftray.results.records import Floats
from sftray.storage.journal.event_types import Outcome

BEST_SHARE = 0.25
"""So many trials must have a loss where trials are compared: of 12 the best 3."""
MIN_TRIALS = 12
"""With fewer there is no number: the best quarter would be two."""
SAFE_TRIALS = 24
"""So many find an axis that decides in 10 to 20 of 20 simulated sweeps."""
SHUFFLES = 999
"""Chance is known to 1/1000."""
SURE = 0.05
"""An axis decides where chance makes any axis stand out so far in at most this share."""


@dataclass(frozen=True)
class Axis:
    """How much one hyper-parameter matters."""

    name: str
    importance: float
    """Its part, 0 … 1, of what all axes explain above chance."""
    chance: float
    """How often any axis explains as much of shuffled ranks, at least 1/1000."""
    decides: bool
    """Whether that is rarer than SURE."""


@dataclass(frozen=True)
class Importances:
    """The axes, the surest first, the more important first among equals."""

    axes: tuple[Axis, ...]
    trials: int
    """Trials that were compared, with those stopped or diverged before."""
    compared: str
    """Which losses, in words."""
    missing: str
    """What is missing for numbers, or for the number of one axis; empty where nothing is."""


def importances(sweep: Sweep) -> Importances:
    """The importance of each axis, from the losses that `compare.ranking` finds."""
    found = ranking(sweep, best_share=BEST_SHARE, enough=MIN_TRIALS)
    if found is None or len(found.losses) < MIN_TRIALS:
        trials = 0 if found is None else len(found.losses)
        missing = (
            f"too few trials to rank hyper-parameters: {trials} comparable, {MIN_TRIALS} needed"
        )
        return Importances((), trials, str(found or "no losses yet"), missing)
    points = {trial.name: trial.point for trial in sweep.trials if trial.name in found.losses}
    names = [name for name in sweep.spaces if _differ(points, name)]
    missing = ", ".join(name for name in sweep.spaces if name not in names)
    if missing:
        missing += ": not ranked, all comparable trials have one value"
    axes = _axes(sweep.spaces, points, _order(sweep.trials, found), names) if names else ()
    return Importances(axes, len(found.losses), str(found), missing)


def _differ(points: Mapping[str, Point], name: str) -> bool:
    return len({repr(point[name]) for point in points.values()}) > 1


def _order(
    trials: Sequence[ComparedTrial], found: Comparison
) -> dict[str, tuple[float, float, float]]:
    """By trial what it is ranked by, the best lowest: how far it came, then its loss there."""
    order = {}
    for trial in trials:
        if (loss := found.losses.get(trial.name)) is None:
            continue
        if math.isfinite(loss):
            order[trial.name] = (0.0, 0.0, loss)
        elif trial.outcome == Outcome.DIVERGED or not trial.at_rungs:
            order[trial.name] = (2.0, 0.0, 0.0)
        else:
            last = max(trial.at_rungs)
            order[trial.name] = (1.0, -float(last), trial.at_rungs[last])
    return order


def _axes(
    spaces: Mapping[str, Space],
    points: Mapping[str, Point],
    order: Mapping[str, tuple[float, float, float]],
    names: Sequence[str],
) -> tuple[Axis, ...]:
    different = {key: place for place, key in enumerate(sorted(set(order.values())))}
    places = np.array([different[key] for key in order.values()])
    ranks = np.array([np.mean(np.flatnonzero(np.sort(places) == place)) for place in places])
    ranks -= ranks.mean()
    chance = np.random.default_rng(0)
    shuffled = np.array([ranks, *(chance.permutation(ranks) for _ in range(SHUFFLES))])
    explained = np.array(
        [_explained(_columns(spaces[n], [points[t][n] for t in order]), shuffled) for n in names]
    )
    usual, spread = explained[:, 1:].mean(axis=1), explained[:, 1:].std(axis=1)
    stands_out = (explained - usual[:, None]) / np.maximum(spread, 1e-9)[:, None]
    most = stands_out[:, 1:].max(axis=0)
    above = np.maximum(explained[:, 0] - usual, 0)
    shares = above / (above.sum() or 1)
    axes = []
    for name, share, real in zip(names, shares, stands_out[:, 0], strict=True):
        p = float((1 + (most >= real - 1e-9).sum()) / (1 + SHUFFLES))
        axes.append(Axis(name, float(share), p, p <= SURE))
    return tuple(sorted(axes, key=lambda axis: (axis.chance, -axis.importance)))


def _columns(space: Space, values: Sequence[Value]) -> Floats:
    """What the ranks are regressed on, [trials, columns]: a parabola in numbers, the groups of
    others."""
    numbers = [space.share(value) for value in values if is_number(value)]
    if space.ends() is not None and len(numbers) == len(values):
        at = np.array(numbers) - np.mean(numbers)
        return np.stack([np.ones(len(at)), at, at**2], axis=1)
    names = [label(value) for value in values]
    groups = list(dict.fromkeys(names))
    return np.array([[float(name == group) for group in groups] for name in names])


def _explained(columns: Floats, ranks: Floats) -> Floats:
    """The share of the variance of each row of `ranks`, [rows, trials], that the columns take."""
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    basis = basis[:, sizes > 1e-9 * sizes[0]]
    return np.asarray(((ranks @ basis) ** 2).sum(axis=1) / (ranks**2).sum(axis=1), dtype=float)
