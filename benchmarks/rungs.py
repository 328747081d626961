"""Where rungs stand and how many trials they keep, on curves of others, on a real base and on our
grid: all points of a base come in random order, one after another, and ASHA stops them.

    python benchmarks/rungs.py
    python benchmarks/rungs.py --table FILE.csv --curves FILE.csv
    python benchmarks/rungs.py --branches benchmarks/landscapes/*.json

Every base with at least six curves counts. For each setting: the share of the exhaustive search's
rows that is spent, the regret (mean over bases and orders, and of the worst base) and the share of
orders that end within 0.2 % of the best. `margin`: a loss so much above the cutoff continues, too.
`extrapolated`: at the last rung a trial is judged by its loss less a share of what its own slope
would still bring by the rates that its schedule has left. Last, on our grid: how often a point that
ends among the best third is stopped, by its batch. --branches shows grids of branches.py instead:
how a rung orders the points, plain, after an annealed branch and plain at the branch's tokens.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from console import argument_parser, say
from landscape import BAR, Landscape, Recorded, of_branches, of_grid, of_table

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import TrialPlan, planner
from sftray.results.findings.stopping import spearman
from sftray.search.asha import asha

FEWEST = 6
GRACE = SweepConfig.grace_steps
ORDERS = 60
BACK = 0.8
"""A slope is between this share of a rung and the rung."""


@dataclass(frozen=True)
class Setting:
    rungs: tuple[float, ...]
    kept: int = 1
    eta: int = 3
    margin: float = 0.0
    extrapolated: float = 0.0

    def __str__(self) -> str:
        extra = f", margin {self.margin:.1%}" if self.margin else ""
        extra += f", extrapolated {self.extrapolated:g}" if self.extrapolated else ""
        places = " and ".join(f"{rung:.2f}" for rung in self.rungs)
        return f"at {places}, 1/{self.eta}, at least {self.kept}{extra}"


NINTHS, LATE = (1 / 9, 1 / 3), (0.08, 5 / 12)
SETTINGS = (
    *(Setting(NINTHS, kept) for kept in (1, 2, 3)),
    *(Setting(LATE, kept) for kept in (1, 2, 3)),
    Setting(LATE, 2, eta=2),
    *(Setting((first, 5 / 12), 2) for first in (0.05, 0.1, 1 / 9)),
    Setting((0.08, 1 / 2), 2),
    Setting((0.08, 1 / 5, 1 / 2), 2),
    *(Setting(LATE, 2, margin=margin) for margin in (0.002, 0.005)),
    *(Setting(LATE, 2, extrapolated=share) for share in (0.1, 0.3)),
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--table", type=Path, help="a table of others' sweeps, besides our grid")
    parser.add_argument("--curves", type=Path, help="losses on the way, read off")
    parser.add_argument("--branches", type=Path, nargs="+", help="grids with annealed branches")
    options = parser.parse_args()
    if options.branches:
        for path in options.branches:
            for one in of_branches(path):
                _tell_branches(one)
                _tell_by_batch(one)
        return
    landscapes = [of_grid(Path(__file__).parent / "grid.json")]
    if options.table:
        landscapes += of_table(options.table, options.curves, fewest=FEWEST)
    curves = {one.name: _curves(one) for one in landscapes}
    curves = {name: known for name, known in curves.items() if len(known) >= FEWEST}
    say(f"{len(curves)} bases: " + ", ".join(f"{name} {len(c)}" for name, c in curves.items()))
    say(f"{'':52} rows  regret  of the worst base                within {BAR:.1%}")
    for setting in SETTINGS:
        found = {name: _searches(known, setting) for name, known in curves.items()}
        regrets = {name: statistics.fmean(r for _, r in runs) for name, runs in found.items()}
        worst = max(regrets, key=regrets.__getitem__)
        rows = statistics.fmean(
            cost / len(curves[name]) for name, runs in found.items() for cost, _ in runs
        )
        near = statistics.fmean(r <= 100 * BAR for runs in found.values() for _, r in runs)
        say(
            f"{setting!s:52} {rows:4.0%} {statistics.fmean(regrets.values()):6.3f} % "
            f"{regrets[worst]:6.2f} % {worst.split('/')[-1][:24]:24} {near:5.0%}"
        )
    say(landscapes[0].name)
    _tell_by_batch(landscapes[0])


def _tell_branches(landscape: Landscape) -> None:
    """Rank agreement with the end and the regret of picking, at each rung, of the points that were
    evaluated there."""
    points = [one for one in landscape.points.values() if one.outcome == "completed"]
    best, noise = min(one.best for one in points), landscape.noise
    say(f"\n{landscape.name}: {len(points)} points, best {best:.4f}, noise of a run {noise:.2%}")
    say(f"{'rung':26} points  agreement  best quarter  regret of the lowest of 1, 2, 3")
    for left in (1 / 20, 1 / 9, 1 / 3, 5 / 12):
        judged = [(one, b) for one in points for b in one.branches if abs(b[0] - left) < 0.03]
        if len(judged) < FEWEST:
            continue
        among = min(one.best for one, _ in judged)
        ends = [one.losses[-1][1] for one, _ in judged]
        shown = {
            f"{left:.2f} plain": [one.loss_at(at) for one, (at, _, _) in judged],
            f"{left:.2f} + {left / 4:.2f} annealed": [loss for _, (_, _, loss) in judged],
            f"{left + left / 4:.2f} plain": [one.loss_at(seen) for one, (_, seen, _) in judged],
        }
        for name, losses in shown.items():
            order = np.argsort(losses)
            regrets = [100 * (min(ends[i] for i in order[:n]) / among - 1) for n in (1, 2, 3)]
            good = np.argsort(ends)[: max(4, len(ends) // 4)]
            quarter = spearman([losses[i] for i in good], [ends[i] for i in good])
            say(
                f"{name:26} {len(ends):6} {spearman(losses, ends):10.2f} {quarter:13.2f}  "
                + "  ".join(f"{regret:5.2f} %" for regret in regrets)
            )


def _tell_by_batch(grid: Landscape) -> None:
    """How often a point that ends among the best third is stopped, by its batch."""
    say("points of the best third that are stopped, by effective batch size")
    for rungs, grace in ((NINTHS, 5), (SweepConfig.rungs, 5), (SweepConfig.rungs, GRACE)):
        sweep = SweepConfig(
            "rungs",
            DataConfig("none.jsonl"),
            TrialConfig("none", **grid.trial),
            {name: choice(values) for name, values in grid.axes.items()},
            rungs=rungs,
            grace_steps=grace,
        )
        plan = planner(sweep, grid.rows_per_epoch, execution=ONE_ROW)
        points = _curves(grid)
        good = sorted(points, key=lambda one: one.best)[: len(points) // 3]
        counts = dict.fromkeys(grid.axes["effective_batch_size"], 0)
        for seed in range(ORDERS):
            random.Random(seed).shuffle(points)
            for one in _stopped(points, sweep, plan):
                counts[one.point["effective_batch_size"]] += one in good
        shares = []
        for batch, stopped in counts.items():
            number = sum(one.point["effective_batch_size"] == batch for one in good)
            shares.append(f"{batch}: {stopped / max(1, number * ORDERS):.0%} of {number}")
        places = ", ".join(f"{rung:.2f}" for rung in rungs)
        say(f"  at {places}, after {grace} steps at full rate: " + "; ".join(shares))


def _stopped(
    order: Sequence[Recorded], sweep: SweepConfig, plan: Callable[[TrialConfig], TrialPlan]
) -> Iterator[Recorded]:
    recorded: dict[int, list[float]] = defaultdict(list)
    for one in order:
        planned = plan(sweep.trial.at(one.point))
        for rung in planned.rungs:
            loss = one.loss_at(rung.step / planned.steps)
            goes_on = asha(recorded[rung.rows], loss, SweepConfig.reduction_factor).goes_on
            recorded[rung.rows].append(loss)
            if not goes_on:
                yield one
                break


def _curves(landscape: Landscape) -> list[Recorded]:
    return [
        one for one in landscape.points.values() if one.has_curve and one.outcome == "completed"
    ]


def _searches(points: Sequence[Recorded], setting: Setting) -> list[tuple[float, float]]:
    """(trainings, regret in percent) of each order."""
    best = min(one.best for one in points)
    found = []
    for seed in range(ORDERS):
        order = list(points)
        random.Random(seed).shuffle(order)
        cost, lowest = _search(order, setting)
        found.append((cost, 100 * (lowest / best - 1)))
    return found


def _search(order: Sequence[Recorded], setting: Setting) -> tuple[float, float]:
    recorded: list[list[float]] = [[] for _ in setting.rungs]
    cost, lowest = 0.0, math.inf
    for point in order:
        spent = 1.0
        for rung, losses in zip(setting.rungs, recorded, strict=True):
            loss = _judged(point, rung, setting)
            goes_on = _goes_on(losses, loss, setting)
            losses.append(loss)
            if not goes_on:
                spent = rung
                break
        cost += spent
        if spent == 1:
            lowest = min(lowest, point.best)
    return cost, lowest


def _goes_on(recorded: Sequence[float], loss: float, setting: Setting) -> bool:
    if len(recorded) < setting.kept:
        return True
    cutoff = max(np.quantile(recorded, 1 / setting.eta), sorted(recorded)[setting.kept - 1])
    return bool(loss <= cutoff * (1 + setting.margin))


def _judged(point: Recorded, rung: float, setting: Setting) -> float:
    loss = point.loss_at(rung)
    if not setting.extrapolated or rung != setting.rungs[-1]:
        return loss
    seen, before = _rates_until(rung), _rates_until(BACK * rung)
    slope = (loss - point.loss_at(BACK * rung)) / (seen - before)
    return loss + setting.extrapolated * slope * (_rates_until(1.0) - seen)


def _rates_until(share: float) -> float:
    """The rates of a linear decay until a share of the schedule, added up."""
    return share - share**2 / 2


if __name__ == "__main__":
    main()
