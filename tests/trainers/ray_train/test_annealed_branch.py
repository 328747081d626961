"""Annealed branches of a bank and of SFTTrainer: the same losses, and trunks that never notice."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_models import save_tiny, settings_for, short_spec
from reported import into

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import branch_rate, learning_rate
from sftray.storage.journal.event_types import judged_loss
from sftray.trainers.bank import slot
from sftray.trainers.bank.adapters import Adapters, AdapterState
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.bank.slot import Slot
from sftray.trainers.ray_train import annealed_branch
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial.trial_spec import TrialSpec

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LADDER = (20,)
Reports = list[dict[str, Any]]


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TrialConfig:
    folder = tmp_path_factory.mktemp("base")
    return replace(save_tiny(folder), effective_batch_size=2)


@pytest.fixture(scope="module")
def whole(
    tiny: TrialConfig, small_packs: Packs, tmp_path_factory: pytest.TempPathFactory
) -> Reports:
    """Of the first trial, by SFTTrainer."""
    return alone(*specs_of(tiny, small_packs, tmp_path_factory.mktemp("whole"), ("a",)))


def specs_of(
    trial: TrialConfig, packs: Packs, folder: Path, names: tuple[str, ...]
) -> list[TrialSpec]:
    """Trials of 20 steps, one of each batch size, judged at step 10 by a branch to step 13."""
    specs = []
    for number, name in enumerate(names):
        one = replace(trial, seed=number, learning_rate=trial.learning_rate / (1 + number))
        spec = short_spec(packs, one, folder / name, ladder=LADDER)
        (rung,) = spec.plan.rungs
        specs.append(replace(spec, plan=replace(spec.plan, rungs=(replace(rung, branch_steps=3),))))
    return specs


def plain(spec: TrialSpec, folder: Path) -> TrialSpec:
    """The same without a branch."""
    rungs = tuple(replace(rung, branch_steps=0) for rung in spec.plan.rungs)
    return replace(spec, plan=replace(spec.plan, rungs=rungs), folder=str(folder))


class Bank:
    """An engine whose trials continue from every rung."""

    def __init__(self, trial: TrialConfig, packs: Packs, specs: list[TrialSpec]) -> None:
        settings = settings_for([spec.config for spec in specs], len(specs))
        self.engine = Engine(load_model(trial, CPU), trial, packs, settings, CPU)
        self.reports: list[Reports] = [[] for _ in specs]
        self.slots: list[Slot] = []
        for spec, found in zip(specs, self.reports, strict=True):
            self.slots.append(self.engine.prepare(spec, into(found)))
            self.engine.admit(self.slots[-1])

    def run(self) -> list[Reports]:
        while self.engine.advance() or any(one.waiting for one in self.slots):
            for one in self.slots:
                self.engine.go_on(one)
        return self.reports

    def run_into_branch(self) -> None:
        while not all(one.branch and one.step > one.branch.rung.step for one in self.slots):
            assert self.engine.advance()


def alone(spec: TrialSpec) -> Reports:
    reports: Reports = []
    run_trial(spec, into(reports), CPU)
    return reports


def branch_of(reports: Reports) -> tuple[int, float, int]:
    (branch,) = {report["branch"] for report in reports if "branch" in report}
    return branch


def test_the_rate_of_a_branch_falls_linearly_from_the_trial_s_to_nothing(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    (spec,) = specs_of(tiny, small_packs, tmp_path, ("one",))
    (rung,), peak = spec.plan.rungs, learning_rate(spec.config, spec.plan, 10)
    rates = [branch_rate(spec.config, spec.plan, rung, step) for step in (11, 12, 13)]
    assert rates == pytest.approx([peak, peak * 2 / 3, peak / 3])


def test_bank_and_train_give_the_same_branch(
    tiny: TrialConfig, small_packs: Packs, whole: Reports, tmp_path: Path
) -> None:
    specs = specs_of(tiny, small_packs, tmp_path, ("a", "b"))
    found = Bank(tiny, small_packs, specs).run()
    (end, loss, tokens), theirs = branch_of(found[0]), branch_of(whole)
    assert (end, tokens) == (13, theirs[2])
    assert loss == pytest.approx(theirs[1], rel=1e-4)
    losses = {report["step"]: report["eval_loss"] for report in found[0]}
    assert loss < losses[10]  # annealed
    assert [r["step"] for r in found[0]] == [r["step"] for r in whole]
    for report in whole:
        assert losses[report["step"]] == pytest.approx(report["eval_loss"], rel=1e-4)
    first, second = (next(r for r in reports if "branch" in r) for reports in found)
    assert first["rung_peers"] == [["b", second["branch"][1]]]


def test_a_branch_leaves_its_trunk_as_it_was_and_is_paid_for(
    tiny: TrialConfig, small_packs: Packs, whole: Reports, tmp_path: Path
) -> None:
    specs = specs_of(replace(tiny, lora_dropout=0.2), small_packs, tmp_path, ("a", "b"))
    without = [plain(spec, tmp_path / f"{spec.trial}-plain") for spec in specs]
    branched, expected = (Bank(tiny, small_packs, some).run() for some in (specs, without))
    branched.append(whole)
    (undropped,) = specs_of(tiny, small_packs, tmp_path / "train", ("a",))
    expected.append(alone(plain(undropped, tmp_path / "train-plain")))
    for ours, theirs in zip(branched, expected, strict=True):
        assert branch_of(ours)
        assert trunk(ours) == trunk(theirs)
        seconds = [report["seconds"] for report in ours]
        assert seconds == sorted(seconds)


@pytest.mark.exhaustive
def test_a_branch_leaves_the_dropout_of_its_trunk_alone(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    (spec,) = specs_of(replace(tiny, lora_dropout=0.2), small_packs, tmp_path, ("a",))
    assert trunk(alone(spec)) == trunk(alone(plain(spec, tmp_path / "plain")))


def trunk(reports: Reports) -> list[Any]:
    """Losses and curves, to the last bit."""
    return [(r["step"], r["eval_loss"], r.get("curve"), r["tokens"]) for r in reports]


def test_without_the_copy_the_trunk_would_be_another(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = specs_of(tiny, small_packs, tmp_path, ("a",))
    expected = Bank(tiny, small_packs, [plain(spec, tmp_path / "plain")]).run()[0]

    def not_copied(adapters: Adapters, place: int) -> AdapterState:
        first, second = (moments[place] for moments in adapters.moments)
        return AdapterState(adapters.param[place], (first, second))

    monkeypatch.setattr(Adapters, "park", not_copied)
    assert trunk(Bank(tiny, small_packs, [spec]).run()[0]) != trunk(expected)


def test_a_bank_that_dies_in_a_branch_begins_it_again(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    specs = specs_of(tiny, small_packs, tmp_path, ("a", "b"))
    whole = Bank(tiny, small_packs, specs).run()
    cut = [replace(spec, folder=f"{spec.folder}-cut") for spec in specs]
    dying = Bank(tiny, small_packs, cut)
    dying.run_into_branch()
    dying.engine.save()  # which must not take a branch for its trial
    again = Bank(tiny, small_packs, cut).run()
    for before, died, after in zip(whole, dying.reports, again, strict=True):
        assert all("branch" not in report for report in died)
        known = {report["step"]: report for report in before}
        assert {r["step"] for r in [*died, *after]} == set(known)
        for report in after:
            same = known[report["step"]]
            assert report["eval_loss"] == pytest.approx(same["eval_loss"], abs=1e-6)
            assert report.get("branch") == pytest.approx(same.get("branch"), abs=1e-6)
            assert report.get("rung_peers") == same.get("rung_peers")


def test_a_worker_that_dies_in_a_branch_begins_it_again(
    tiny: TrialConfig, small_packs: Packs, whole: Reports, tmp_path: Path
) -> None:
    (cut,), reports = specs_of(tiny, small_packs, tmp_path, ("a",)), []
    take_step = annealed_branch._take_step

    def dies(*arguments: Any) -> float:
        raise KilledError(take_step(*arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annealed_branch, "_take_step", dies)
        with pytest.raises(KilledError):
            run_trial(cut, into(reports), CPU)
    assert all("branch" not in report for report in reports)
    again = alone(cut)
    assert branch_of(again) == branch_of(whole)
    losses = {r["step"]: r["eval_loss"] for r in [*reports, *again]}
    assert losses == {r["step"]: r["eval_loss"] for r in whole}


@pytest.mark.exhaustive
def test_memory_that_runs_out_in_a_branch_loses_nothing(
    tiny: TrialConfig,
    small_packs: Packs,
    whole: Reports,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (spec,), died = specs_of(tiny, small_packs, tmp_path, ("a",)), []
    spec = replace(spec, plan=replace(spec.plan, execution=Execution(2), accumulation=1))
    take_step = annealed_branch._take_step

    def runs_out(*arguments: Any) -> float:
        norm = take_step(*arguments)
        if not died:
            died.append(norm)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return norm

    monkeypatch.setattr(annealed_branch, "_take_step", runs_out)
    found = alone(spec)
    assert died
    assert [r["step"] for r in found] == [r["step"] for r in whole]
    assert branch_of(found)[1] == pytest.approx(branch_of(whole)[1], rel=1e-5)
    for ours, theirs in zip(found, whole, strict=True):
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-5)
    assert next(r["out_of_memory"] for r in found if "branch" in r)


@pytest.mark.parametrize("trainer", ["bank", pytest.param("train", marks=pytest.mark.exhaustive)])
def test_a_branch_that_diverges_counts_for_nothing(
    trainer: str,
    tiny: TrialConfig,
    small_packs: Packs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reports_of(spec: TrialSpec) -> Reports:
        return alone(spec) if trainer == "train" else Bank(tiny, small_packs, [spec]).run()[0]

    (spec,) = specs_of(tiny, small_packs, tmp_path, ("a",))
    expected = reports_of(plain(spec, tmp_path / "plain"))
    for module in (slot, annealed_branch):
        monkeypatch.setattr(module, "branch_rate", lambda *_: 1e30)
    found = reports_of(spec)
    (at_rung,) = (report for report in found if "branch" in report)
    assert math.isnan(at_rung["branch"][1])
    assert judged_loss(at_rung) == at_rung["eval_loss"]
    assert trunk(found) == trunk(expected)
    assert found[-1]["outcome"] == "completed"
