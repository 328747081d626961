"""A folder of a finished sweep of as many trials and evaluations as are wanted, as a driver that
had no trainer would have written it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice, loguniform
from sftray.config.config_json import to_json
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import TrialPlan, planner
from sftray.storage.journal import Event
from sftray.storage.journal import event_types as events
from sftray.storage.journal.event_types import (
    CONTINUE,
    STOP,
    AttemptStarted,
    EventName,
    Metrics,
    Outcome,
    RungDecision,
    SweepEnded,
    SweepStarted,
)
from sftray.storage.journal.events import encode
from sftray.storage.paths import SweepPaths

ROWS = 4000
TOKENS = 1900
"""A row."""
START = 1735689600.0
SWEEP = SweepConfig(
    name="long",
    data=DataConfig("chats.jsonl"),
    trial=TrialConfig("base", base_precision="bf16"),
    search_space={
        "learning_rate": loguniform(1e-5, 1e-2),
        "effective_batch_size": choice([8, 16, 32]),
        "lora_r": choice([8, 16, 32]),
    },
)


def write_sweep(folder: Path, trials: int, evaluations: int, *, pruned: float = 0.5) -> Path:
    """pruned: the share of the trials that are stopped at each rung."""
    sweep = replace(SWEEP, num_trials=trials, evals_per_trial=evaluations)
    counts = {"conversations": ROWS, "rows": ROWS, "tokens": ROWS * TOKENS}
    counts["supervised_tokens"] = counts["tokens"] // 3
    config = to_json(sweep)
    record = {
        "uid": "1f2e3d4c", "config": config, "search_space": config["search_space"],
        "packs": "packs/k", "data": {"train": counts, "eval": counts}, "versions": {},
        "python": "3.11", "git_revision": None, "started": "2025-01-01T00:00:00Z",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    paths = SweepPaths(str(folder))
    Path(paths.sweep).write_text(json.dumps(record))
    with open(paths.journal, "wb") as journal:
        for number, event in enumerate(_events(sweep, pruned)):
            journal.write(encode({**event, "time": START + number / 20}))  # type: ignore[arg-type]
    return folder


def _events(sweep: SweepConfig, pruned: float) -> Iterator[Event]:
    chance, plan_of = random.Random(0), planner(sweep, ROWS, execution=ONE_ROW)
    yield SweepStarted(event=EventName.SWEEP_STARTED, trial=None, uid="1f2e3d4c")
    for number in range(sweep.num_trials):
        trial = f"t{number:04d}"
        point = {name: space.at(chance.random()) for name, space in sweep.search_space.items()}
        config = sweep.trial.at(point)
        yield events.trial_suggested(trial, point)
        yield AttemptStarted(event=EventName.ATTEMPT_STARTED, trial=trial, attempt=1)
        yield from _of_trial(trial, config, plan_of(config), chance, pruned)
    yield SweepEnded(event=EventName.SWEEP_ENDED, trial=None)


def _of_trial(
    trial: str, config: TrialConfig, plan: TrialPlan, chance: random.Random, pruned: float
) -> Iterator[Event]:
    lowest = 2 + 0.3 * abs(math.log10(config.learning_rate) + 3.5)
    rungs, last = {rung.step: rung.rows for rung in plan.rungs}, 0
    for step in (0, *plan.eval_steps):
        loss = lowest + 3 * math.exp(-4 * step / plan.steps) + chance.gauss(0, 0.01)
        curve = [[at, loss, config.learning_rate, 1.0] for at in range(last + 1, step + 1)]
        last = step
        yield events.result(trial, _metrics(config, plan, step, loss if step else 5.0, curve))
        if step in rungs:
            stops = chance.random() < pruned
            cutoff = loss - 0.01 if stops else loss + 0.1
            yield RungDecision(
                event=EventName.DECISION, trial=trial, step=step, rung=rungs[step],
                decision=STOP if stops else CONTINUE, bracket=plan.bracket, cutoff=cutoff,
            )  # fmt: skip
            if stops:
                yield events.trial_ended(trial, Outcome.PRUNED, f"above {cutoff:.4f}")
                return
    yield events.trial_ended(trial, Outcome.COMPLETED)


def _metrics(
    config: TrialConfig, plan: TrialPlan, step: int, loss: float, curve: list[list[float]]
) -> Metrics:
    rows = step * config.effective_batch_size
    return {
        "step": step, "rows": rows, "tokens": rows * TOKENS, "seconds": float(step),
        "supervised_tokens": rows * TOKENS // 3, "gpu_seconds": float(step), "eval_loss": loss,
        "train_loss": loss, "learning_rate": config.learning_rate, "grad_norm": 1.0,
        "tokens_per_second": 9000.0, "gpu_memory_gb": 40.0, "data_wait": 0.0,
        "epoch": step / plan.steps, "curve": curve, "device": "NVIDIA H200", "attention": "varlen",
    }  # fmt: skip
