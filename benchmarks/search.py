"""The search against the exhaustive answer: sftray's search and others, replayed on landscapes of
which every point was trained to its end: ours (grid.json, landscapes/) or a table of others'.

    python benchmarks/search.py
    python benchmarks/search.py --table FILE.csv --json

A replay runs the real search, journal included, with trials that report the recorded losses,
--at-once at a time, in lockstep by rows and judged together as in a bank. A seed is another
sampler, and another order of random points. The table has the columns of the Tinker cookbook's SFT
sweep (model, learning_rate, lora_rank, test_nll, run, outcome); --curves gives losses on the way
(model, lora_rank, learning_rate, step, test_nll_read_off), and so do columns test_nll_at_SHARE of
the table. A point without a curve is judged at no
rung and costs a training; one that the table lacks costs nothing and ends as failed.

The unit of cost is one full training: what all trials that have begun have trained, those that
still run among them. The bar is 0.2 % above the best loss, or two standard deviations of a run's
noise where that is more. For each base: the trainings until the bar (median over seeds), the share
of seeds there for at most three and five, and the regret after three (mean, in percent). --json
prints that of the default way, by base; without it all ways are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from console import argument_parser, say
from landscape import BAR, Landscape, Recorded, key, of_branches, of_grid, of_table

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.prior_points import prior_points
from sftray.plan.trial_plan import TrialPlan, planner
from sftray.results.findings.stopping import spearman
from sftray.search.search import Search
from sftray.storage.journal import Journal

DEFAULT = "priors, TPE, ASHA"
WAYS: dict[str, dict[str, Any]] = {
    DEFAULT: {"scheduler": "asha"},
    "priors, TPE": {"scheduler": "none"},
    "TPE + ASHA": {"scheduler": "asha", "priors": False},
    "TPE": {"scheduler": "none", "priors": False},
    "random + ASHA": {"scheduler": "asha", "shuffled": True},
    "random": {"scheduler": "none", "shuffled": True},
}
FEW, MORE = 3, 5
"""Trainings."""
MOST_TRIALS = 24
MOST_TRAININGS = 12.0
"""A replay ends there, if it is to."""
Curve = list[tuple[float, float]]
"""(trainings spent, best loss so far) at every evaluation."""


@dataclass(frozen=True)
class Found:
    """A replayed sweep."""

    curve: Curve
    lost: bool
    """The best point was suggested, and stopped before its end."""

    def trainings_until(self, loss: float) -> float:
        return next((spent for spent, best in self.curve if best <= loss), math.inf)

    def best_at(self, trainings: float) -> float:
        return min((best for spent, best in self.curve if spent <= trainings), default=math.inf)


def main() -> None:
    options = _options()
    ours = [] if options.table else landscapes_in(options.grid)
    landscapes = ours or of_table(options.table, options.curves)
    landscapes = [replace(one, least_bar=options.bar) for one in landscapes]
    at_once = options.at_once or (1 if options.table else 4)
    seeds = range(options.seeds)
    if options.json:
        found = {
            one.name: [replay(one, seed, at_once, **WAYS[DEFAULT]) for seed in seeds]
            for one in landscapes
        }
        rows = {one.name: _row(one, found[one.name]) for one in landscapes}
        print(json.dumps(rows, indent=1))  # noqa: T201
        print(_worst(rows), file=sys.stderr)  # noqa: T201
        return
    say(f"{len(landscapes)} bases, {options.seeds} seeds, {at_once} trials at once")
    for name, way in WAYS.items():
        found = {
            one.name: [replay(one, seed, at_once, **way) for seed in seeds] for one in landscapes
        }
        _tell(name, landscapes, found, by_base=name == DEFAULT)
    if not options.table:
        say("rank correlation with the last loss: " + "; ".join(_correlations(landscapes[0])))


def landscapes_in(path: Path) -> list[Landscape]:
    table = json.loads(path.read_text(encoding="utf-8"))
    return of_branches(path) if "rungs" in table else [of_grid(path)]


def _row(landscape: Landscape, found: Sequence[Found]) -> dict[str, float]:
    needed = [one.trainings_until(landscape.bar) for one in found]
    regret = _regrets(landscape, found)
    return {
        "points": sum(one.outcome == "completed" for one in landscape.points.values()),
        "bar": landscape.bar,
        "trainings_to_bar_median": statistics.median(needed),
        "within_3": sum(spent <= FEW for spent in needed) / len(needed),
        "within_5": sum(spent <= MORE for spent in needed) / len(needed),
        "regret_3": statistics.fmean(regret[FEW]),
    }


def _regrets(landscape: Landscape, found: Sequence[Found]) -> dict[int, list[float]]:
    """In percent, after FEW and after MORE trainings, of each seed."""
    return {
        spent: [100 * (one.best_at(spent) / landscape.best - 1) for one in found]
        for spent in (FEW, MORE)
    }


def _worst(rows: dict[str, dict[str, float]]) -> str:
    name = min(rows, key=lambda one: (rows[one]["within_3"], -rows[one]["regret_3"]))
    row = rows[name]
    return (
        f"worst: {name}, at the bar for three trainings in {row['within_3']:.0%} of the seeds, "
        f"regret then {row['regret_3']:.2f} %"
    )


def _tell(
    way: str, landscapes: Sequence[Landscape], found: dict[str, list[Found]], *, by_base: bool
) -> None:
    rows = {one.name: _row(one, found[one.name]) for one in landscapes}
    good = sum(row["within_3"] >= 0.9 for row in rows.values())
    late = statistics.fmean(
        statistics.fmean(_regrets(one, found[one.name])[MORE]) for one in landscapes
    )
    lost = sum(one.lost for runs in found.values() for one in runs)
    say(
        f"{way:20} at the bar for 3 trainings in 9 seeds of 10: {good:2} of {len(rows)} bases; "
        f"for 3: {_mean(rows, 'within_3'):4.0%}, for 5: {_mean(rows, 'within_5'):4.0%} of all; "
        f"regret after 3: {_mean(rows, 'regret_3'):.2f} %, after 5: {late:.2f} %; best point "
        f"stopped in {lost} of {sum(map(len, found.values()))}"
    )
    for name, row in rows.items() if by_base else ():
        say(
            f"  {name:48} {row['points']:3} points  median {row['trainings_to_bar_median']:5.2f}  "
            f"for 3 {row['within_3']:4.0%}  for 5 {row['within_5']:4.0%}  "
            f"regret {row['regret_3']:.2f} %"
        )


def _mean(rows: dict[str, dict[str, float]], column: str) -> float:
    return statistics.fmean(row[column] for row in rows.values())


class _Running:
    """A trial that reports what was recorded of its point."""

    def __init__(self, name: str, recorded: Recorded, plan: TrialPlan, began: float) -> None:
        self.name, self.recorded, self.plan, self.began = name, recorded, plan, began
        shares = [step / plan.steps for step in plan.eval_steps] if recorded.has_curve else []
        self._steps = [math.ceil(share * plan.steps - 1e-9) for share in shares]
        self._steps = [step for step in self._steps if step / plan.steps < recorded.ends]
        self._steps.append(round(recorded.ends * plan.steps))
        self._rungs = {rung.step: rung.rows for rung in plan.rungs}

    @property
    def due(self) -> float:
        """When its next evaluation comes, in trainings that every slot has done."""
        return self.began + self._steps[0] / self.plan.steps

    @property
    def loss(self) -> float:
        return self.recorded.loss_at(self._steps[0] / self.plan.steps)

    @property
    def counts(self) -> bool:
        """Whether its loss is one that the search has reached."""
        ends = len(self._steps) == 1
        return self.recorded.outcome == "completed" and (ends or self.recorded.exact)

    @property
    def rung(self) -> int | None:
        """The rung at which the next evaluation is."""
        return self._rungs.get(self._steps[0]) if len(self._steps) > 1 else None

    def report(self, peers: list[tuple[str, float]]) -> tuple[dict[str, Any], str | None]:
        """The next evaluation, and its outcome if it is the last."""
        loss, step = self.loss, self._steps.pop(0)
        rows = step * self.plan.rows // self.plan.steps
        metrics = {"step": step, "rows": rows, "eval_loss": loss, "rung_peers": peers}
        return metrics, None if self._steps else self.recorded.outcome


def replay(
    landscape: Landscape,
    seed: int,
    at_once: int,
    *,
    scheduler: str,
    shuffled: bool = False,
    priors: bool = True,
    most: float = MOST_TRAININGS,
    watch: Callable[[Search, float, float], None] = lambda search, spent, lowest: None,
) -> Found:
    """`watch` is called at each trial's end, with the trainings and the lowest loss until then."""
    sweep = _sweep(landscape, seed, scheduler, shuffled=shuffled)
    best = min(landscape.points, key=lambda one: landscape.points[one].best)
    plan = planner(sweep, landscape.rows_per_epoch, execution=ONE_ROW)
    first = prior_points(sweep, landscape.base) if priors else []
    running: list[_Running] = []
    curve: Curve = []
    now, ended, lowest, lost = 0.0, 0.0, math.inf, False
    with tempfile.TemporaryDirectory() as folder, Journal(f"{folder}/journal.jsonl") as journal:
        search = Search(sweep, journal, plan, first=first)
        while True:
            while len(running) < at_once and (suggestion := search.suggest()):
                name, point = suggestion.trial, suggestion.point
                recorded = landscape.points.get(key(point))
                if recorded is None:
                    search.end(name, "failed", "nobody has trained this point")
                    continue
                running.append(_Running(name, recorded, plan(sweep.trial.at(point)), now))
                search.record(name, {"step": 0, "eval_loss": landscape.base_loss})
            if not running or (curve and curve[-1][0] > most):
                return Found(curve, lost)
            now = min(one.due for one in running)
            due = [one for one in running if one.due <= now + 1e-9]
            peers = {one.rung: [(o.name, o.loss) for o in due if o.rung == one.rung] for one in due}
            for one in due:
                if one.counts:
                    lowest = min(lowest, one.loss)
                metrics, outcome = one.report(peers[one.rung] if one.rung else [])
                spent = ended + sum(now - other.began for other in running)
                curve.append((spent, lowest))
                if search.record(one.name, metrics, outcome) == "stop":
                    running.remove(one)
                    ended += now - one.began
                    watch(search, spent, lowest)
                    pruned = search.outcome_of(one.name) == "pruned"
                    lost |= pruned and landscape.points[best] is one.recorded


