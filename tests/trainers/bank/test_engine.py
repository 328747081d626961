"""The bank against the `train` trainer: the same trials, the same losses; isolation; resume."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bank_models import save_tiny, settings_for, short_spec
from every_field import TYPES, save_every_field
from more_cases import shortened
from multimodal_bases import multimodal_base
from reported import into
from safetensors.torch import load_file
from transformers import LlamaConfig

from sftray.config import DataConfig, TrialConfig
from sftray.config.shares import at_shares
from sftray.data.packs.packs import Packs
from sftray.errors import ConfigError
from sftray.plan.effective_batch import Execution
from sftray.plan.layer_description import FAMILIES, Description, Family, describe
from sftray.storage.paths import TrialPaths
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.bank.greedy_answers import greedy_answers
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial import checkpoint as checkpoints
from sftray.trial.base_model import load_tokenizer
from sftray.trial.eval_loss import evaluate_adapter
from sftray.trial.generation import end_tokens, reply
from sftray.trial.samples import fixed_prompts, prompt_tokens, read_samples, tokens_at
from sftray.trial.trial_spec import TrialSpec
from sftray.winner.adapter_format import WEIGHTS

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
Reports = list[dict[str, Any]]


GEMMA3: dict[str, Any] = {
    "query_pre_attn_scalar": 24,
    "sliding_window": 24,
    "layer_types": ["sliding_attention", "full_attention"],
    "tie_word_embeddings": True,
}
"""Beside them: four norms a layer by 1 + weight, QK-norm, GeGLU, two rotary bases, a multiplier."""
HALF = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
BY_POSITION = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 64, "llama_4_scaling_beta": 0.3,
}  # fmt: skip
MULTIPLIERS = {"embedding": 3.0, "residual": 0.6, "attention": 0.2}
CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
BY_FAMILY: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("gemma", {}),
    ("gemma2", {**GEMMA3, **CAPS}),
    ("vaultgemma", {**GEMMA3, **CAPS}),
    ("cohere", {"logit_scale": 0.3}),
    ("cohere2", {"sliding_window": 24, "layer_types": GEMMA3["layer_types"]}),
    ("cwm", {"sliding_window": 24, "layer_types": GEMMA3["layer_types"]}),
    ("ernie4_5", {"use_bias": True}),
    ("helium", {}),
    ("glm", {}),
    ("phi3", {"rope_parameters": HALF, "sliding_window": 24}),
    (
        "granite",
        {f"{name}_multiplier": value for name, value in MULTIPLIERS.items()}
        | {"logits_scaling": 1.7},
    ),
    ("olmo3", {"sliding_window": 24, "layer_types": GEMMA3["layer_types"]}),
    ("olmo2", {}),
    ("exaone4", {"sliding_window": 24, "layer_types": GEMMA3["layer_types"]}),
    ("smollm3", {"no_rope_layers": [1, 0]}),
    ("mistral", {"sliding_window": 24}),
    ("ministral3", {"rope_parameters": BY_POSITION}),
    ("glm4", {}),
    ("seed_oss", {"attention_dropout": 0.0, "residual_dropout": 0.0}),
]


NOT_BY_TRAIN = {"original"}
"""What transformers computes of whole batches, and `test_decoder` compares document by document."""


def test_no_field_of_the_description_is_off_in_both_types() -> None:
    plain = describe(LlamaConfig(hidden_size=48, num_attention_heads=4).to_dict(), 12)
    names = [field.name for field in (*fields(Family), *fields(Description))]
    on = set()
    for kind, (config, _, family, settings) in TYPES.items():
        made = config(hidden_size=48, num_attention_heads=4, num_hidden_layers=2, **settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(FAMILIES, kind, family)
            found = describe(made.to_dict(), 12)
        for ours, off in ((found, plain), (family, plain.family)):
            on |= {name for name in names if getattr(ours, name, 0) != getattr(off, name, 0)}
    assert set(names) - on == NOT_BY_TRAIN


@pytest.mark.parametrize("kind", shortened(TYPES))
def test_with_every_field_on_four_trials_in_one_bank_have_the_losses_of_four_runs(
    kind: str, small_packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, kind, TYPES[kind][2])
    (tmp_path / "base").mkdir()
    _compare_with_train(save_every_field(tmp_path / "base", kind), small_packs, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "settings"), [("gemma3_text", GEMMA3), *BY_FAMILY])
def test_four_trials_in_one_bank_have_the_losses_of_four_runs_of_sfttrainer(
    kind: str, settings: dict[str, Any], small_packs: Packs, tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    _compare_with_train(save_tiny(tmp_path / "base", kind, **settings), small_packs, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["gemma3", "mistral3"])
def test_so_have_trials_of_the_language_model_of_a_larger_checkpoint(
    kind: str, small_packs: Packs, tmp_path: Path
) -> None:
    base = multimodal_base(tmp_path / "base", kind)
    trial = TrialConfig(str(base), base_precision="fp32", learning_rate=5e-3, lora_r=4)
    _compare_with_train(trial, small_packs, tmp_path)


def _compare_with_train(tiny: TrialConfig, small_packs: Packs, tmp_path: Path) -> None:
    """Four different trials: their reports, and what their adapters' weights are called."""
    rows = small_packs.rows("train")
    trials = [
        replace(tiny, learning_rate=2e-3, effective_batch_size=1, num_train_epochs=10 / rows),
        replace(tiny, effective_batch_size=2, lora_r=8, num_train_epochs=20 / rows),
        replace(tiny, weight_decay=0.3, effective_batch_size=2, num_train_epochs=20 / rows),
        replace(
            tiny,
            warmup_ratio=0.2,
            lora_r=3,
            min_lr_ratio=0.1,
            effective_batch_size=1,
            num_train_epochs=12 / rows,
        ),
    ]
    specs = [
        short_spec(small_packs, trial, tmp_path / "bank" / str(k), evals=1)
        for k, trial in enumerate(trials)
    ]
    assert [spec.plan.steps for spec in specs] == [10, 10, 10, 12]
    by_bank = _run_bank(tiny, small_packs, specs, slots=4)
    for spec, found in zip(specs, by_bank, strict=True):
        expected: Reports = []
        alone = replace(spec, folder=str(tmp_path / "alone" / spec.trial))
        run_trial(alone, into(expected), CPU)
        assert [r["step"] for r in found] == [r["step"] for r in expected]
        assert found[-1]["outcome"] == expected[-1]["outcome"] == "completed"
        for ours, theirs in zip(found, expected, strict=True):
            assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-4)
            kinds = zip(ours["eval_loss_by_kind"], theirs["eval_loss_by_kind"], strict=True)
            for (name, loss, count), (same, other, tokens) in kinds:
                assert (name, count, loss) == (same, tokens, pytest.approx(other, rel=1e-4))
            assert ours["tokens"] == theirs["tokens"]
            assert ours["supervised_tokens"] == theirs["supervised_tokens"]
            np.testing.assert_allclose(ours.get("curve", []), theirs.get("curve", []), rtol=2e-3)
        last = [TrialPaths(one.folder).checkpoint(found[-1]["step"]) for one in (spec, alone)]
        adapter, other = (load_file(Path(folder) / WEIGHTS) for folder in last)
        assert adapter.keys() == other.keys()


