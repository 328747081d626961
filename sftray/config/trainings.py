"""What a search costs in full trainings, with the trials that rungs stop.

Promise: the mean of SEARCHES simulated ones, whose trials come one after another in random order
and rank the same at every rung. Price: 20 ms for 32 trials.
"""

from __future__ import annotations

import bisect
import math
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence

LEAST_KEPT = 2
"""Of the trials at a rung so many continue at least."""
SEARCHES = 200


Rungs = Sequence[tuple[Hashable, float]]
"""Where a trial is judged, and after which share of its training."""


def expected_trainings(trials: int, shapes: Sequence[Rungs], reduction_factor: int) -> float:
    """The cost of so many trials. shapes: the rungs of trials that are as likely as each other."""
    return _costs(trials, shapes, reduction_factor)[-1]


def trials_worth(trainings: float, rungs: Sequence[float], reduction_factor: int) -> int:
    """The most trials that are expected to cost at most so many trainings; one at least."""
    most, shapes = math.ceil(trainings), [[(share, share) for share in rungs]]
    while (costs := _costs(most, shapes, reduction_factor))[-1] <= trainings:
        most *= 2
    return max(1, bisect.bisect_right(costs, trainings))


def cutoff_among(ranked: Sequence[float], reduction_factor: int) -> float | None:
    """The largest loss that continues where these are recorded, ascending: their quantile
    1/reduction_factor, linear between two of them, or the LEAST_KEPT-th where that is more. None
    where every loss continues."""
    if len(ranked) < LEAST_KEPT:
        return None
    place = (len(ranked) - 1) / reduction_factor
    below = math.floor(place)
    above = min(below + 1, len(ranked) - 1)
    quantile = ranked[below] + (place - below) * (ranked[above] - ranked[below])
    return max(quantile, ranked[LEAST_KEPT - 1])


def _costs(most: int, shapes: Sequence[Rungs], reduction_factor: int) -> list[float]:
    """The mean cost after each number of trials."""
    sums = [0.0] * most
    for seed in range(SEARCHES):
        rng, cost = random.Random(seed), 0.0
        recorded: dict[Hashable, list[float]] = defaultdict(list)
        for number in range(most):
            rungs = rng.choice(shapes) if len(shapes) > 1 else shapes[0]
            cost += _one_trial(rng.random(), rungs, recorded, reduction_factor)
            sums[number] += cost
    return [total / SEARCHES for total in sums]


def _one_trial(
    loss: float, rungs: Rungs, recorded: dict[Hashable, list[float]], reduction_factor: int
) -> float:
    for rung, share in rungs:
        cutoff = cutoff_among(recorded[rung], reduction_factor)
        bisect.insort(recorded[rung], loss)
        if cutoff is not None and loss > cutoff:
            return share
    return 1.0
