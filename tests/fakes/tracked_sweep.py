"""A sweep of two trials as its journal holds it, for what mirrors journals."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from events import an_event

from sftray.config import DataConfig, SweepConfig, TrialConfig, loguniform
from sftray.config.config_json import to_json
from sftray.storage.journal import Journal
from sftray.views.tracking.tracked_metrics import METRICS

SWEEP = SweepConfig(
    name="lr",
    data=DataConfig("rows.jsonl", max_length=64),
    trial=TrialConfig("base", effective_batch_size=4),
    search_space={"learning_rate": loguniform(1e-5, 1e-3)},
    wandb="offline",
    wandb_samples=True,
)


TRIALS = {"0000": 1.234e-4, "0001": 5e-4}


def evaluate_all(journal: Journal) -> None:
    """Every trial has begun and was evaluated three times."""
    begin(journal)
    for trial in TRIALS:
        for step in (0, 2, 4):
            journal.append(an_event("result", trial, step=step, metrics=result(step)))


def begin(journal: Journal) -> None:
    journal.append(an_event("sweep_started", uid="1f2e3d4c"))
    for trial, rate in TRIALS.items():
        journal.append(an_event("trial_suggested", trial, point={"learning_rate": rate}))
        journal.append(an_event("attempt_started", trial, attempt=1))


def record_of(sweep: SweepConfig) -> dict[str, Any]:
    """Its sweep.json."""
    config = to_json(sweep)
    record = {"uid": "1f2e3d4c", "config": config, "search_space": config["search_space"]}
    return {**record, "packs": "../packs/k", "data": {"train": {"rows": 100}}}


def result(step: int) -> dict[str, Any]:
    """The metrics of an evaluation, every two steps."""
    base = {"step": step, "rows": 4 * step, "curve": [], "attention": "sdpa"}
    metrics = {name: 100 * step + number for number, name in enumerate(METRICS)}
    curve = [[at, 3.0 / at, 1e-4, 0.5] for at in (step - 1, step) if at > 0]
    return {**metrics, **base, "curve": curve, "eval_loss": 4.0 - step / 4}


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: 7 bytes of header, then LevelDB's log of 32 KiB blocks."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record
