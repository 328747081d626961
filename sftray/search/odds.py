"""The odds that more trials find a point that is better than the best so far, by more than noise.

A Bayesian regression of log losses on a parabola in every axis and their products: parabolas are
drawn that fit what is known, and the odds are the share of those under which one of the most
promising points, as many as there are trials left, is lower than the best by BAR.

Promise: a pure function of what has ended; how often it is wrong stands in docs/search.md. Price:
10 ms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sftray.config import Space
from sftray.config.points import Point, all_points, spread_point
from sftray.config.spaces import Value, label

BAR = 0.002
"""Of the best loss: what a better one must be lower by."""
LEAST = 2
"""Completed trials before there are odds."""
FAR = 0.1
"""A loss that lies further above the best, in the logarithm, is as unsure as it is further: no
parabola fits far away. Diverged trials are left out."""
MEAN, ALONG, TOGETHER = 0.3, 0.1, 0.03
"""Standard deviations, in the logarithm of the loss, before anything is known: of all losses, from
the middle of an axis to its end, and of two axes together."""
NOISE = 0.002
"""Of a run, relative."""
MISFITS = (0.003, 0.01, 0.03)
"""How far points may lie off a parabola; weighed by how well each explains what is known."""
FORETOLD = 0.02
"""How far the end is off what a rung foretells, where fewer than three trials say it."""
DRAWS = 400
POINTS = 256
"""Of a continuous space, that stand for all."""


@dataclass(frozen=True)
class EndedTrial:
    """What is known of a trial that has ended."""

    point: Point
    final: float | None
    """Its eval loss, if it completed."""
    at_rungs: Mapping[int, float]
    """Its loss by the rows of the rungs that it has come to."""


def odds_of_better(
    spaces: Mapping[str, Space], ended: Sequence[EndedTrial], trials: int
) -> float | None:
    """Of so many more trials; None where too little is known, or a loss is 0, of which nothing is
    a share. 0 where all points have been tried."""
    finals = [one.final for one in ended if one.final is not None]
    measured = [*finals, *(loss for one in ended for loss in one.at_rungs.values())]
    if len(finals) < LEAST or not spaces or min(measured) <= 0:
        return None
    left = _untried(spaces, [one.point for one in ended])
    if not left or trials < 1:
        return 0.0
    best = math.log(min(finals))
    known = [(one.point, *end) for one in ended if (end := _end(one, ended))]
    tried = _features(spaces, [point for point, _, _ in known])
    losses = np.array([loss - best for _, loss, _ in known])
    far = np.maximum(losses - FAR, 0)
    unsure = np.array([sd**2 + NOISE**2 for _, _, sd in known]) + far**2
    return _lower(tried, losses, unsure, _features(spaces, left), _prior(spaces), trials)


def _end(one: EndedTrial, ended: Sequence[EndedTrial]) -> tuple[float, float] | None:
    """The logarithm of a trial's last loss, and how unsure it is; of one that was stopped, from
    what others gained after its rung. None where nothing is known."""
    if one.final is not None:
        return math.log(one.final), 0.0
    if not one.at_rungs:
        return None
    rows = max(one.at_rungs)
    gains = [
        math.log(other.at_rungs[rows] / other.final)
        for other in ended
        if other.final is not None and rows in other.at_rungs
    ]
    if not gains:
        return None
    unsure = float(np.std(gains)) if len(gains) > 2 else FORETOLD
    return math.log(one.at_rungs[rows]) - float(np.mean(gains)), unsure


def _lower(
    tried: np.ndarray,
    losses: np.ndarray,
    unsure: np.ndarray,
    left: np.ndarray,
    prior: np.ndarray,
    trials: int,
) -> float:
    """The share of draws in which one of the `trials` most promising points of `left` is lower than
    0 by BAR. tried [T, F], left [L, F]: features; losses [T], above the best; unsure [T] and prior
    [F]: variances of the losses and of the coefficients."""
    goal, between = math.log(1 - BAR), left * prior @ tried.T
    fits, means, spreads = [], [], []
    for misfit in MISFITS:
        root = np.linalg.cholesky(tried * prior @ tried.T + np.diag(unsure + misfit**2))
        explained, by = np.linalg.solve(root, losses), np.linalg.solve(root, between.T)
        fits.append(-0.5 * explained @ explained - np.log(np.diag(root)).sum())
        means.append(by.T @ explained)
        spreads.append(left * prior @ left.T - by.T @ by + (misfit**2 + 1e-9) * np.eye(len(left)))
    weights = np.exp(np.array(fits) - max(fits))
    weights /= weights.sum()
    away = [(goal - mean) / np.sqrt(np.diag(sd)) for mean, sd in zip(means, spreads, strict=True)]
    alone = weights @ np.vectorize(NormalDist().cdf)(away)
    chosen = np.argsort(-alone, kind="stable")[:trials]
    draw, lower = np.random.default_rng(len(losses)), []
    for mean, spread in zip(means, spreads, strict=True):
        root = np.linalg.cholesky(spread[np.ix_(chosen, chosen)])
        drawn = mean[chosen, None] + root @ draw.standard_normal((len(chosen), DRAWS))
        lower.append(float((drawn.min(axis=0) < goal).mean()))
    return float(weights @ lower)


def _untried(spaces: Mapping[str, Space], tried: Sequence[Point]) -> list[Point]:
    points = all_points(spaces)
    if not points:
        return [spread_point(spaces, number, seed=0) for number in range(POINTS)]
    known = {_name(point) for point in tried}
    left = [point for point in points if _name(point) not in known]
    return left[:: math.ceil(len(left) / POINTS)] if left else []


def _name(point: Point) -> tuple[str, ...]:
    return tuple(str(label(point[name])) for name in sorted(point))


def _columns(spaces: Mapping[str, Space]) -> tuple[list[str], list[tuple[str, Value]]]:
    """The axes with an order, and the labels of the others."""
    ordered = [name for name, space in spaces.items() if space.ends() and _several(space)]
    labels: list[tuple[str, Value]] = [
        (name, label(value))
        for name, space in spaces.items()
        if not space.ends()
        for value in space.finite_values() or ()
    ]
    return ordered, labels


def _several(space: Space) -> bool:
    values = space.finite_values()
    return values is None or len(values) > 1


def _features(spaces: Mapping[str, Space], points: Sequence[Point]) -> np.ndarray:
    """[points, F]: 1, each ordered axis from -1 to 1, its square, labels, products of axes."""
    ordered, labels = _columns(spaces)
    axes = [
        np.array([2 * spaces[name].share(float(point[name])) - 1 for point in points])  # type: ignore[arg-type]
        for name in ordered
    ]
    given = [np.array([float(label(p[name]) == one) for p in points]) for name, one in labels]
    products = [a * b for a, b in itertools.combinations(axes, 2)]
    columns = [np.ones(len(points)), *axes, *(axis**2 for axis in axes), *given, *products]
    return np.stack(columns, axis=1)


def _prior(spaces: Mapping[str, Space]) -> np.ndarray:
    """[F]: variances of the coefficients of those features."""
    ordered, labels = _columns(spaces)
    axes, pairs = len(ordered), math.comb(len(ordered), 2)
    sds = [MEAN, *[ALONG] * (2 * axes + len(labels)), *[TOGETHER] * pairs]
    return np.array(sds) ** 2
