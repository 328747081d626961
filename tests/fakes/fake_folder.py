"""A small sweep's folder, told event by event, and the recorded one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fake_trials import make_sweep

from sftray import results
from sftray.config import loguniform
from sftray.config.config_json import to_json
from sftray.data.packs.packs import Packs
from sftray.results import Results
from sftray.storage.journal import Event, Journal
from sftray.storage.paths import SweepPaths

RECORDED = Path(__file__).parents[1] / "recorded" / "lr_batch"
HELD_OUT = {
    "messages": [{"role": "user", "content": "Held out?"}], "prompt": "Held out?",
    "reference": "It is.", "input_ids": [1],
}  # fmt: skip
PACKS = Packs("packs/k", {"sample_prompts": [HELD_OUT] * 4})
STARTED, START = "2025-01-01T00:00:00Z", 1735689600.0
SWEEP = make_sweep(name="x", search_space={"learning_rate": loguniform(1e-5, 1.0)})


def result(trial: str, step: int, loss: float, minute: float, **more: Any) -> Event:
    metrics = {"step": step, "rows": step * 16, "tokens": step * 1000}
    metrics |= {"seconds": step * 2.0, "gpu_seconds": step * 2.0}
    metrics |= {"supervised_tokens": step * 400, "eval_loss": loss, **more}
    event = {"event": "result", "trial": trial, "step": step, "metrics": metrics}
    return {**event, "time": START + 60 * minute}


def ended(trial: str, outcome: str, time: float, message: str = "") -> Event:
    told = {"outcome": outcome, "message": message, "time": time}
    return {"event": "trial_ended", "trial": trial, **told}


EVENTS: list[Event] = [
    {"event": "trial_suggested", "trial": "t0000", "point": {"learning_rate": 1e-3}},
    {"event": "trial_suggested", "trial": "t0001", "point": {"learning_rate": 0.5}},
    result("t0000", 0, 3.0, 1, device="cpu"),
    result("t0000", 2, 2.5, 2, curve=[[1, 3.1, 0.0, 1.0], [2, 2.9, 1e-3, 2.0]], gpu_memory_gb=3.0),
    result("t0000", 3, 2.75, 3, curve=[[3, 2.8, 5e-4, 1.5]], gpu_memory_gb=4.0),
    {
        "event": "decision", "trial": "t0000", "step": 3, "rung": 48, "bracket": "1 epoch",
        "cutoff": 2.6, "decision": "stop", "time": START + 180,
    },
    ended("t0000", "pruned", START + 181),
    result("t0001", 0, 3.0, 1),
    result("t0001", 2, math.nan, 2, curve=[[1, 3.1, 0.0, 1.0]]),
    ended("t0001", "diverged", START + 121, "loss is nan at step 2"),
]  # fmt: skip


def found_in(folder: Path, events: list[Event]) -> Results:
    """The sweep that a folder's files tell of."""
    paths = SweepPaths(str(folder))
    config = to_json(SWEEP)
    record = {"config": config, "search_space": config["search_space"], "started": STARTED}
    record |= {"packs": "packs/k", "data": {"train": {"rows": 240}}}
    Path(paths.sweep).write_text(json.dumps(record))
    with Journal(paths.journal) as journal:
        journal.append_all(events)
    return results.load(paths.root)
