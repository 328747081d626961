"""A sweep whose trials are formulas: the search without Ray, in milliseconds."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from sftray.budget import ONE_ROW, planner
from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.journal import Journal
from sftray.search.state import Search, Suggestion
from sftray.spaces import choice, loguniform

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
        "seed": 7,
    }
    return SweepConfig(**(values | changes))


def make_search(sweep: SweepConfig, journal: Journal, **options: Any) -> Search:
    return Search(sweep, journal, planner(sweep, ROWS, execution=ONE_ROW), **options)


def reports(sweep: SweepConfig, point: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a trial reports: best at a learning rate of 1e-3, NaN halfway above 5e-2."""
    trial = sweep.trial.at(point)
    plan = planner(sweep, ROWS, execution=ONE_ROW)(trial)
    for step in (0, *plan.eval_steps):
        loss = 2 + abs(math.log10(trial.learning_rate / 1e-3)) + 1 / (1 + step)
        if trial.learning_rate > 5e-2 and step > plan.steps // 2:
            loss = math.nan
        rows = step * trial.effective_batch_size
        spent = {"tokens": 10 * rows, "supervised_tokens": 4 * rows, "seconds": rows / 2}
        spent["gpu_seconds"] = rows / 2
        yield {"step": step, "rows": rows, "eval_loss": loss, **spent}


def run(sweep: SweepConfig, search: Search, *, slots: int = 3, order: int = 0) -> None:
    """Run a sweep to its end, `slots` trials at a time, their reports interleaved at random."""
    shuffled = random.Random(order)
    waiting = search.unfinished()
    running: list[tuple[Suggestion, Iterator[dict[str, Any]]]] = []
    while True:
        while len(running) < slots:
            suggestion = waiting.pop(0) if waiting else search.suggest()
            if suggestion is None:
                break
            search.attempt(suggestion.trial)
            running.append((suggestion, reports(sweep, suggestion.point)))
        if not running:
            return
        number = shuffled.randrange(len(running))
        suggestion, left = running[number]
        report = next(left, None)
        if report is None:
            search.returned(suggestion.trial)
            running.pop(number)
        elif search.record(suggestion.trial, report) == "stop":
            running.pop(number)
