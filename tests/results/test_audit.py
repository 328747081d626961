"""`sftray audit`: what the search decided and drew, made again, and what is planted is found."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_folder import RECORDED
from fake_trials import ROWS, Kept, make_search, make_sweep, run

from sftray.config import choice, loguniform
from sftray.results.audit import Audit, audit, audited, cutoff_of
from sftray.results.draws import same_point
from sftray.results.sweep_folder import fitted_sweep, read_record
from sftray.storage.journal import Journal, read_events
from sftray.storage.paths import SweepPaths

Events = list[dict[str, Any]]
PATHS = SweepPaths(str(RECORDED))
BY_METRIC = {
    "objective": "metric", "metric": "sftray.metrics:exact_match", "metric_at": "rungs",
}  # fmt: skip
SWEEPS: dict[str, dict[str, Any]] = {
    "ASHA and TPE": {},
    "40 trials": {"num_trials": 40},
    "no scheduler": {"scheduler": "none"},
    "patience": {"early_stopping_patience": 2},
    "the highest metric": {**BY_METRIC},
    "the lowest metric": {**BY_METRIC, "metric_is_better": "lower"},
    "confirmed": {"confirm_top": 2, "confirm_seeds": 3},
    "a small space, drawn out": {
        "search_space": {"lora_r": choice([4, 8]), "effective_batch_size": choice([2, 4])},
        "num_trials": 9,
    },
    "lists and labels": {
        "search_space": {
            "lora_target_modules": choice(["all-linear", ["q_proj", "v_proj"]]),
            "learning_rate": loguniform(1e-5, 1e-1),
        },
    },
}


def journal_of(folder: Path, sweep: Any, *, order: int, kept: Kept | None = None) -> Events:
    """The events of a sweep of formulas that an undisturbed search has run, or a killed one."""
    with Journal(str(folder / "journal.jsonl")) as journal:
        start = {"event": "sweep_started", "trial": None, "uid": "u", "first": []}
        journal.append(start)  # type: ignore[arg-type]
        if kept:
            with pytest.raises(InterruptedError):
                run(sweep, make_search(sweep, journal), order=order, reports_left=20, kept=kept)
        search = make_search(sweep, journal)
        run(sweep, search, order=order, kept=kept)
        if search.confirm():
            run(sweep, search, order=order, kept=kept)
        journal.append({"event": "sweep_ended", "trial": None})  # type: ignore[arg-type]
        return journal.events()  # type: ignore[return-value]


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("killed", [False, True])
def test_all_that_a_search_does_is_made_again(name: str, killed: bool, tmp_path: Path) -> None:
    sweep = make_sweep(**SWEEPS[name])
    kept = Kept(tmp_path) if killed else None
    found = audited(sweep, ROWS, journal_of(tmp_path, sweep, order=3, kept=kept))  # type: ignore[arg-type]
    assert found.differences == ()
    assert found.starts == min(10, max(4, sweep.num_trials // 4))
    assert found.draws == (0 if "small" in name else sweep.num_trials - found.starts)


def test_a_sweep_that_was_given_more_trials_is_as_it_was(tmp_path: Path) -> None:
    few, many = make_sweep(num_trials=16), make_sweep(num_trials=44)
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        journal.append({"event": "sweep_started", "trial": None, "first": []})  # type: ignore[typeddict-item]
        for sweep in (few, many):
            run(sweep, make_search(sweep, journal))
        found = audited(few, ROWS, journal.events())  # sweep.json has the first configuration
    assert (found.draws, found.differences) == (40, ())


def test_cutoffs_are_numpys_quantiles() -> None:
    rng = random.Random(0)
    for size in range(2, 40):
        losses = [rng.gauss(3, 1) for _ in range(size)]
        for eta in (2, 3, 4):
            theirs = max(np.quantile(losses, 1 / eta), sorted(losses)[1])
            assert cutoff_of(losses, eta) == pytest.approx(theirs, rel=1e-14)
    assert cutoff_of([1.0], 3) is None


# the recorded sweep


def recorded_events() -> Events:
    return read_events(PATHS.journal)  # type: ignore[return-value]


def audit_of(events: Events) -> Audit:
    record = read_record(PATHS.sweep)
    return audited(fitted_sweep(record), record["data"]["train"]["rows"], events)  # type: ignore[arg-type]


def test_a_draw_on_another_cpu_may_differ_in_its_last_bits_and_no_more() -> None:
    point = {"learning_rate": 0.19117836228004148, "lora_target_modules": ["q_proj"], "seed": 3}
    assert same_point(point, {**point, "learning_rate": 0.1911783622800416})
    assert not same_point(point, {**point, "learning_rate": 0.19117837})
    assert not same_point(point, {**point, "seed": 4})
    assert not same_point(point, {**point, "lora_r": 8})


def test_the_recorded_sweep_passes() -> None:
    found = audit(str(RECORDED))
    assert found.differences == ()
    assert found.decisions > 15
    assert found.draws == 12
    assert f"ASHA's decisions: {found.decisions} of {found.decisions}" in str(found)
    assert "TPE's draws: 12 of 12" in str(found)
    assert "no differences" in str(found)


def test_another_processors_last_digit_is_no_difference() -> None:
    events = copy.deepcopy(recorded_events())
    point = events[at(events, "trial_suggested", 9)]["point"]
    point["learning_rate"] = math.nextafter(point["learning_rate"], 1)
    assert audit_of(events).differences == ()


def at(events: Events, name: str, number: int = 0, **values: Any) -> int:
    """The place of an event."""
    found = [place for place, event in enumerate(events) if event["event"] == name
             and all(event.get(key) == value for key, value in values.items())]  # fmt: skip
    return found[number]


def the_decision_turned(events: Events) -> None:
    event = events[at(events, "decision", 3)]
    event["decision"] = "continue" if event["decision"] == "stop" else "stop"


def the_cutoff_moved(events: Events) -> None:
    events[at(events, "decision", 5)]["cutoff"] += 1e-4


def the_point_moved(events: Events) -> None:
    events[at(events, "trial_suggested", 9)]["point"]["learning_rate"] *= 1.001


def the_first_point_moved(events: Events) -> None:
    events[at(events, "trial_suggested", 1)]["point"]["learning_rate"] *= 1.001


def the_evaluation_dropped(events: Events) -> None:
    place = at(events, "decision", 4)
    trial, step = events[place]["trial"], events[place]["step"]
    del events[at(events, "result", trial=trial, step=step)]


def the_decision_dropped(events: Events) -> None:
    del events[at(events, "decision", decision="continue")]


def the_end_dropped(events: Events) -> None:
    del events[at(events, "trial_ended", 2, outcome="pruned")]


def the_trial_dropped(events: Events) -> None:
    events[:] = [event for event in events if event["trial"] != "t0006"]


def the_loss_lowered(events: Events) -> None:
    place = at(events, "decision", decision="stop")
    trial, step = events[place]["trial"], events[place]["step"]
    events[at(events, "result", trial=trial, step=step)]["metrics"]["eval_loss"] -= 2.0


def the_outcome_changed(events: Events) -> None:
    events[at(events, "trial_ended", outcome="pruned")]["outcome"] = "completed"


def two_decisions_swapped(events: Events) -> None:
    first, second = at(events, "decision", 1), at(events, "decision", 7)
    events[first], events[second] = events[second], events[first]


def the_event_doubled(events: Events) -> None:
    events.insert(60, copy.deepcopy(events[50]))


def the_seed_changed(events: Events) -> None:
    events[at(events, "trial_suggested", -1)]["point"]["seed"] += 7


def the_rows_changed(events: Events) -> None:
    events[at(events, "result", 12)]["metrics"]["rows"] += 1


PLANTED = (
    the_decision_turned, the_cutoff_moved, the_point_moved, the_first_point_moved,
    the_evaluation_dropped, the_decision_dropped, the_end_dropped, the_trial_dropped,
    the_loss_lowered, the_outcome_changed, two_decisions_swapped, the_event_doubled,
    the_seed_changed, the_rows_changed,
)  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_what_is_planted_in_the_recorded_journal_is_found(plant: Callable[[Events], None]) -> None:
    events = copy.deepcopy(recorded_events())
    plant(events)
    assert audit_of(events).differences, plant.__name__


def test_the_command_fails_where_something_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sftray.cli.main import main

    (tmp_path / "sweep.json").write_text((RECORDED / "sweep.json").read_text())
    lines = (RECORDED / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(lines))
    with pytest.raises(SystemExit) as passed:
        main(["audit", str(tmp_path)])
    assert passed.value.code == 0
    turned = [line.replace('"decision": "stop"', '"decision": "continue"', 1) for line in lines]
    (tmp_path / "journal.jsonl").write_text("".join(turned))
    with pytest.raises(SystemExit) as failed:
        main(["audit", str(tmp_path)])
    assert failed.value.code == 1
    assert "must not continue" in capsys.readouterr().out
