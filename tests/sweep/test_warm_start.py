from dataclasses import replace
from typing import Any

import pytest
from fake_trials import make_sweep

from sftray.config import SweepConfig, choice, loguniform
from sftray.config.config_json import to_json
from sftray.results import Results
from sftray.results.records import TrialRecord
from sftray.sweep.warm_start import learn_from


def made_from(packs: str, base: str = "b0") -> dict[str, str]:
    return {"trial.model": f"{base} (weights)", "packs": packs}


def finished(sweep: SweepConfig, identities: dict[str, str], *trials: TrialRecord) -> Results:
    config = to_json(sweep)
    spaces = config["search_space"]
    record = {"config": config, "search_space": spaces, "identities": identities}
    return Results("old", record, list(trials), {})


def ended(name: str, point: dict[str, Any], loss: float, outcome: str = "completed") -> TrialRecord:
    return TrialRecord(name, point, [{"step": 3, "eval_loss": loss}], outcome=outcome)


SPACE = {"learning_rate": loguniform(1e-4, 1e-2), "lora_r": choice([4, 8])}
SAME = made_from("a")
RATE = {"learning_rate": loguniform(1e-4, 1e-2)}


def test_what_this_sweep_would_run_alike_is_taken_over() -> None:
    new = make_sweep(search_space=SPACE)
    theirs = replace(new.trial, lora_r=8, num_workers=2)
    old = make_sweep(search_space=RATE, trial=theirs)
    same, outside = {"learning_rate": 1e-3}, {"learning_rate": 0.5}
    found = finished(
        old,
        made_from("abc"),
        ended("t0000", same, 1.0),
        ended("t0001", {"learning_rate": 2e-3}, 1.1, "pruned"),
        ended("t0002", outside, 0.9),
        ended("t0003", {"learning_rate": 4e-3}, 9.0, "diverged"),
    )
    known, first = learn_from(new, made_from("abc"), [found], pytest.fail)
    assert [(one.point, one.outcome) for one in known] == [
        ({"learning_rate": 1e-3, "lora_r": 8}, "completed"),
        ({"learning_rate": 4e-3, "lora_r": 8}, "diverged"),
    ]
    assert known[0].folder == "old/trials/t0000"
    assert first == []


def test_of_a_sweep_on_other_data_only_the_best_points_are_taken() -> None:
    sweep = make_sweep(search_space=RATE)
    rates = [1e-3, 2e-3, 3e-3, 4e-3]
    trials = [ended(f"t{n}", {"learning_rate": rate}, 5 - n) for n, rate in enumerate(rates)]
    lines: list[str] = []
    earlier = finished(sweep, made_from("xyz"), *trials)
    known, first = learn_from(sweep, made_from("abc"), [earlier], lines.append)
    assert lines == ["warm_start: old differs (packs was xyz, is abc): only its points count"]
    assert known == []
    assert [point["learning_rate"] for point in first] == [4e-3, 3e-3, 2e-3]


def test_another_seed_or_schedule_is_another_trial() -> None:
    sweep = make_sweep(search_space=RATE)
    trial = ended("t0", {"learning_rate": 1e-3}, 1.0)
    for change in ({"seed": 1}, {"warmup_ratio": 0.2}, {"num_train_epochs": 2.0}):
        other = replace(sweep, trial=replace(sweep.trial, **change))
        known, first = learn_from(sweep, SAME, [finished(other, SAME, trial)], pytest.fail)
        assert known == []
        assert first == [{"learning_rate": 1e-3}]


def test_replaced_weights_under_the_same_name_are_another_base() -> None:
    sweep = make_sweep(search_space=RATE)
    trial = ended("t0", {"learning_rate": 1e-3}, 1.0)
    lines: list[str] = []
    old = finished(sweep, made_from("a", base="b1"), trial)
    known, first = learn_from(sweep, SAME, [old], lines.append)
    assert (known, first) == ([], [{"learning_rate": 1e-3}])
    assert "trial.model was b1 (weights), is b0 (weights)" in lines[0]
    moved = replace(sweep, trial=replace(sweep.trial, model="elsewhere"))
    known, _ = learn_from(moved, SAME, [finished(sweep, SAME, trial)], pytest.fail)
    assert len(known) == 1
