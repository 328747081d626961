"""A trial's reports, its gate at a rung and the clock for a hang, without waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_trials import ROWS, make_search, make_sweep

from sftray.config import choice
from sftray.errors import WorkersError
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.storage.journal import Journal
from sftray.storage.paths import SweepPaths
from sftray.trainers.report_channel import ReportChannel, SignsOfLife, tune_step
from sftray.trainers.runner import TrialSpecs
from sftray.trial.trial_report import Answers, Report

FIRST, RUNG, LAST = Report(message="first"), Report(waits=True), Report(outcome="completed")


def channel(trainer: SignsOfLife | None = None) -> ReportChannel:
    life = trainer or SignsOfLife(60.0, lambda: 0.0)
    return ReportChannel(life, lambda silent: WorkersError(f"hangs: {silent:g} s"), 0.0)


def test_reports_come_in_order_each_once() -> None:
    one = channel()
    assert [one.put(report) for report in (FIRST, RUNG, LAST)] == [True] * 3
    assert [one.next_report() for _ in range(4)] == [FIRST, RUNG, LAST, None]


def test_a_rung_is_decided_by_going_on_after_its_report_and_by_nothing_else() -> None:
    one = channel()
    assert one.decided() is True  # there is no gate before a rung
    one.put(RUNG)
    assert not one.go_on()  # the report is still on its way
    assert one.decided() is None
    assert one.next_report() == RUNG
    assert one.next_report() is None
    assert one.decided() is None
    assert one.go_on()
    assert one.decided() is True


def test_a_dropped_trial_continues_from_no_rung_and_its_reports_are_not_wanted() -> None:
    one = channel()
    one.put(RUNG)
    one.drop()
    assert one.decided() is False
    assert one.put(LAST) is False
    assert [one.next_report() for _ in range(2)] == [RUNG, None]


def test_silence_is_a_hang_only_of_who_is_at_work_and_behind_what_was_reported() -> None:
    now = 0.0
    trainer = SignsOfLife(60.0, lambda: now)
    one = channel(trainer)
    now = 1000.0
    assert one.next_report() is None  # nobody has begun
    trainer.alive()
    one.put(FIRST)
    now += 61
    assert one.next_report() == FIRST
    with pytest.raises(WorkersError, match="hangs: 61 s"):
        one.next_report()
    trainer.rest()
    assert one.next_report() is None


def test_a_client_gets_what_has_broken_before_any_report() -> None:
    one = channel()
    one.put(FIRST)
    one.fail(WorkersError("no such resource"))
    with pytest.raises(WorkersError, match="no such resource"):
        one.next_report()


def test_tune_ends_a_trial_in_the_step_after_its_outcome_was_reported() -> None:
    last, values = tune_step(FIRST, lambda: LAST)
    assert (last, values) == (LAST, {"outcome": "completed", "message": ""})
    last, values = tune_step(last, lambda: FIRST)
    assert (last, values["done"]) == (LAST, True)


def test_tune_gets_a_report_as_one_flat_dictionary() -> None:
    report = Report(message="m", interrupted="failed", peers=[("t0001", 0.5)])
    assert report.values() == {
        "interrupted": "failed", "message": "m", "rung_peers": [["t0001", 0.5]]
    }  # fmt: skip
    answered = Report(outcome="completed", answers=Answers([["empty"]], 0.5))
    assert answered.measured() == {"answer_flags": [["empty"]], "metric": 0.5}


@pytest.mark.parametrize(("precisions", "known"), [(1, 2.5), (2, None)])
def test_the_base_loss_travels_with_the_next_trials_spec(
    tmp_path: Path, precisions: int, known: float | None
) -> None:
    sweep = make_sweep()
    if precisions == 2:  # another base is another loss
        other = {"base_precision": choice(["bf16", "fp32"])}
        sweep = make_sweep(search_space={**sweep.search_space, **other})
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        search = make_search(sweep, journal)
        first = search.suggest()
        assert first is not None
        assert search.base_eval_loss() is None
        search.record(first.trial, {"step": 0, "eval_loss": 2.5})  # type: ignore[typeddict-item]
        second = search.suggest()
        assert second is not None
        loss = search.base_eval_loss()
    specs = TrialSpecs(
        sweep, SweepPaths(str(tmp_path)), "packs", planner(sweep, ROWS, execution=ONE_ROW)
    )
    config: Any = {"trial": second.trial, "point": second.point, "base_eval_loss": loss}
    spec, repetition = (specs.of({**config, "judged": judged}) for judged in (True, False))
    assert spec.base_eval_loss == known
    assert spec.plan.rungs
    assert not repetition.plan.rungs  # nor is there a branch
    assert repetition.plan.eval_steps == spec.plan.eval_steps