def test_trials_of_one_bank_adapt_different_modules(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    targets: list[Any] = ["all-linear", ("q_proj", "v_proj"), ("down_proj",)]
    trials = [replace(tiny, lora_target_modules=one, effective_batch_size=2) for one in targets]
    specs = [
        short_spec(small_packs, trial, tmp_path / "bank" / str(k)) for k, trial in enumerate(trials)
    ]
    by_bank = _run_bank(tiny, small_packs, specs, slots=3)
    for spec, found in zip(specs, by_bank, strict=True):
        expected: Reports = []
        alone = replace(spec, folder=str(tmp_path / "alone" / spec.trial))
        run_trial(alone, into(expected), CPU)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-4)
            np.testing.assert_allclose(ours.get("curve", []), theirs.get("curve", []), rtol=2e-3)
        assert found[0]["trained_parameters"] == expected[0]["trained_parameters"]
        last = found[-1]["step"]
        ours_at, theirs_at = (
            Path(TrialPaths(one.folder).checkpoint(last)) / WEIGHTS for one in (spec, alone)
        )
        assert load_file(ours_at).keys() == load_file(theirs_at).keys()
        again: Reports = []  # what the bank has written is read by another bank
        resumed = _engine(tiny, small_packs, specs, slots=1).prepare(spec, into(again))
        assert resumed.step == last
    narrow = settings_for(trials, slots=1)
    narrow = replace(narrow, lora_target_modules=("q_proj", "v_proj"))
    engine = Engine(load_model(tiny, CPU), tiny, small_packs, narrow, CPU)
    with pytest.raises(ConfigError, match="lora_target_modules all-linear in a bank without them"):
        engine.prepare(replace(specs[0], folder=str(tmp_path / "new")), into([]))


