"""A sweep whose trials are formulas: the search without Ray, in milliseconds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice, loguniform
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.search.search import Search
from sftray.search.search_trials import Suggestion
from sftray.storage.journal import Journal

ROWS = 240
TRIAL = TrialConfig("none")


def make_sweep(**changes: Any) -> SweepConfig:
    values: dict[str, Any] = {
        "name": "fake",
        "data": DataConfig("none.jsonl"),
        "trial": TRIAL,
        "search_space": {
            "learning_rate": loguniform(1e-5, 1e-1),
            "effective_batch_size": choice([2, 4, 8]),
            "num_train_epochs": choice([1, 2]),
        },
        "num_trials": 16,
        "rungs": (1 / 9, 1 / 3),
        "grace_steps": 3,
        "seed": 7,
    }
    return SweepConfig(**(values | changes))


def make_search(sweep: SweepConfig, journal: Journal, **options: Any) -> Search:
    return Search(sweep, journal, planner(sweep, ROWS, execution=ONE_ROW), **options)


def reports(sweep: SweepConfig, point: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a trial reports: best at a learning rate of 1e-3, NaN halfway above 5e-2; at
    rungs a metric is highest at 1e-4."""
    trial = sweep.trial.at(point)
    plan = planner(sweep, ROWS, execution=ONE_ROW)(trial)
    rungs = [rung.step for rung in plan.rungs]
    for step in (0, *plan.eval_steps):
        loss = 2 + abs(math.log10(trial.learning_rate / 1e-3)) + 1 / (1 + step)
        if trial.learning_rate > 5e-2 and step > plan.steps // 2:
            loss = math.nan
        rows = step * trial.effective_batch_size
        spent = {"tokens": 10 * rows, "supervised_tokens": 4 * rows, "seconds": rows / 2}
        spent["gpu_seconds"] = rows / 2
        report = {"step": step, "rows": rows, "eval_loss": loss, **spent}
        if sweep.metric_at == "rungs" and step in (*rungs, plan.steps):
            report["metric"] = 1 / (1 + abs(math.log10(trial.learning_rate / 1e-4)))
        yield report


@dataclass
class Kept:
    """What trials keep on the disk, beside the journal: their last checkpoint's step. And a tally
    that no trial has: a letter for each time that an interval was trained."""

    folder: Path

    def checkpoint(self, trial: str) -> int:
        """The step to go on from; -1 from nothing."""
        path = self.folder / f"{trial}.checkpoint"
        return int(path.read_text()) if path.exists() else -1

    def save(self, trial: str, step: int) -> None:
        new = self.folder / f"{trial}.new"
        new.write_text(str(step))
        new.replace(self.folder / f"{trial}.checkpoint")

    def train(self, trial: str, step: int) -> None:
        """Begin to train the interval that ends at `step`."""
        with open(self.folder / f"{trial}.{step}.trained", "a") as tally:
            tally.write("x")

    def trained(self) -> dict[tuple[str, int], int]:
        """How often each interval was begun."""
        tallies = (path.name.split(".") for path in self.folder.glob("*.trained"))
        return {
            (trial, int(step)): (self.folder / f"{trial}.{step}.trained").stat().st_size
            for trial, step, _ in tallies
        }


def run(
    sweep: SweepConfig,
    search: Search,
    *,
    slots: int = 3,
    order: int = 0,
    reports_left: float = math.inf,
    kept: Kept | None = None,
    ended: Callable[[], None] = lambda: None,
) -> None:
    """Run a sweep to its end, `slots` trials at a time, their reports interleaved at random.

    reports_left: reports after which InterruptedError is raised. kept: where trials find the
    checkpoint that they go on from; without it they begin anew. A trial trains its next interval
    while others report, so that a kill costs it the whole of one. ended: called when a trial has.
    """
    shuffled = random.Random(order)
    waiting = search.unfinished()
    running: list[tuple[Suggestion, Iterator[dict[str, Any]], dict[str, Any] | None]] = []
    while True:
        while len(running) < slots:
            suggestion = waiting.pop(0) if waiting else search.suggest()
            if suggestion is None:
                break
            search.attempt(suggestion.trial)
            left = _from_checkpoint(sweep, suggestion, kept)
            running.append((suggestion, left, next(left, None)))
        if not running:
            return
        suggestion, left, report = running.pop(shuffled.randrange(len(running)))
        if report is None:
            search.returned(suggestion.trial)
            ended()
            continue
        if kept is not None:
            kept.save(suggestion.trial, report["step"])
        reports_left -= 1
        if reports_left < 0:
            raise InterruptedError
        if search.record(suggestion.trial, report) == "continue":
            running.append((suggestion, left, next(left, None)))
        else:
            ended()


def _from_checkpoint(
    sweep: SweepConfig, suggestion: Suggestion, kept: Kept | None
) -> Iterator[dict[str, Any]]:
    """The reports from the checkpoint's own on, which may not have been journalled."""
    trial = suggestion.trial
    last = kept.checkpoint(trial) if kept else -1
    for report in reports(sweep, dict(suggestion.point)):
        if kept is not None and report["step"] > last:
            kept.train(trial, report["step"])
        if report["step"] >= last:
            yield report
