"""How the best learning rate moves with the batch size.

For every batch size the learning rate of the lowest loss, all losses at the same number of rows;
through these a line of log learning rate against log batch size. The square-root rule (slope 0.5)
is derived for Adam in Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient
Algorithms" (arXiv:2205.10287), the linear rule (slope 1) for SGD in Goyal et al. 2017 (arXiv:
1706.02677). How sure: trials are drawn again with replacement within each batch size (bootstrap),
and the slope of 9 draws in 10 lies in the interval. It is as wide as the grid of learning rates is
coarse, and too flat where the best lies at the edge of the range.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sftray.config.points import short
from sftray.results.findings.comparisons import Comparison, Sweep, comparisons

MIN_BATCH_SIZES, MIN_TRIALS = 3, 4
"""Batch sizes, and trials of each: two points always lie on a line, and the best of three learning
rates over two decades is known to a factor of five."""
DRAWS = 500
LEARNING_RATE, BATCH = "learning_rate", "effective_batch_size"

_Tried = Mapping[float, Sequence[tuple[float, float]]]
"""Batch size → (eval loss, learning rate) of its trials."""


@dataclass(frozen=True)
class BestRate:
    """The best learning rate of one batch size."""

    effective_batch_size: int
    learning_rate: float
    eval_loss: float
    trials: int
    """Of this batch size, with a loss where they are compared."""


@dataclass(frozen=True)
class Scaling:
    """Best learning rate against batch size."""

    best: tuple[BestRate, ...]
    slope: float | None
    """Of log learning rate against log batch size; None with too little data."""
    interval: tuple[float, float] | None
    """Where the slope lies in 9 of 10 draws."""
    compared: str
    says: str


def scaling(sweep: Sweep) -> Scaling | None:
    """None where learning rate and batch size were not both searched."""
    if not {LEARNING_RATE, BATCH} <= sweep.spaces.keys():
        return None
    places = [(found, _tried(sweep, found)) for found in comparisons(sweep) if found.finite]
    if not places:
        return Scaling((), None, None, "no losses yet", "no losses yet")
    enough = [(found, tried) for found, tried in places if len(_known(tried)) >= MIN_BATCH_SIZES]
    found, tried = enough[0] if enough else max(places, key=lambda place: len(place[0].finite))
    best = tuple(
        BestRate(int(batch), rate, loss, len(tried[batch]))
        for batch in sorted(tried)
        for loss, rate in [min(tried[batch])]
    )
    if not enough:
        says = (
            f"batch sizes with {MIN_TRIALS} comparable trials: {len(_known(tried))}; a "
            f"slope needs {MIN_BATCH_SIZES}"
        )
        return Scaling(best, None, None, str(found), says)
    known = _known(tried)
    slope, interval = _slope(known), _interval(known)
    return Scaling(best, slope, interval, str(found), _says(slope, interval))


def _tried(sweep: Sweep, found: Comparison) -> _Tried:
    tried: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for trial in sweep.trials:
        if trial.name in found.finite:
            rate, batch = trial.config.learning_rate, trial.config.effective_batch_size
            tried[batch].append((found.finite[trial.name], rate))
    return tried


def _known(tried: _Tried) -> _Tried:
    return {batch: trials for batch, trials in tried.items() if len(trials) >= MIN_TRIALS}


def _slope(tried: _Tried) -> float:
    import numpy as np

    batches = np.log([float(batch) for batch in tried])
    rates = np.log([min(trials)[1] for trials in tried.values()])
    return float(np.polyfit(batches, rates, 1)[0])


def _interval(tried: _Tried) -> tuple[float, float]:
    import numpy as np

    draw = random.Random(0)
    slopes = [
        _slope({batch: draw.choices(trials, k=len(trials)) for batch, trials in tried.items()})
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(slopes, (0.05, 0.95))
    return float(low), float(high)


def _says(slope: float, interval: tuple[float, float]) -> str:
    low, high = interval
    rules = {"does not move": 0.0, "grows by its square root": 0.5, "grows in proportion": 1.0}
    fit = [words for words, value in rules.items() if low - 0.05 <= value <= high + 0.05]
    doubled = f"twice the batch, {short(2**slope)} × the learning rate"
    if not fit:
        return f"{doubled}; neither the square-root nor the linear rule fits"
    if len(fit) > 1:
        return f"{doubled}; too uncertain to distinguish the rules: it {' or '.join(fit)}"
    return f"{doubled}: with the batch size it {fit[0]}"
