"""Driver, bank and worker killed in every phase of a sweep: the same command ends with the
undisturbed answer."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dying_sweep
import pytest
from dying_sweep import PHASES

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.config.config_json import to_json
from sftray.demo import FOLDER
from sftray.results import Results, load
from sftray.storage.journal import read_events
from sftray.storage.paths import SweepPaths

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STARTS = {"driver": 2, "bank": 1, "worker": 1}
"""How often the command is given: what dies beside a driver is started again by it."""
WITH_WORKERS = [
    phase for phase in PHASES if phase not in ("collect", "report", "mirrors' last words")
]
CELLS = [
    *((phase, victim) for phase in PHASES for victim in ("driver", "bank")),
    *((phase, "worker") for phase in WITH_WORKERS),
]
SHORT = ("check", "bank")


@pytest.fixture(scope="module")
def sweep(tiny: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    """Two points of ten steps, the better of them run again with two more seeds."""
    return SweepConfig(
        name="dying",
        data=DataConfig(
            str(FOLDER / "chats.jsonl"),
            max_length=256,
            max_conversations=40,
            num_eval_conversations=4,
        ),
        trial=replace(tiny, effective_batch_size=2, num_train_epochs=2.5),
        points=({"learning_rate": 1e-3}, {"learning_rate": 1e-2}),
        scheduler="none",
        evals_per_trial=3,
        confirm_top=1,
        confirm_seeds=2,
        num_samples_generated=0,
        trainer="bank",
        bank_slots=2,
        wandb="disabled",
        tensorboard=True,
        storage=str(tmp_path_factory.mktemp("dying")),
    )


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, sweep: SweepConfig) -> Callable[[str], Results]:
    """The sweep by a trainer."""

    @functools.cache
    def run(trainer: str) -> Results:
        calm = replace(sweep, trainer=trainer, name=f"calm_{trainer}")
        return finish(calm, Path(sweep.storage, trainer), "collect", "nobody", starts=1)

    return run


def finish(sweep: SweepConfig, folder: Path, phase: str, victim: str, starts: int) -> Results:
    """Give the command of a sweep so often as it needs; all but the last die."""
    import ray

    folder.mkdir(exist_ok=True)
    config = folder / "sweep.json"
    config.write_text(json.dumps(to_json(sweep)))
    if victim == "nobody":
        config.with_suffix(".died").touch()
    command = [sys.executable, dying_sweep.__file__, str(config), phase, victim]
    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_ADDRESS": address}
    for number in range(starts):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        dies = number < starts - 1
        assert (done.returncode != 0) == dies, done.stdout[-4000:] + done.stderr[-4000:]
    died = config.with_suffix(".died").read_text(encoding="utf-8")
    assert died or victim == "nobody", done.stdout
    return load(SweepPaths.of(sweep.storage, sweep.name).root)


def answer(found: Results) -> object:
    """What a sweep is for: what was tried, how it ended, the winner."""
    events = read_events(SweepPaths(found.folder).journal)
    trials = {
        trial.trial: (trial.point, trial.outcome, [measured(result) for result in trial.results])
        for trial in found.records
    }
    chosen = [(e["trial"], e["seeds"]) for e in events if e["event"] == "confirmation"]
    ended = sum(event["event"] == "sweep_ended" for event in events)
    return trials, chosen, ended, found.leaderboard["best"]


def measured(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("step", "rows", "tokens", "supervised_tokens")}


def losses(found: Results) -> list[float]:
    return [result["eval_loss"] for trial in found.records for result in trial.results]


@pytest.mark.parametrize(
    ("phase", "victim"),
    [
        pytest.param(*cell, marks=[] if cell == SHORT else [pytest.mark.exhaustive])
        for cell in CELLS
    ],
)
def test_a_process_that_dies_changes_nothing_of_the_answer(
    undisturbed: Callable[[str], Results],
    sweep: SweepConfig,
    tmp_path: Path,
    phase: str,
    victim: str,
) -> None:
    expected = undisturbed("train" if victim == "worker" else "bank")
    storage = tmp_path / "storage"
    if phase != "packing":
        shutil.copytree(Path(sweep.storage, "packs"), storage / "packs")
    dying = replace(sweep, storage=str(storage), trainer=expected.config.trainer)
    found = finish(dying, tmp_path, phase, victim, STARTS[victim])
    assert answer(found) == answer(expected)
    assert losses(found) == pytest.approx(losses(expected), abs=1e-6)
    paths = SweepPaths(found.folder)
    best, theirs = (
        json.loads(Path(SweepPaths(one.folder).best, "sweep.json").read_text())
        for one in (found, expected)
    )
    assert best["trial"] == theirs["trial"]
    assert best["eval_loss"] == pytest.approx(theirs["eval_loss"], abs=1e-6)
    assert best["verified"]
    assert Path(paths.report).exists()
    events = read_events(paths.journal)
    keys = [(e["event"], e["trial"], e.get("step"), e.get("attempt")) for e in events]
    assert len(keys) == len(set(keys))
    boards = {path.parent.name for path in Path(paths.tensorboard).glob("*/events.*")}
    assert boards >= {trial.trial for trial in found.records}
