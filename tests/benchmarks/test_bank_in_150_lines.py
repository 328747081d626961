"""The bank on plain PyTorch that newcomers read, held to the bank that trains."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bank_models import settings_for
from packed_rows import packs_of_rows
from reported import into

from sftray.config import TrialConfig
from sftray.demo import FOLDER
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trial.trial_spec import TrialSpec

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bank_in_150_lines.py"
CPU = torch.device("cpu")
LENGTH = 80
DEMO = TrialConfig(str(FOLDER), base_precision="fp32", warmup_ratio=0.2)
WIDE = replace(DEMO, lora_r=8, lora_alpha=16)
TRIALS = [
    replace(DEMO, learning_rate=1e-3, lora_r=4, lora_alpha=8, effective_batch_size=1, seed=1),
    replace(DEMO, learning_rate=3e-3, lora_r=3, effective_batch_size=2, lora_alpha_ratio=0.5),
    replace(WIDE, learning_rate=1e-2, effective_batch_size=2, weight_decay=0.3),
]


@pytest.fixture(scope="module")
def twin() -> Any:
    sys.path.insert(0, str(SCRIPT.parent))  # as for a script
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


@pytest.mark.slow
def test_its_losses_are_those_of_the_engine(twin: Any, tmp_path: Path) -> None:
    rows = twin.demo_rows(20, LENGTH)
    assert len(rows) == 20
    losses = twin.train(TRIALS, rows)
    assert [len(of_trial) for of_trial in losses] == [20, 10, 10]
    for ours, theirs in zip(losses, _by_engine(rows, tmp_path), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    (one_row,) = twin.train(TRIALS[:1], rows[:1] * 20)
    assert one_row[-1] < one_row[0] - 0.1  # something is learnt


def test_it_has_at_most_150_lines() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
def test_it_runs_as_a_script() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 4


def _by_engine(rows: list[dict[str, list[int]]], folder: Path) -> list[list[float]]:
    """The losses of the trials' steps in the bank, on packs that hold these rows."""
    packs = packs_of_rows(rows, folder / "packs", LENGTH)
    plans = [plan_trial(trial, len(rows), ladder=(), evals_per_trial=1) for trial in TRIALS]
    specs = [
        TrialSpec(str(k), trial, plan, packs.root, str(folder / str(k)), None, 0)
        for k, (trial, plan) in enumerate(zip(TRIALS, plans, strict=True))
    ]
    settings = settings_for(TRIALS, slots=len(TRIALS))
    engine = Engine(load_model(DEMO, CPU), DEMO, packs, settings, CPU)
    reports: list[list[dict[str, Any]]] = [[] for _ in specs]
    for spec, of_trial in zip(specs, reports, strict=True):
        engine.admit(engine.prepare(spec, into(of_trial)))
    while engine.advance():
        pass
    return [
        [entry[1] for report in of_trial for entry in report.get("curve", [])]
        for of_trial in reports
    ]
