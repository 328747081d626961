"""The search against the exhaustive answer: sftray's TPE and ASHA, and random search,
replayed on a grid of which every point was trained to its end (grid.py).

    python benchmarks/search.py
    python benchmarks/search.py --plot docs/search.svg

A replay runs the real search, journal included, with trials that report the recorded losses,
--at-once at a time, in lockstep by rows and judged together as in a bank. A seed is another
sampler, and another order of random points. For each way of searching: the share of the exhaustive
sweep's tokens until the best loss so far is within 1 % of the exhaustive best (median over seeds,
and the 90th percentile), in how many seeds that took at most a quarter of the tokens, the regret
when those are spent, and in how many the best point was suggested and then stopped early. Below
it, how well the losses at a rung order the trials as their last losses do (Spearman's rank
correlation).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from console import argument_parser, say
from picture import pyplot, save

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.prior_points import prior_points
from sftray.plan.trial_plan import TrialPlan, planner
from sftray.results.findings.stopping import spearman
from sftray.search.search import Search
from sftray.storage.journal import Journal

WITHIN = 1.01
"""Times the exhaustive best loss is good enough."""
QUARTER = 0.25
WAYS: dict[str, dict[str, Any]] = {
    "priors, TPE, ASHA": {"scheduler": "asha"},
    "TPE + ASHA": {"scheduler": "asha", "priors": False},
    "TPE": {"scheduler": "none"},
    "random + ASHA": {"scheduler": "asha", "shuffled": True},
    "random": {"scheduler": "none", "shuffled": True},
}
Curve = list[tuple[float, float]]
"""(tokens spent, best loss so far) at every evaluation."""


@dataclass(frozen=True)
class Found:
    """A replayed sweep."""

    curve: Curve
    lost: bool
    """The best point was suggested, and stopped before its end."""

    def tokens_until(self, loss: float) -> float:
        return next((tokens for tokens, best in self.curve if best <= loss), math.inf)

    def best_at(self, tokens: float) -> float:
        return min((best for spent, best in self.curve if spent <= tokens), default=math.inf)


def main() -> None:
    options = _options()
    table = json.loads(options.grid.read_text(encoding="utf-8"))
    best = min(_losses(trial)[-1] for trial in table["trials"] if trial["outcome"] == "completed")
    whole = sum(trial["evaluations"][-1][2] for trial in table["trials"])
    good = sum(min(_losses(trial)) <= WITHIN * best for trial in table["trials"])
    say(
        f"{table['model']}, {table['rows_per_epoch']:,} rows; {len(table['trials'])} points, of "
        f"which {good} within 1 % of the best, {best:.4f} (base {table['base']:.4f}); "
        f"{whole / 1e6:.0f}M tokens; {options.at_once} trials at once, {options.seeds} seeds"
    )
    say(
        f"{'':20}{'tokens to 1 %':>15}{'90th perc.':>12}{'by a quarter':>14}{'regret then':>13}"
        f"{'best stopped':>14}"
    )
    replays = {}
    for name, way in WAYS.items():
        found = [_replay(table, seed, options.at_once, **way) for seed in range(options.seeds)]
        replays[name] = found
        needed = [one.tokens_until(WITHIN * best) / whole for one in found]
        then = [one.best_at(QUARTER * whole) / best - 1 for one in found]
        say(
            f"{name:20}{np.median(needed):15.0%}{_percentile(needed, 0.9):12.0%}"
            f"{sum(share <= QUARTER for share in needed):9} of {len(found):2}"
            f"{statistics.median(then):13.1%}{sum(one.lost for one in found):8} of {len(found):2}"
        )
    say("rank correlation with the last loss: " + "; ".join(_correlations(table)))
    if options.plot:
        _plot(replays, whole, best, options.plot)


class _Running:
    """A trial that reports what was recorded of its point."""

    def __init__(self, name: str, recorded: dict[str, Any], plan: TrialPlan, now: int) -> None:
        self.name, self._outcome, self._began = name, recorded["outcome"], now
        self._evaluations = recorded["evaluations"][1:]
        self._rungs = {rung.step: rung.rows for rung in plan.rungs}
        self._tokens = 0

    @property
    def due(self) -> int:
        """When its next evaluation comes, in rows that every slot has trained on."""
        return int(self._began + self._evaluations[0][1])

    @property
    def loss(self) -> float:
        return float(self._evaluations[0][4])

    @property
    def rung(self) -> int | None:
        """The rung at which the next evaluation is."""
        return self._rungs.get(self._evaluations[0][0])

    def report(self, peers: list[tuple[str, float]]) -> tuple[dict[str, Any], str | None, int]:
        """The next evaluation, its outcome if it is the last, and the tokens since the last."""
        step, rows, tokens, _, loss = self._evaluations.pop(0)
        fresh, self._tokens = tokens - self._tokens, tokens
        metrics = {"step": step, "rows": rows, "eval_loss": loss, "rung_peers": peers}
        return metrics, None if self._evaluations else self._outcome, fresh


def _replay(
    table: dict[str, Any],
    seed: int,
    at_once: int,
    *,
    scheduler: str,
    shuffled: bool = False,
    priors: bool = True,
) -> Found:
    sweep = _sweep(table, seed, scheduler, shuffled=shuffled)
    trials = {_key(trial["point"]): trial for trial in table["trials"]}
    best = min(trials, key=lambda key: _losses(trials[key])[-1])
    plan = planner(sweep, table["rows_per_epoch"], execution=ONE_ROW)
    first = prior_points(sweep, table["config"]) if priors else []
    names, running, curve = {}, [], []
    now, spent, lowest, lost = 0, 0, math.inf, False
    with tempfile.TemporaryDirectory() as folder, Journal(f"{folder}/journal.jsonl") as journal:
        search = Search(sweep, journal, plan, first=first)
        while True:
            while len(running) < at_once and (suggestion := search.suggest()):
                name, point = suggestion.trial, suggestion.point
                names[name] = _key(point)
                running.append(
                    _Running(name, deepcopy(trials[_key(point)]), plan(sweep.trial.at(point)), now)
                )
                search.record(name, {"step": 0, "eval_loss": table["base"]})
            if not running:
                return Found(curve, lost)
            now = min(one.due for one in running)
            due = [one for one in running if one.due == now]
            peers = {one.rung: [(o.name, o.loss) for o in due if o.rung == one.rung] for one in due}
            for one in due:
                lowest = min(lowest, one.loss)
                metrics, outcome, fresh = one.report(peers[one.rung] if one.rung else [])
                spent += fresh
                curve.append((spent, lowest))
                if search.record(one.name, metrics, outcome) == "stop":
                    running.remove(one)
                    pruned = search.outcome_of(one.name) == "pruned"
                    lost |= pruned and names[one.name] == best


def _sweep(table: dict[str, Any], seed: int, scheduler: str, *, shuffled: bool) -> SweepConfig:
    space = {name: choice(axis["values"]) for name, axis in table["grid"].items()}
    sweep = SweepConfig(
        name="replay",
        data=DataConfig("none.jsonl"),
        trial=TrialConfig("none", num_train_epochs=table["num_train_epochs"]),
        search_space=space,
        num_trials=len(table["trials"]),
        scheduler=scheduler,
        evals_per_trial=table["evals_per_trial"],
        grace_rows=table["grace_rows"],
        seed=seed,
    )
    if shuffled:
        points = [trial["point"] for trial in table["trials"]]
        random.Random(seed).shuffle(points)
        sweep = replace(sweep, points=tuple(points))
    return sweep


def _correlations(table: dict[str, Any]) -> list[str]:
    """Spearman's, between the losses at each rung and the last, of trials that did not diverge."""
    trials = [trial for trial in table["trials"] if trial["outcome"] == "completed"]
    last = [_losses(trial)[-1] for trial in trials]
    lines = []
    for rung in table["ladder"]:
        at_rung = [
            next(loss for _, rows, _, _, loss in trial["evaluations"] if rows >= rung)
            for trial in trials
        ]
        half = sorted(range(len(last)), key=last.__getitem__)[: len(last) // 2]
        better = spearman([at_rung[i] for i in half], [last[i] for i in half])
        lines.append(f"{rung:,} rows {spearman(at_rung, last):.3f} (the better half {better:.3f})")
    return lines


def _percentile(shares: list[float], share: float) -> float:
    return sorted(shares)[math.ceil(share * len(shares)) - 1]


def _losses(trial: dict[str, Any]) -> list[float]:
    return [evaluation[4] for evaluation in trial["evaluations"][1:]]


def _key(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True)


def _plot(replays: dict[str, list[Found]], whole: float, best: float, path: Path) -> None:
    figure, (left, right) = pyplot().subplots(
        1, 2, figsize=(10, 3.8), sharey=True, layout="constrained"
    )
    shares = np.linspace(0.01, 1, 200)
    for name, found in replays.items():
        regret = [[one.best_at(share * whole) / best - 1 for share in shares] for one in found]
        left.plot(100 * shares, 100 * np.median(regret, axis=0), label=name)
        right.plot(100 * shares, 100 * np.quantile(regret, 0.9, axis=0))
    left.set(ylabel="regret, % of the best loss", yscale="symlog", ylim=(0, 60))
    left.set_title("half of the seeds are better", fontsize=9)
    right.set_title("nine of ten seeds are better", fontsize=9)
    for axes in (left, right):
        axes.set(xlabel="tokens spent, % of the exhaustive sweep", xlim=(0, 100))
        axes.axvline(100 * QUARTER, color="gray", linewidth=0.8)
        axes.axhline(100 * (WITHIN - 1), color="gray", linewidth=0.8)
        axes.grid(alpha=0.3)
    left.legend(frameon=False, fontsize=8)
    save(figure, path)


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--grid", type=Path, default=Path(__file__).parent / "grid.json")
    add("--seeds", type=int, default=50)
    add("--at-once", type=int, default=4)
    add("--plot", type=Path, help="draw the regret into this .svg as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
