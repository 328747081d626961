"""The arithmetic of a sweep: nothing here needs a model."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from fake_trials import TRIAL, make_sweep
from hypothesis import given
from hypothesis import strategies as st

from sftray.config import SweepConfig, choice, fitting, loguniform, randint, uniform
from sftray.config.points import field_values
from sftray.errors import ConfigError
from sftray.plan.effective_batch import Execution, split_batch
from sftray.plan.rungs import rung_ladders
from sftray.plan.trial_plan import (
    MIN_STEPS,
    TrialPlan,
    learning_rate,
    plan_trial,
    planner,
    resolve_batch_sizes,
)


def plan(sweep: SweepConfig, rows: int, **point: Any) -> TrialPlan:
    return planner(sweep, rows, execution=Execution(1))(sweep.trial.at(point))


@given(
    share=st.integers(1, 512),
    workers=st.integers(1, 16),
    wanted=st.integers(1, 600),
)
def test_effective_batch_is_always_micro_times_accumulation_times_workers(
    share: int, workers: int, wanted: int
) -> None:
    trial = replace(TRIAL, effective_batch_size=share * workers, num_workers=workers)
    micro, accumulation = split_batch(trial, wanted)
    assert micro * accumulation * workers == trial.effective_batch_size
    assert micro <= wanted


@given(
    rows=st.integers(20, 5000),
    epochs=st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0]),
    batch=st.integers(1, 64),
    warmup=st.floats(0.0, 0.5),
    evals=st.integers(1, 12),
)
def test_a_plan_agrees_with_itself(
    rows: int, epochs: float, batch: int, warmup: float, evals: int
) -> None:
    sweep = make_sweep(
        trial=replace(TRIAL, num_train_epochs=epochs, warmup_ratio=warmup),
        search_space={"effective_batch_size": choice([1, batch] if batch > 1 else [1])},
        evals_per_trial=evals,
    )
    try:
        planned = plan(sweep, rows, effective_batch_size=batch)
    except ConfigError:
        assert round(epochs * rows) // batch < MIN_STEPS
        return
    assert planned.steps >= MIN_STEPS
    assert planned.rows == planned.steps * batch
    assert planned.rows + planned.rows_dropped == round(epochs * rows)
    assert 0 <= planned.rows_dropped < batch
    assert planned.warmup_steps == math.ceil(warmup * planned.steps)
    assert planned.eval_steps[-1] == planned.steps
    assert {rung.step for rung in planned.rungs} <= set(planned.eval_steps)
    assert list(planned.eval_steps) == sorted(set(planned.eval_steps))
    for rung in planned.rungs:
        assert rung.step * batch - rung.rows == rung.overshoot
        assert 0 <= rung.overshoot < batch
        assert rung.step < planned.steps  # nobody is stopped at the end


def test_a_ladder_of_multiples_of_the_batch_sizes_has_no_overshoot() -> None:
    sweep = make_sweep(search_space={"effective_batch_size": choice([4, 6, 8])})
    (ladder,) = rung_ladders(sweep, 1000).values()
    assert ladder == (120, 336)  # 111 and 333, to the next multiple of 24
    for batch in (4, 6, 8):
        planned = plan(sweep, 1000, effective_batch_size=batch)
        assert [rung.overshoot for rung in planned.rungs] == [0, 0]
        assert [rung.step * batch for rung in planned.rungs] == list(ladder)


def test_overshoot_is_recorded_where_batch_sizes_do_not_fit_the_ladder() -> None:
    sweep = make_sweep(search_space={"effective_batch_size": choice([7, 11, 13])})
    planned = plan(sweep, 1000, effective_batch_size=13)
    assert [(r.rows, r.step, r.overshoot) for r in planned.rungs] == [(111, 9, 6), (333, 26, 5)]


def test_rungs_are_shares_of_the_budget_with_and_without_a_scheduler() -> None:
    sweep = make_sweep(search_space={"learning_rate": loguniform(1e-5, 1e-3)}, rungs=(0.1, 0.5))
    for scheduler in ("asha", "none"):
        # not before 3 steps of 16 rows after a warm-up of one
        assert rung_ladders(replace(sweep, scheduler=scheduler), 200) == {1: (64, 112)}
    assert rung_ladders(replace(sweep, rungs=()), 200) == {1: ()}


def test_a_rung_passes_by_a_trial_that_has_not_had_its_grace_steps_at_full_rate() -> None:
    space = {"effective_batch_size": choice([1, 2, 5])}
    sweep = make_sweep(
        trial=replace(TRIAL, warmup_ratio=0.05),
        search_space=space,
        rungs=(0.1, 0.4),
        grace_steps=20,
    )
    judged = {
        batch: [r.rows for r in plan(sweep, 400, effective_batch_size=batch).rungs]
        for batch in (1, 2, 5)
    }
    # 40 rows are 40 steps of which 20 are warm-up, 20 of which 10 are, and 8
    assert judged == {1: [40, 160], 2: [160], 5: [160]}
    late = replace(sweep, grace_steps=29)
    assert plan(late, 400, effective_batch_size=5).rungs == ()


def test_without_a_scheduler_a_trial_is_evaluated_at_the_rungs_and_judged_nowhere() -> None:
    plans = [
        plan_trial(TRIAL, 400, ladder=(40, 120), evals_per_trial=1, judged=judged)
        for judged in (True, False)
    ]
    assert plans[0].eval_steps == plans[1].eval_steps
    assert {math.ceil(rows / TRIAL.effective_batch_size) for rows in (120,)} <= {
        *plans[1].eval_steps
    }
    assert plans[0].rungs
    assert not plans[1].rungs


def test_trials_of_different_epochs_are_in_brackets_of_their_own() -> None:
    sweep = make_sweep(search_space={"num_train_epochs": choice([0.5, 1, 2])})
    trial = replace(TRIAL, effective_batch_size=4)
    sweep = replace(sweep, trial=trial)
    plans = {epochs: plan(sweep, 480, num_train_epochs=epochs) for epochs in (0.5, 1, 2)}
    assert [p.bracket for p in plans.values()] == ["0.5 epochs", "1 epochs", "2 epochs"]
    rungs = {epochs: [r.rows for r in p.rungs] for epochs, p in plans.items()}
    assert rungs == {0.5: [28, 80], 1: [56, 160], 2: [108, 320]}  # of each one's own budget


def test_a_continuous_range_of_epochs_cannot_be_compared_at_rungs() -> None:
    sweep = make_sweep(search_space={"num_train_epochs": uniform(0.5, 3.0)})
    with pytest.raises(ConfigError, match=r"must be choice\(\[…\]\) under scheduler='asha'"):
        rung_ladders(sweep, 500)
    assert rung_ladders(replace(sweep, scheduler="none"), 500) == {}


def test_too_few_steps_is_an_error_that_names_what_fits() -> None:
    trial = replace(TRIAL, effective_batch_size=64)
    with pytest.raises(ConfigError) as error:
        plan_trial(trial, 100, ladder=(), evals_per_trial=4)
    message = str(error.value)
    assert (
        "effective_batch_size: got 64, which gives 1 optimizer steps in 1 epochs of 100" in message
    )
    assert "batch sizes that fit: 1, 2, 4, 8;" in message
    assert "data.max_length (half of it makes up to twice as many rows)" in message
    with pytest.raises(ConfigError, match="batch sizes that fit: none"):
        plan_trial(trial, 5, ladder=(), evals_per_trial=4)


def test_a_micro_batch_that_does_not_divide_is_an_error() -> None:
    trial = replace(TRIAL, effective_batch_size=16, num_workers=2, micro_batch_size=3)
    with pytest.raises(ConfigError, match=re.escape("got 3, must divide the 8 rows")):
        split_batch(trial, 8)
    # the trial's own goes before what the device would take
    assert split_batch(replace(trial, micro_batch_size=2), 8) == (2, 4)


def test_fitting_keeps_the_batch_sizes_that_leave_enough_steps() -> None:
    sweep = make_sweep(search_space={"effective_batch_size": fitting([8, 16, 32, 64, 128])})
    assert resolve_batch_sizes(sweep, 5000).search_space["effective_batch_size"] == choice(
        [8, 16, 32, 64, 128]
    )
    assert resolve_batch_sizes(sweep, 320).search_space["effective_batch_size"] == choice(
        [8, 16, 32]
    )
    # of fewer than two, powers of two that do
    assert resolve_batch_sizes(sweep, 100).search_space["effective_batch_size"] == choice(
        [1, 2, 4, 8]
    )
    plain = make_sweep(search_space={"effective_batch_size": choice([8])})
    assert resolve_batch_sizes(plain, 100) is plain


def test_fitting_counts_the_fewest_epochs_and_whole_shares_of_workers() -> None:
    space = {"effective_batch_size": fitting([8, 16, 32]), "num_train_epochs": choice([0.5, 2])}
    sweep = make_sweep(search_space=space)
    assert resolve_batch_sizes(sweep, 320).search_space["effective_batch_size"] == choice([8, 16])
    pairs = make_sweep(trial=replace(TRIAL, num_workers=2), search_space=space)
    assert resolve_batch_sizes(pairs, 100).search_space["effective_batch_size"] == choice([2, 4])


@given(rows=st.integers(10, 20_000), epochs=st.sampled_from([0.5, 1, 3]))
def test_whatever_fits_can_be_planned(rows: int, epochs: float) -> None:
    sweep = make_sweep(
        trial=replace(TRIAL, num_train_epochs=epochs),
        search_space={"effective_batch_size": fitting([8, 16, 32, 64, 128])},
    )
    fitted = resolve_batch_sizes(sweep, rows)
    values = field_values(fitted, "effective_batch_size")
    assert values
    if round(epochs * rows) >= MIN_STEPS:
        for batch in values:
            assert plan(fitted, rows, effective_batch_size=batch).steps >= MIN_STEPS


def test_the_values_a_field_can_take() -> None:
    sweep = make_sweep(
        search_space={
            "learning_rate": loguniform(1e-5, 1e-3),
            "lora_r": randint(2, 4),
            "num_train_epochs": choice([2, 1]),
        }
    )
    assert field_values(sweep, "learning_rate") is None
    assert field_values(sweep, "lora_r") == [2, 3, 4]
    assert field_values(sweep, "num_train_epochs") == [1, 2]
    assert field_values(sweep, "effective_batch_size") == [TRIAL.effective_batch_size]
    points = make_sweep(points=({"lora_r": 4}, {}))
    assert field_values(points, "lora_r") == [4, TRIAL.lora_r]
    assert (points.total_trials, make_sweep(num_trials=7).total_trials) == (2, 7)


def test_a_trial_passes_by_the_rungs_it_reaches_in_too_few_steps() -> None:
    ladder = (128, 384, 1152)
    large, small = (
        plan_trial(replace(TRIAL, effective_batch_size=b), 2000, ladder=ladder, evals_per_trial=4)
        for b in (64, 8)
    )
    assert [rung.rows for rung in large.rungs] == [384, 1152]
    assert [rung.rows for rung in small.rungs] == [128, 384, 1152]


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("min_lr_ratio", [0.0, 0.1])
@pytest.mark.parametrize("rows", [40, 480])
def test_the_learning_rate_is_that_of_transformers_schedule_at_every_step(
    rows: int, min_lr_ratio: float, warmup_ratio: float
) -> None:
    import torch
    from transformers import get_scheduler

    changes: dict[str, Any] = {"min_lr_ratio": min_lr_ratio, "warmup_ratio": warmup_ratio}
    trial = replace(TRIAL, learning_rate=3e-4, effective_batch_size=4, **changes)
    planned = plan_trial(trial, rows, ladder=(), evals_per_trial=1)
    assert (planned.warmup_steps > 0) == (warmup_ratio > 0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=trial.learning_rate)
    schedule = get_scheduler(
        "cosine_with_min_lr",
        optimizer,
        num_warmup_steps=planned.warmup_steps,
        num_training_steps=planned.steps,
        scheduler_specific_kwargs={"min_lr_rate": min_lr_ratio},
    )
    for step in range(1, planned.steps + 1):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(trial, planned, step) == pytest.approx(expected, rel=1e-12, abs=1e-18)
        optimizer.step()
        schedule.step()
