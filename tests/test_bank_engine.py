"""The bank against the `train` trainer: the same trials, the same losses; isolation; resume."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sftray.bank.engine import Engine, load_model
from sftray.bank.settings import BankSettings
from sftray.budget import plan_trial
from sftray.config import TrialConfig
from sftray.data.packs import Packs
from sftray.demo import FOLDER
from sftray.paths import TrialPaths
from sftray.train.worker import run_trial
from sftray.trial import checkpoint as checkpoints
from sftray.trial.spec import TrialSpec

pytestmark = pytest.mark.ray  # the packs are built on it, once

CPU = torch.device("cpu")
Reports = list[dict[str, Any]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TrialConfig:
    """A trial of a random model of 2 layers with the demo's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(FOLDER / name, folder / name)
    config = json.loads((FOLDER / "config.json").read_text())
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
    torch.manual_seed(0)
    known = {k: v for k, v in config.items() if k not in ("architectures", "dtype")}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**{**known, **sizes, **heads}), dtype=torch.float32
    )
    model.save_pretrained(folder)
    return TrialConfig(str(folder), base_precision="fp32", learning_rate=5e-3, lora_r=4)


def test_four_trials_in_one_bank_have_the_losses_of_four_runs_of_sfttrainer(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    rows = small_packs.rows("train")
    trials = [
        replace(tiny, learning_rate=2e-3, effective_batch_size=1, num_train_epochs=50 / rows),
        replace(tiny, effective_batch_size=2, lora_r=8, num_train_epochs=100 / rows),
        replace(tiny, weight_decay=0.3, effective_batch_size=4, num_train_epochs=120 / rows),
        replace(
            tiny,
            warmup_ratio=0.2,
            lora_r=3,
            min_lr_ratio=0.1,
            effective_batch_size=1,
            num_train_epochs=60 / rows,
        ),
    ]
    specs = [
        _spec(small_packs, trial, tmp_path / "bank" / str(k)) for k, trial in enumerate(trials)
    ]
    assert [spec.plan.steps for spec in specs] == [50, 50, 30, 60]
    by_bank = _run_bank(tiny, small_packs, specs, slots=4)
    for spec, found in zip(specs, by_bank, strict=True):
        expected: Reports = []
        alone = replace(spec, folder=str(tmp_path / "alone" / spec.trial))
        run_trial(alone, expected.append, CPU)
        assert [r["step"] for r in found] == [r["step"] for r in expected]
        assert found[-1]["outcome"] == expected[-1]["outcome"] == "completed"
        for ours, theirs in zip(found, expected, strict=True):
            assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-4)
            assert ours["tokens"] == theirs["tokens"]
            assert ours["supervised_tokens"] == theirs["supervised_tokens"]
            np.testing.assert_allclose(ours.get("curve", []), theirs.get("curve", []), rtol=2e-3)


