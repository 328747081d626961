"""Watt-hours are those of the GPU's own counter, from the trainers to the card."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_models import settings_for, short_spec
from events import an_event
from fake_bundle import facts_of
from fake_nvml import fake_nvml
from fake_trials import make_sweep
from reported import into

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.results.leaderboard import leaderboard
from sftray.results.leaderboard_text import energy_text
from sftray.results.records import Records
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial import gpu_energy
from sftray.trial.gpu_energy import MILLIJOULES, GpuEnergy
from sftray.winner.model_card import model_card

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_what_is_taken_is_the_counters_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_energy, "SECONDS", 0.0)
    readings = iter([5, 5, 5 + MILLIJOULES // 2, 5 + 3 * MILLIJOULES])
    fake_nvml(monkeypatch, lambda: next(readings))
    energy = GpuEnergy(GPU)  # it looks twice: whether there is a counter, and where it stands
    assert [energy.taken(), energy.taken()] == [0.5, 2.5]


def test_within_a_tenth_of_a_second_the_counter_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_nvml(monkeypatch, itertools.count(0, MILLIJOULES).__next__)
    energy = GpuEnergy(GPU)
    assert energy.taken() == 0.0
    monkeypatch.setattr(gpu_energy, "SECONDS", 0.0)
    assert energy.taken() == 1.0


@pytest.mark.parametrize("lacking", ["counter", "package", "GPU"])
def test_where_nothing_counts_there_is_no_number(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml(monkeypatch, lambda: 0, counts=lacking != "counter")
    if lacking == "package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuEnergy(CPU if lacking == "GPU" else GPU).taken() is None


@pytest.fixture
def one_watt_hour_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_energy, "SECONDS", 0.0)
    count = itertools.count(0, MILLIJOULES)
    monkeypatch.setattr(gpu_energy, "counter_of", lambda device: count.__next__)


@pytest.mark.slow
@pytest.mark.usefixtures("one_watt_hour_a_look")
def test_both_trainers_report_it_and_a_bank_shares_it_among_its_slots(
    small_packs: Packs, tiny: TrialConfig, tmp_path: Path
) -> None:
    rows = small_packs.rows("train")
    trial = replace(tiny, effective_batch_size=1, num_train_epochs=12 / rows)
    specs = [short_spec(small_packs, trial, tmp_path / name) for name in ("a", "b")]
    settings = settings_for([spec.config for spec in specs], 2)
    engine = Engine(load_model(tiny, CPU), tiny, small_packs, settings, CPU)
    reports: list[list[dict[str, Any]]] = [[], []]
    for spec, found in zip(specs, reports, strict=True):
        engine.admit(engine.prepare(spec, into(found)))
    while engine.advance():
        pass
    for found in reports:
        assert found[-1]["energy_wh"] == specs[0].plan.steps / 2 == 6.0
    alone: list[dict[str, Any]] = []
    run_trial(replace(specs[0], folder=str(tmp_path / "alone")), into(alone), CPU)
    evaluations = len(specs[0].plan.eval_steps)
    assert [one["energy_wh"] for one in alone if one["step"]][-1] == evaluations


def told(trial: str, rows: int, energy_wh: float | None, **start: Any) -> list[Any]:
    metrics = {"tokens": rows, "supervised_tokens": rows, "eval_loss": 2.0, "seconds": 9.0}
    last = {**metrics, "step": 9, "rows": rows}
    if energy_wh is not None:
        last["energy_wh"] = energy_wh
    return [
        an_event("trial_suggested", trial, point={}),
        an_event("result", trial, step=0, metrics={**metrics, "step": 0, "rows": 0, **start}),
        an_event("result", trial, step=9, metrics=last),
    ]


def test_trials_of_a_bank_share_its_energy_by_their_rows() -> None:
    bank = {"bank_slots": 2}
    records = Records([*told("t0000", 30, 5.0, **bank), *told("t0001", 10, 3.0, **bank)])
    assert [one.energy_wh for one in records.trials] == [6.0, 2.0]
    text = energy_text(leaderboard(make_sweep(), records))
    assert text.startswith("8 Wh, measured by the GPUs' own counters, t0000 6 Wh")


def test_trials_whose_gpus_do_not_count_are_not_counted_as_nothing() -> None:
    records = Records([*told("t0000", 30, 5.0), *told("t0001", 10, None)])
    assert [one.energy_wh for one in records.trials] == [5.0, None]
    assert ", of 1 of 2 trials" in energy_text(leaderboard(make_sweep(), records))
    nothing = Records(told("t0000", 30, None))
    assert energy_text(leaderboard(make_sweep(), nothing)) == ""


def test_the_card_says_it_where_it_is_measured(tiny: TrialConfig) -> None:
    assert "That took 12.3 Wh, measured" in model_card(facts_of(tiny, energy_wh=12.345))
    assert " Wh" not in model_card(facts_of(tiny))


@pytest.mark.gpu
def test_a_gpu_that_works_counts_more_than_its_idle_watts() -> None:
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    energy, matrix = GpuEnergy(GPU), torch.randn(8192, 8192, device=GPU, dtype=torch.bfloat16)
    began = time.monotonic()
    while time.monotonic() - began < 3:
        for _ in range(50):
            matrix @ matrix
        torch.cuda.synchronize()
    taken = energy.taken()
    assert taken is not None
    watts = taken * 3600 / (time.monotonic() - began)
    assert 50 < watts < 1500
