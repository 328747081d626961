"""Points that were run with the same seeds, compared in pairs.

A seed moves all points alike (row order, initialisation), and each a little on its own. So the
model of a loss is point + seed, by least squares; what is left of all points together is the noise
that a difference is measured against. Every point is compared with the one of the lowest mean, and
the intervals hold for all of these differences together, in 95 of 100 sweeps, by Tukey's range of
so many means (Tukey 1949), of two points Student's t. Dunnett's test wants its control fixed
beforehand: with the lowest mean for one it called equal points different in 8 of 100 sweeps
(benchmarks/pairing.py). Where no two points share a seed the model is the point alone.

Promise: two seeds decide nothing. Price: 50 ms for each number of points and seeds, once.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sftray.results.records import Floats

SURE = 0.95
"""Of all intervals together."""
MIN_SEEDS = 3
"""A point with fewer is neither worse nor better: at two an interval is six standard deviations."""
MOST_SEEDS = 30
"""More are not worth a number."""


@dataclass(frozen=True)
class Difference:
    """How far a point's loss lies above that of the point with the lowest mean."""

    above: float
    half_width: float
    """Of its interval, all differences together."""
    worse: bool
    """Whether it is so beyond chance."""
    more_seeds: int | None
    """For each point, to decide it where the difference stays; None where it is decided, or where
    MOST_SEEDS would not do."""


@dataclass(frozen=True)
class Pairs:
    """The comparison of points."""

    differences: Mapping[str, Difference]
    """By point, all but the best."""
    own_spread: float
    """The standard deviation of a loss beyond what its point and seed make of it."""
    too_low: float
    """How much the lowest of the means is too low on average where all points are equal."""


def compare(losses: Mapping[str, Mapping[Hashable, float]], best: str) -> Pairs | None:
    """The points' finite losses by seed, each point's compared with those of `best`; None where
    there is nothing to measure noise by."""
    fit = _fitted(losses, best, paired=True) or _fitted(losses, best, paired=False)
    if fit is None:
        return None
    above, errors, spread, freedom = fit
    others = [name for name in losses if name != best]
    sure = critical_value(max(len(losses), 2), freedom)
    fewest = {name: min(len(losses[name]), len(losses[best])) for name in others}
    differences = {}
    for name in others:
        half = sure * errors[name] * spread
        worse = fewest[name] >= MIN_SEEDS and above[name] > half
        more = None if worse else _more_seeds(above[name], spread, len(losses), fewest[name])
        differences[name] = Difference(above[name], half, worse, more)
    seeds = min(map(len, losses.values()))
    return Pairs(differences, spread, _lowest(len(losses)) * spread / math.sqrt(seeds))


def _fitted(
    losses: Mapping[str, Mapping[Hashable, float]], best: str, *, paired: bool
) -> tuple[dict[str, float], dict[str, float], float, int] | None:
    """By point its difference from the best and that difference's error in standard deviations;
    the standard deviation, and its degrees of freedom. None where these are none, or where a point
    shares no seed with the best."""
    names = list(losses)
    seeds = list(dict.fromkeys(seed for own in losses.values() for seed in own))
    runs = [(name, seed, loss) for name, own in losses.items() for seed, loss in own.items()]
    columns = len(names) + (len(seeds) if paired else 0)
    design, values = np.zeros((len(runs), columns)), np.array([loss for *_, loss in runs])
    for row, (name, seed, _) in enumerate(runs):
        design[row, names.index(name)] = 1
        if paired:
            design[row, len(names) + seeds.index(seed)] = 1
    freedom = len(runs) - int(np.linalg.matrix_rank(design)) if runs else 0
    if freedom < 1:
        return None
    inverse = np.linalg.pinv(design)
    left = values - design @ (inverse @ values)
    contrasts = np.zeros((len(names), columns))
    contrasts[np.arange(len(names)), np.arange(len(names))] = 1
    contrasts[:, names.index(best)] -= 1
    if not np.allclose(contrasts @ inverse @ design, contrasts):
        return None
    weights = contrasts @ inverse
    above = dict(zip(names, (weights @ values).tolist(), strict=True))
    errors = dict(zip(names, np.linalg.norm(weights, axis=1).tolist(), strict=True))
    return above, errors, math.sqrt(left @ left / freedom), freedom


def _more_seeds(above: float, spread: float, points: int, have: int) -> int | None:
    def decide(seeds: int) -> bool:
        sure = critical_value(points, (points - 1) * (seeds - 1))
        return above > sure * spread * math.sqrt(2 / seeds)

    least = max(have + 1, MIN_SEEDS)
    seeds = bisect_left(range(least, MOST_SEEDS + 1), True, key=decide) + least
    return None if seeds > MOST_SEEDS else seeds - have


@functools.cache
def critical_value(points: int, freedom: int) -> float:
    """How many standard errors no difference of two of so many equal means exceeds in 95 of 100
    cases: Tukey's studentised range over √2; of two means Student's t."""
    # of all noise estimates s and lowest means z: how often all the others lie within reach of it
    log_s, z = np.linspace(-9, 2.5, 230), np.linspace(-8, 8, 65)
    half = freedom / 2
    density = np.exp(
        math.log(2) + half * math.log(half) - math.lgamma(half)
        + freedom * log_s - half * np.exp(2 * log_s)
    )  # fmt: skip
    density *= log_s[1] - log_s[0]
    weights = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])

    def held(value: float) -> float:
        reach = value * math.sqrt(2) * np.exp(log_s)[:, None]
        within = _normal(z + reach) - _normal(z)
        return float(density @ (within ** (points - 1) @ weights)) * points

    low, high = 0.0, 1.0
    while held(high) < SURE:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < SURE else (low, middle)
    return high


_GRID = np.linspace(-9, 9, 18_001)
_BELOW = np.array([NormalDist().cdf(value) for value in _GRID.tolist()])


def _normal(values: Floats) -> Floats:
    """The normal distribution function, to 1e-7."""
    return np.asarray(np.interp(values, _GRID, _BELOW), dtype=float)


@functools.cache
def _lowest(number: int) -> float:
    """How far the lowest of so many normal values lies below their mean, in standard deviations."""
    density = np.exp(-(_GRID**2) / 2) / math.sqrt(2 * math.pi) * (_GRID[1] - _GRID[0])
    return float(-number * (_GRID * density * (1 - _BELOW) ** (number - 1)).sum())