def test_shares_of_one_bank_have_the_losses_of_each_source_as_in_runs_of_sfttrainer(
    tiny: TrialConfig, mixed_packs: Packs, mixed_data: DataConfig, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2)
    specs = []
    for share in (0.0, 0.5):
        spec = short_spec(mixed_packs, trial, tmp_path / f"bank at {share}")
        mixture = at_shares(mixed_data.mixture, {"sums": share})
        specs.append(replace(spec, plan=replace(spec.plan, mixture=mixture)))
    by_bank, expected = _run_bank(tiny, mixed_packs, specs, slots=2), []
    for spec in specs:
        reports: Reports = []
        run_trial(replace(spec, folder=f"{spec.folder} alone"), into(reports), CPU)
        expected += reports
    assert by_bank[0][0]["eval_loss"] == by_bank[1][0]["eval_loss"]  # of the base
    assert by_bank[0][-1]["rows"] == by_bank[1][-1]["rows"]
    assert abs(by_bank[0][-1]["eval_loss"] / by_bank[1][-1]["eval_loss"] - 1) > 1e-3
    for ours, theirs in zip([*by_bank[0], *by_bank[1]], expected, strict=True):
        names, found_of, tokens = zip(*ours["eval_loss_by_source"], strict=True)
        assert names == ("chats", "sums")
        assert sum(tokens) == mixed_packs.manifest["splits"]["eval"]["supervised_tokens"]
        expected_of = [loss for _, loss, _ in theirs["eval_loss_by_source"]]
        assert found_of == pytest.approx(expected_of, rel=1e-4)
        chats, sums = found_of
        assert ours["eval_loss"] == pytest.approx(0.7 * chats + 0.3 * sums, rel=1e-9)
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-4)
        assert ours["tokens"] == theirs["tokens"]
        np.testing.assert_allclose(ours.get("curve", []), theirs.get("curve", []), rtol=2e-3)
    adapter = tmp_path / "adapter"
    newest = checkpoints.newest(TrialPaths(spec.folder), tmp_path / "scratch")
    checkpoints.export_weights(newest.folder, adapter)  # type: ignore[union-attr]
    rows, sources = mixed_packs.dataset("eval"), mixed_packs.eval_sources(mixed_data.mixture)
    last = by_bank[-1][-1]["eval_loss"]
    assert evaluate_adapter(adapter, trial, rows, sources) == pytest.approx(last, rel=1e-5)
    first, second = mixed_packs.source_rows("eval")
    halves = (rows.select(range(first)), rows.select(range(first, first + second)))
    apart = [evaluate_adapter(adapter, trial, half) for half in halves]
    of_sources = [loss for _, loss, _ in by_bank[-1][-1]["eval_loss_by_source"]]
    assert apart == pytest.approx(of_sources, rel=1e-5)


