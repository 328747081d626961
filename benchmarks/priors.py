"""The learning rates that a search begins with, fitted to a table of others' sweeps.

    python benchmarks/priors.py --table FILE.csv

The best rate of each base and rank is the minimum of a parabola through the lowest loss and its
neighbours, in the logarithm of the rate; where the lowest is at an end of the rates the parabola
may leave them by a factor of 1.8. The fit: a coefficient a family, one exponent of the hidden size
and one of the rank (sftray/plan/prior_points.py has its figures). Then each base is left out of the
fit: how much worse than its best the first prior point is, and the best of all, in percent.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from console import argument_parser, say
from landscape import Landscape, key, of_table

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice
from sftray.plan.prior_points import HIDDEN, RANK, Fit, prior_points

BEYOND = 0.25
"""Decades."""


@dataclass(frozen=True)
class Optimum:
    base: str
    family: str
    hidden: int
    rank: int
    rate: float


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--table", type=Path, required=True)
    landscapes = of_table(parser.parse_args().table, None)
    optima = [one for landscape in landscapes for one in optima_of(landscape)]
    fit, residual = fitted(optima)
    families = ", ".join(f"{family} {rate:.2e}" for family, rate in fit.coefficients.items())
    say(
        f"{len(optima)} optima of {len(landscapes)} bases: {families}; size^{fit.size:.2f}, "
        f"rank^{fit.rank:.2f}; residual a factor of {10**residual:.2f}"
    )
    say(f"{'left out of the fit':48} first point   best of all   points")
    firsts, bests = [], []
    for landscape in landscapes:
        without, _ = fitted([one for one in optima if one.base != landscape.name])
        regrets = _regrets(landscape, without)
        firsts.append(regrets[0] if regrets else math.nan)
        bests.append(min(regrets, default=math.nan))
        say(f"{landscape.name:48} {firsts[-1]:10.2f} % {bests[-1]:11.2f} % {len(regrets):7}")
    say(f"{'median':48} {statistics.median(firsts):10.2f} % {statistics.median(bests):11.2f} %")


def fitted(optima: Sequence[Optimum]) -> tuple[Fit, float]:
    """The least squares in the logarithm of the rate, and the residual's standard deviation in
    decades."""
    families = sorted({one.family for one in optima})
    rows = [
        [
            *(float(one.family == family) for family in families),
            math.log10(one.hidden / HIDDEN),
            math.log10(one.rank / RANK),
        ]
        for one in optima
    ]
    rates = np.log10([one.rate for one in optima])
    found = np.linalg.lstsq(np.array(rows), rates, rcond=None)[0]
    residual = float(np.std(rates - np.array(rows) @ found))
    coefficients = {family: float(10 ** found[k]) for k, family in enumerate(families)}
    return Fit(coefficients, size=float(found[-2]), rank=float(found[-1])), residual


def optima_of(landscape: Landscape) -> list[Optimum]:
    hidden = landscape.base.get("hidden_size")
    losses: dict[int, dict[float, float]] = defaultdict(dict)
    for one in landscape.points.values():
        if one.outcome == "completed":
            losses[one.point["lora_r"]][one.point["learning_rate"]] = one.best
    if hidden is None:
        return []
    family = landscape.base["model_type"]
    return [
        Optimum(landscape.name, family, hidden, rank, rate)
        for rank, by_rate in losses.items()
        if (rate := _lowest(by_rate)) is not None
    ]


def _lowest(by_rate: Mapping[float, float]) -> float | None:
    """None where there are too few rates, or the lowest is the best."""
    rates = sorted(by_rate)
    lowest = rates.index(min(rates, key=by_rate.__getitem__))
    if len(rates) < 3 or lowest == 0:
        return None
    first = min(lowest - 1, len(rates) - 3)
    logs = np.log10(rates[first : first + 3])
    bend, slope, _ = np.polyfit(logs, [by_rate[rate] for rate in rates[first : first + 3]], 2)
    most = math.log10(rates[lowest]) + BEYOND if lowest == len(rates) - 1 else math.inf
    return float(10 ** min(-slope / (2 * bend), most)) if bend > 0 else rates[lowest]


def _regrets(landscape: Landscape, fit: Fit) -> list[float]:
    """Of the prior points that the table has, in percent."""
    sweep = SweepConfig(
        "priors",
        DataConfig("none.jsonl"),
        TrialConfig("none", **landscape.trial),
        {name: choice(values) for name, values in landscape.axes.items()},
    )
    points = [landscape.points.get(key(p)) for p in prior_points(sweep, landscape.base, fit)]
    return [100 * (one.best / landscape.best - 1) for one in points if one is not None]


if __name__ == "__main__":
    main()