def _sweep(landscape: Landscape, seed: int, scheduler: str, *, shuffled: bool) -> SweepConfig:
    space = {name: choice(values) for name, values in landscape.axes.items()}
    sweep = SweepConfig(
        name="replay",
        data=DataConfig("none.jsonl"),
        trial=TrialConfig("none", **landscape.trial),
        search_space=space,
        num_trials=min(MOST_TRIALS, len(landscape.points)),
        scheduler=scheduler,
        on_broken_base="warn",
        seed=seed,
    )
    if shuffled:
        points = [dict(one.point) for one in landscape.points.values()]
        random.Random(seed).shuffle(points)
        sweep = replace(sweep, points=tuple(points))
    return sweep


def _correlations(landscape: Landscape) -> list[str]:
    """Spearman's, between the losses at each rung and the last, of trials that did not diverge."""
    trials = [one for one in landscape.points.values() if one.outcome == "completed"]
    last = [one.losses[-1][1] for one in trials]
    lines = []
    for share in SweepConfig.rungs:
        at_rung = [one.loss_at(share) for one in trials]
        half = sorted(range(len(last)), key=last.__getitem__)[: len(last) // 2]
        better = spearman([at_rung[i] for i in half], [last[i] for i in half])
        lines.append(f"at {share:.2f} {spearman(at_rung, last):.3f} (the better half {better:.3f})")
    return lines


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--grid", type=Path, default=Path(__file__).parent / "grid.json")
    add("--table", type=Path, help="a table of others' sweeps, in the place of our grid")
    add("--curves", type=Path, help="losses on the way, read off, of the table's points")
    add("--json", action="store_true", help="the default way's figures by base, and nothing else")
    add("--seeds", type=int, default=50)
    add("--bar", type=float, default=BAR, help="how far above the best is good enough")
    add("--at-once", type=int, help="trials at once; by default 4 on our grid, 1 on a table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
