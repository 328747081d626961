"""Samples: what a trial is asked when, which answers are flagged, and a file that has each step
once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_folder import PACKS, RECORDED

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.plan.rungs import Rung
from sftray.plan.trial_plan import plan_trial
from sftray.storage.paths import TrialPaths
from sftray.trial.answer_flags import bad_answers, flags_of, repeats_itself
from sftray.trial.samples import (
    fixed_prompts,
    flagged,
    judged,
    keep,
    prompts_at,
    read_samples,
    tokens_at,
)
from sftray.trial.trial_report import Answers
from sftray.trial.trial_spec import TrialSpec

CIRCLES = "I am sorry. " * 10
TRIAL = TrialConfig("none", effective_batch_size=2)
PLAN = plan_trial(TRIAL, 20, ladder=(), evals_per_trial=2)
SPEC = TrialSpec("t0000", TRIAL, PLAN, "packs", "folder", None, num_samples_generated=1)
SCORED = {"metric": "sftray.metrics:exact_match", "num_metric_prompts": 3}


@pytest.mark.parametrize(
    ("answer", "ended", "flags"),
    [
        ("It is blue.", True, []),
        ("It is", False, ["no_end"]),
        ("", True, ["empty"]),
        (" \n", False, ["empty", "no_end"]),
        (CIRCLES, True, ["repeats"]),
        (CIRCLES, False, ["repeats", "no_end"]),
    ],
)
def test_an_answer_is_flagged_for_what_can_be_seen_of_it(
    answer: str, ended: bool, flags: list[str]
) -> None:
    assert flags_of(answer, ended=ended) == flags


def test_an_answer_that_goes_round_in_circles_is_told_from_one_that_does_not() -> None:
    assert repeats_itself("我很抱歉。" * 12)
    assert not repeats_itself("I am sorry. I am sorry.")  # short
    chats = json.loads((RECORDED / "base_samples.jsonl").read_text().split("\n")[0])["reference"]
    assert not repeats_itself(chats)


def test_bad_answers_are_counted_in_words_and_long_ones_are_not_bad() -> None:
    assert bad_answers([["repeats", "no_end"], ["empty"], ["repeats"]]) == (
        "1 of 3 are empty, 2 of 3 repeat themselves"
    )
    assert bad_answers([[], ["no_end"]]) == bad_answers([]) == ""


def test_an_answer_that_is_scored_is_as_long_as_its_reference_wants() -> None:
    held_out = [{**one, "reference_tokens": 200} for one in PACKS.manifest["sample_prompts"]]
    packs = Packs("packs/k", {"sample_prompts": held_out})  # type: ignore[typeddict-item]
    scored, end = replace(SPEC, **SCORED), PLAN.steps
    assert tokens_at(scored, packs, end) == 251
    assert tokens_at(scored, packs, PLAN.eval_steps[0]) == tokens_at(SPEC, packs, end) == 64


def test_a_trial_is_asked_at_its_end_or_at_each_evaluation_and_scored_at_its_end() -> None:
    first, end = PLAN.eval_steps[0], PLAN.steps
    asked = replace(SPEC, sample_prompts=("Who?",), sample_at="evaluations", **SCORED)
    assert prompts_at(SPEC, PACKS, first) == []
    assert [one["prompt"] for one in prompts_at(SPEC, PACKS, end)] == ["Held out?"]
    assert [one["prompt"] for one in prompts_at(asked, PACKS, first)] == ["Who?", "Held out?"]
    assert len(prompts_at(asked, PACKS, end)) == 4
    assert (
        prompts_at(replace(asked, num_samples_generated=0, sample_prompts=()), PACKS, first) == []
    )


def test_a_metric_is_of_held_out_prompts_alone_and_only_samples_are_kept() -> None:
    spec = replace(SPEC, sample_prompts=("Who?",), **SCORED)
    prompts = prompts_at(spec, PACKS, PLAN.steps)
    replies = [("", True), ("It is.", True), ("it is.", False), ("No.", True)]
    samples, answers = judged(spec, prompts, PLAN.steps, replies)
    assert [(one["prompt"], one["flags"]) for one in samples] == [
        ("Who?", ["empty"]), ("Held out?", []),
    ]  # fmt: skip
    assert answers == Answers([["empty"], []], 2 / 3)


def test_at_rungs_a_metric_is_of_as_many_answers_and_no_samples_are_kept() -> None:
    rung = Rung(8, 4, 0)
    spec = replace(SPEC, sample_prompts=("Who?",), metric_at="rungs", **SCORED)
    spec = replace(spec, plan=replace(PLAN, rungs=(rung,)))
    prompts = prompts_at(spec, PACKS, rung.step)
    assert len(prompts) == 3
    replies = [("It is.", True), ("No.", True), ("No.", True)]
    assert judged(spec, prompts, rung.step, replies) == ([], Answers([], 1 / 3))
    assert prompts_at(spec, PACKS, rung.step + 1) == []
    at_the_end = replace(spec, metric_at="end")
    assert prompts_at(at_the_end, PACKS, rung.step) == []


def test_each_step_is_there_once_however_often_a_trial_goes_on(tmp_path: Path) -> None:
    prompts = fixed_prompts(PACKS, ["Who?"], 1)
    for step, answer in ((4, "a"), (8, "b"), (12, "c"), (8, "again\u2028")):
        keep(str(tmp_path), flagged(prompts, step, [(answer, True)] * 2))
    keep(str(tmp_path), [])
    found = read_samples(TrialPaths(str(tmp_path)).samples)
    assert [(one["step"], one["answer"]) for one in found] == [
        (4, "a"), (4, "a"), (8, "again\u2028"), (8, "again\u2028"),
    ]  # fmt: skip
    assert found[0].keys() == {"step", "messages", "prompt", "reference", "answer", "flags"}


def test_a_damaged_last_line_is_left_out_and_any_other_is_an_error(tmp_path: Path) -> None:
    path = Path(TrialPaths(str(tmp_path)).samples)
    keep(str(tmp_path), flagged(fixed_prompts(PACKS, ["Wer?"], 0), 4, [("Über uns.", True)]))
    whole = path.read_bytes()
    for cut in (whole.index("Ü".encode()) + 1, len(whole) - 2):
        path.write_bytes(whole + whole[:cut])
        assert len(read_samples(str(path))) == 1
    path.write_bytes(whole[:-3] + b"\n" + whole)
    with pytest.raises(ValueError, match="Expecting"):
        read_samples(str(path))