def test_a_checkpoint_of_the_bank_is_one_of_the_train_trainer(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    spec = _spec(small_packs, replace(tiny, effective_batch_size=2), tmp_path / "bank")
    whole = _run_bank(tiny, small_packs, [spec], slots=1)[0]
    moved = replace(spec, folder=str(tmp_path / "moved"))
    middle = spec.plan.eval_steps[1]
    _run_bank(tiny, small_packs, [moved], slots=2, until=middle)
    assert checkpoints.newest(TrialPaths(moved.folder), tmp_path / "scratch").step == middle  # type: ignore[union-attr]
    rest: Reports = []
    run_trial(moved, rest.append, CPU)
    assert rest[0]["resumed_from_step"] == middle
    assert rest[-1]["eval_loss"] == pytest.approx(whole[-1]["eval_loss"], rel=1e-4)


def test_a_trial_goes_on_in_another_slot_of_another_bank_with_the_same_losses(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2, lora_dropout=0.2)
    spec = _spec(small_packs, trial, tmp_path / "whole")
    other = _spec(small_packs, replace(trial, learning_rate=1e-2, seed=5), tmp_path / "other")
    whole = _run_bank(tiny, small_packs, [spec, other], slots=2)[0]
    cut = replace(spec, folder=str(tmp_path / "cut"))
    _run_bank(tiny, small_packs, [cut], slots=1, until=spec.plan.eval_steps[1])
    again = _run_bank(tiny, small_packs, [replace(other, folder=str(tmp_path / "o")), cut], slots=3)
    rest = again[1]
    assert rest[0]["resumed_from_step"] == spec.plan.eval_steps[1]
    ends = {report["step"]: report["eval_loss"] for report in whole}
    for report in rest:
        assert report["eval_loss"] == pytest.approx(ends[report["step"]], abs=1e-6)


def test_a_trial_that_blows_up_leaves_its_neighbours_bit_identical(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    good = _spec(small_packs, replace(tiny, effective_batch_size=2), tmp_path / "good")
    wild = replace(tiny, effective_batch_size=2, learning_rate=1e30, warmup_ratio=0.0)
    bad = _spec(small_packs, wild, tmp_path / "bad")
    alone = _run_bank(tiny, small_packs, [good], slots=2)[0]
    weights = checkpoints.read(TrialPaths(good.folder).checkpoint(good.plan.steps), tmp_path / "a")
    again = replace(good, folder=str(tmp_path / "again"))
    beside, diverged = _run_bank(tiny, small_packs, [again, bad], slots=2)
    assert diverged[-1]["outcome"] == "diverged"
    assert diverged[-1]["message"].startswith("step 2: loss nan")
    assert [r["eval_loss"] for r in alone] == [r["eval_loss"] for r in beside]
    found = checkpoints.read(TrialPaths(again.folder).checkpoint(good.plan.steps), tmp_path / "b")
    for before, after in zip(
        checkpoints.load_tensors(weights), checkpoints.load_tensors(found), strict=True
    ):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_trial_waits_at_its_rung_and_its_neighbour_goes_on(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2)
    waiting = _spec(small_packs, trial, tmp_path / "waiting", ladder=(10,))
    free = _spec(small_packs, trial, tmp_path / "free")
    engine = _engine(tiny, small_packs, [waiting, free], slots=2)
    reports: list[Reports] = [[], []]
    slots = [engine.prepare(s, r.append) for s, r in zip((waiting, free), reports, strict=True)]
    for slot in slots:
        engine.admit(slot)
    while engine.advance():
        pass
    assert reports[0][-1]["step"] == waiting.plan.rungs[0].step == 5
    assert reports[1][-1]["outcome"] == "completed"
    assert engine.free == 1
    engine.go_on(slots[0])
    while engine.advance():
        pass
    assert reports[0][-1]["outcome"] == "completed"
    assert reports[0][-1]["eval_loss"] == pytest.approx(reports[1][-1]["eval_loss"], rel=1e-6)


def test_a_dropped_trial_frees_its_slot_for_one_that_starts_fresh(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    spec = _spec(small_packs, replace(tiny, effective_batch_size=2), tmp_path / "expected")
    expected = _run_bank(tiny, small_packs, [spec], slots=1)[0]
    engine = _engine(tiny, small_packs, [spec], slots=1)
    dropped: Reports = []
    first = engine.prepare(replace(spec, folder=str(tmp_path / "dropped")), dropped.append)
    engine.admit(first)
    while len(dropped) < 2:
        engine.advance()
    engine.drop(first)
    assert engine.free == 1
    assert not engine.advance()
    found: Reports = []
    engine.admit(engine.prepare(replace(spec, folder=str(tmp_path / "found")), found.append))
    while engine.advance():
        pass
    assert [r["eval_loss"] for r in found] == [r["eval_loss"] for r in expected]


def test_samples_are_greedy_answers_of_the_trained_adapter(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    spec = replace(
        _spec(small_packs, replace(tiny, effective_batch_size=2), tmp_path / "a"),
        num_samples_generated=2,
    )
    _run_bank(tiny, small_packs, [spec], slots=2)
    expected = replace(spec, folder=str(tmp_path / "b"))
    run_trial(expected, lambda metrics: None, CPU)
    ours, theirs = (
        [json.loads(line) for line in Path(TrialPaths(s.folder).samples).read_text().splitlines()]
        for s in (spec, expected)
    )
    assert len(ours) == 2
    assert ours == theirs


def _spec(
    packs: Packs, trial: TrialConfig, folder: Path, ladder: tuple[int, ...] = ()
) -> TrialSpec:
    if trial.num_train_epochs == 1.0:
        trial = replace(trial, num_train_epochs=40 / packs.rows("train"))
    rows = packs.rows("train")
    plan = plan_trial(trial, rows, ladder=ladder, evals_per_trial=4, micro_batch_size=1)
    return TrialSpec(folder.name, trial, plan, packs.root, str(folder), None, 0)


def _engine(trial: TrialConfig, packs: Packs, specs: list[TrialSpec], slots: int) -> Engine:
    settings = BankSettings(
        slots=slots,
        micro_batch_size=1,
        lora_r=max(spec.config.lora_r for spec in specs),
        dropout=any(spec.config.lora_dropout for spec in specs),
        resident=True,
        activation_checkpointing=False,
        memory_gb=0.0,
    )
    return Engine(load_model(trial, CPU), trial, packs, settings, CPU)


def _run_bank(
    trial: TrialConfig, packs: Packs, specs: list[TrialSpec], slots: int, until: int | None = None
) -> list[Reports]:
    """The reports of trials that enter a bank together; stopped once all have reported `until`."""
    engine = _engine(trial, packs, specs, slots)
    reports: list[Reports] = [[] for _ in specs]
    for spec, found in zip(specs, reports, strict=True):
        engine.admit(engine.prepare(spec, found.append))
    while engine.advance():
        if until is not None and all(found[-1]["step"] >= until for found in reports):
            break
    return reports