def test_a_checkpoint_of_the_bank_is_one_of_the_train_trainer(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    spec = short_spec(small_packs, replace(tiny, effective_batch_size=2), tmp_path / "bank")
    whole = _run_bank(tiny, small_packs, [spec], slots=1)[0]
    moved = replace(spec, folder=str(tmp_path / "moved"))
    middle = spec.plan.eval_steps[1]
    _run_bank(tiny, small_packs, [moved], slots=2, until=middle)
    assert checkpoints.newest(TrialPaths(moved.folder), tmp_path / "scratch").step == middle  # type: ignore[union-attr]
    rest: Reports = []
    run_trial(moved, into(rest), CPU)
    assert [report["step"] for report in rest if "resumed_from_step" in report] == [middle]
    assert rest[-1]["eval_loss"] == pytest.approx(whole[-1]["eval_loss"], rel=1e-4)


def test_a_trial_goes_on_in_another_slot_of_another_bank_with_the_same_losses(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2, lora_dropout=0.2)
    spec = short_spec(small_packs, trial, tmp_path / "whole")
    other = short_spec(small_packs, replace(trial, learning_rate=1e-2, seed=5), tmp_path / "other")
    whole = _run_bank(tiny, small_packs, [spec, other], slots=2)[0]
    cut = replace(spec, folder=str(tmp_path / "cut"))
    _run_bank(tiny, small_packs, [cut], slots=1, until=spec.plan.eval_steps[1])
    again = _run_bank(tiny, small_packs, [replace(other, folder=str(tmp_path / "o")), cut], slots=3)
    rest = again[1]
    again_at = [report["step"] for report in rest if "resumed_from_step" in report]
    assert again_at == [spec.plan.eval_steps[1]]
    ends = {report["step"]: report["eval_loss"] for report in whole}
    since = max((rung.step for rung in spec.plan.rungs if rung.step < again_at[0]), default=-1)
    assert {report["step"] for report in rest} == {step for step in ends if step > since}
    for report in rest:
        assert report["eval_loss"] == pytest.approx(ends[report["step"]], abs=1e-6)


def test_trials_go_on_from_where_they_were_saved_between_two_evaluations(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2, lora_dropout=0.2)
    spec = short_spec(small_packs, trial, tmp_path / "whole")
    whole = _run_bank(tiny, small_packs, [spec], slots=2)[0]
    cut = replace(spec, folder=str(tmp_path / "cut"))
    engine = _engine(tiny, small_packs, [cut], 2)
    reports: Reports = []
    engine.admit(engine.prepare(cut, into(reports)))
    between = spec.plan.eval_steps[1] + 1
    assert between not in spec.plan.eval_steps
    while checkpoint_step(cut, tmp_path) != between:
        assert engine.advance()
        engine.save()
    told = len(reports)
    reports += _run_bank(tiny, small_packs, [cut], slots=3)[0]
    assert reports[told]["step"] <= spec.plan.eval_steps[1]
    assert any(report.get("resumed_from_step") == between for report in reports)
    ends = {report["step"]: report["eval_loss"] for report in whole}
    curves = {step: rest for r in whole for step, *rest in r.get("curve", [])}
    for report in reports:
        assert report["eval_loss"] == pytest.approx(ends[report["step"]], abs=1e-6)
        for step, *rest in report.get("curve", []):
            assert rest == pytest.approx(curves[step], abs=1e-6)


def checkpoint_step(spec: TrialSpec, scratch: Path) -> int:
    found = checkpoints.newest(TrialPaths(spec.folder), scratch / "scratch")
    return -1 if found is None else found.step


def test_a_trial_that_blows_up_leaves_its_neighbours_bit_identical(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    good = short_spec(small_packs, replace(tiny, effective_batch_size=2), tmp_path / "good")
    wild = replace(tiny, effective_batch_size=2, learning_rate=1e30, warmup_ratio=0.0)
    bad = short_spec(small_packs, wild, tmp_path / "bad")
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
    waiting = short_spec(small_packs, trial, tmp_path / "waiting", ladder=(10,))
    free = short_spec(small_packs, trial, tmp_path / "free")
    engine = _engine(tiny, small_packs, [waiting, free], slots=2)
    reports: list[Reports] = [[], []]
    slots = [engine.prepare(s, into(r)) for s, r in zip((waiting, free), reports, strict=True)]
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


def test_trials_that_come_to_a_rung_together_know_each_others_losses(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2)
    specs = [
        short_spec(small_packs, replace(trial, learning_rate=rate), tmp_path / name, ladder=(10,))
        for name, rate in (("slow", 1e-4), ("fast", 5e-3))
    ]
    found = _run_bank(tiny, small_packs, specs, slots=3)
    slow, fast = (reports[-1] for reports in found)
    assert slow["step"] == fast["step"] == specs[0].plan.rungs[0].step
    assert slow["rung_peers"] == [["fast", fast["eval_loss"]]]
    assert fast["rung_peers"] == [["slow", slow["eval_loss"]]]


def test_trials_at_a_rung_are_scored_there_and_one_beside_them_is_not(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2)
    scored = {"metric": "sftray.metrics:exact_match", "metric_at": "rungs", "judges_metric": True}
    specs = [
        replace(
            short_spec(small_packs, trial, tmp_path / name, ladder=ladder),
            num_metric_prompts=2, num_samples_generated=1, sample_at="evaluations", **scored,
        )
        for name, ladder in (("one", (10,)), ("other", (10,)), ("free", ()))
    ]  # fmt: skip
    found = _run_bank(tiny, small_packs, specs, slots=3)
    one, other, free = found
    assert one[-1]["step"] == other[-1]["step"] == specs[0].plan.rungs[0].step
    assert one[-1]["rung_peers"] == [["other", other[-1]["metric"]]]
    assert len(one[-1]["answer_flags"]) == 1
    assert [report["step"] for report in free if "metric" in report] == [specs[2].plan.steps]


def test_a_dropped_trial_frees_its_slot_for_one_that_starts_fresh(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    spec = short_spec(small_packs, replace(tiny, effective_batch_size=2), tmp_path / "expected")
    expected = _run_bank(tiny, small_packs, [spec], slots=1)[0]
    engine = _engine(tiny, small_packs, [spec], slots=1)
    dropped: Reports = []
    first = engine.prepare(replace(spec, folder=str(tmp_path / "dropped")), into(dropped))
    engine.admit(first)
    while len(dropped) < 2:
        engine.advance()
    engine.drop(first)
    assert engine.free == 1
    assert not engine.advance()
    found: Reports = []
    engine.admit(engine.prepare(replace(spec, folder=str(tmp_path / "found")), into(found)))
    while engine.advance():
        pass
    assert [r["eval_loss"] for r in found] == [r["eval_loss"] for r in expected]


def test_a_trial_that_leaves_between_two_steps_leaves_no_loss_behind(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    spec = short_spec(small_packs, replace(tiny, effective_batch_size=4), tmp_path / "expected")
    expected = _run_bank(tiny, small_packs, [spec], slots=1)[0]
    engine = _engine(tiny, small_packs, [spec], slots=1)
    leaving = replace(spec, folder=str(tmp_path / "leaving"))
    first = engine.prepare(leaving, lambda report: None)
    engine.admit(first)
    engine.advance()
    assert first.micro_steps == 1  # of four
    engine.drop(first)
    found: Reports = []
    engine.admit(engine.prepare(replace(spec, folder=str(tmp_path / "found")), into(found)))
    while engine.advance():
        pass
    assert [r.get("curve") for r in found] == [r.get("curve") for r in expected]


def test_a_trial_that_was_cut_off_at_a_rung_waits_there_again(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2)
    spec = short_spec(small_packs, trial, tmp_path / "cut", ladder=(10,))
    _run_bank(tiny, small_packs, [spec], slots=1)  # until it waits
    engine = _engine(tiny, small_packs, [spec], slots=1)
    found: Reports = []
    slot = engine.prepare(spec, into(found))
    engine.admit(slot)
    assert not engine.advance()
    assert [report["step"] for report in found] == [0, spec.plan.rungs[0].step]
    engine.go_on(slot)
    while engine.advance():
        pass
    assert found[-1]["outcome"] == "completed"


def test_what_the_bank_was_not_built_for_is_refused(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    spec = short_spec(small_packs, replace(tiny, effective_batch_size=2), tmp_path / "trial")
    engine = _engine(tiny, small_packs, [spec], slots=1)
    for changed, message in (
        (replace(spec, plan=replace(spec.plan, execution=Execution(2))), "a micro-batch of 2 rows"),
        (replace(spec, config=replace(spec.config, lora_r=16)), "lora_r 16 in a bank of at most 8"),
        (replace(spec, config=replace(spec.config, lora_dropout=0.1)), "built without"),
    ):
        with pytest.raises(ConfigError, match=message):
            engine.prepare(changed, lambda report: None)


def test_samples_are_greedy_answers_of_the_trained_adapters_at_every_evaluation(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    short = 12 / small_packs.rows("train")
    trial = replace(tiny, effective_batch_size=1, num_train_epochs=short)
    specs = [
        replace(
            short_spec(small_packs, one, tmp_path / "bank" / str(number)),
            num_samples_generated=1,
            sample_prompts=("Who are you?",),
            sample_at="evaluations",
        )
        for number, one in enumerate([trial, replace(trial, learning_rate=1e-2)])
    ]
    _run_bank(tiny, small_packs, specs, slots=3, until=specs[0].plan.eval_steps[1])
    resumed = _run_bank(tiny, small_packs, specs, slots=2)
    first, second = (read_samples(TrialPaths(spec.folder).samples) for spec in specs)
    for samples, reports in ((first, resumed[0]), (second, resumed[1])):
        assert [one["step"] for one in samples] == np.repeat(specs[0].plan.eval_steps, 2).tolist()
        assert reports[-1]["answer_flags"] == [one["flags"] for one in samples[-2:]]
    alone = replace(specs[1], folder=str(tmp_path / "alone"))
    run_trial(alone, lambda report: None, CPU)
    assert read_samples(TrialPaths(alone.folder).samples) == second != first


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param("llama", {}, marks=pytest.mark.exhaustive),
        pytest.param("gemma2", {**GEMMA3, **CAPS}, marks=pytest.mark.exhaustive),
        ("gemma3_text", GEMMA3),
    ],
)
def test_long_answers_of_many_prompts_at_once_are_those_of_transformers_generate(
    kind: str, settings: dict[str, Any], small_packs: Packs, tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    tiny = save_tiny(tmp_path / "base", kind, **settings)
    most = 100  # beyond the 64 tokens of answers that nothing scores
    held_out = [{**one, "reference_tokens": 79} for one in small_packs.manifest["sample_prompts"]]
    packs = Packs(small_packs.root, {**small_packs.manifest, "sample_prompts": held_out})
    tiny = replace(tiny, effective_batch_size=2)
    spec = short_spec(packs, tiny, tmp_path)
    spec = replace(spec, metric="sftray.metrics:last_number", num_metric_prompts=8)
    assert tokens_at(spec, packs, spec.plan.steps) == most
    engine = _engine(tiny, packs, [spec], 2)
    tokenizer = load_tokenizer(tiny, packs.chat_template)
    asked = prompt_tokens(packs, fixed_prompts(packs, (), 8))
    nothing = torch.zeros_like(engine._adapters.work[:1])
    model = load_model(tiny, CPU)
    ends = end_tokens(model, packs.end_of_turn)
    (found,) = greedy_answers(engine._decoder, nothing, tokenizer, asked, ends, most)
    expected = [reply(model, tokenizer, prompt, packs.end_of_turn, most) for prompt in asked]
    assert found == expected
    assert max(len(tokenizer(text)["input_ids"]) for text, _ in found) > 64


def _engine(trial: TrialConfig, packs: Packs, specs: list[TrialSpec], slots: int) -> Engine:
    settings = settings_for([spec.config for spec in specs], slots)
    return Engine(load_model(trial, CPU), trial, packs, settings, CPU)


def _run_bank(
    trial: TrialConfig, packs: Packs, specs: list[TrialSpec], slots: int, until: int | None = None
) -> list[Reports]:
    """The reports of trials that enter a bank together; stopped once all have reported `until`."""
    engine = _engine(trial, packs, specs, slots)
    reports: list[Reports] = [[] for _ in specs]
    for spec, found in zip(specs, reports, strict=True):
        engine.admit(engine.prepare(spec, into(found)))
    while engine.advance():
        if until is not None and all(found[-1]["step"] >= until for found in reports):
            break
    return reports
