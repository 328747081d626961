"""Real sweeps took as long as their plans would have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from bases import BASES
from fake_trials import make_sweep

from sftray.config import SweepConfig, TrialConfig, loguniform
from sftray.plan.duration import Devices, Duration
from sftray.plan.effective_batch import Execution
from sftray.plan.gpu_speed import Speed, gpu_speed
from sftray.plan.model_shape import ModelShape
from sftray.plan.trial_plan import planner
from sftray.plan.trial_shape import TrialShape

SPEED = Speed(1000.0, 2000.0, "measured")


def shapes_of(sweep: SweepConfig, rows: int, batches: Sequence[int]) -> list[TrialShape]:
    plan = planner(sweep, rows, execution=Execution(1))
    trials = [replace(sweep.trial, effective_batch_size=batch) for batch in batches]
    return [TrialShape(trial, plan(trial), sweep.data.max_length) for trial in trials]


def whole(trials: int, length: int, **changes: object) -> SweepConfig:
    """A sweep whose trials all run to their end, as the benchmark's do."""
    sweep = make_sweep(
        search_space={"learning_rate": loguniform(1e-5, 1e-3)},
        num_trials=trials,
        scheduler="none",
        rungs=(),
        evals_per_trial=1,
        confirm_top=0,
        **changes,
    )
    return replace(sweep, data=replace(sweep.data, max_length=length))


@pytest.mark.parametrize(
    ("base", "trials", "tokens", "length", "slots", "took"),
    [
        ("Qwen2.5-0.5B", 16, 100_000, 512, 16, 50.0),
        ("Llama-3-8B", 4, 200_000, 2048, 4, 98.2),
        ("Qwen2.5-0.5B", 64, 50_000, 512, 16, 58.1),
    ],
    ids="ade",
)
def test_the_whole_sweeps_of_the_performance_page_took_as_long_as_is_planned_for_an_h100(
    base: str, trials: int, tokens: int, length: int, slots: int, took: float
) -> None:
    sweep = whole(trials, length)
    trial, shape = TrialConfig("base"), ModelShape.of(BASES[base])
    speed = gpu_speed(shape, trial, Execution(1), "NVIDIA H100 80GB HBM3", bank=True)
    assert speed
    shapes = shapes_of(sweep, tokens // length, [4])
    planned = Duration.of(sweep, shapes, 16, Devices(1, slots), speed)
    assert planned.least < took < planned.most


def test_the_least_stops_at_the_first_rung_and_the_most_never() -> None:
    sweep = make_sweep(rungs=(0.25, 0.5), confirm_top=0, num_trials=8)
    shapes = shapes_of(sweep, 240, [2, 4])
    planned = Duration.of(sweep, shapes, 0, Devices(1, 4), replace(SPEED, loading=7.0))
    length = sweep.data.max_length
    first = min(shape.rows_to_first_rung for shape in shapes)
    assert planned.least == pytest.approx(30 + 7 + 8 * first * length / 2000)
    assert planned.most == pytest.approx(75 + 7 + 8 * 240 * length / 1000)


def test_idle_slots_count_and_further_gpus_divide() -> None:
    sweep = whole(5, 128)
    shapes = shapes_of(sweep, 240, [4])

    def most(devices: Devices) -> float:
        return Duration.of(sweep, shapes, 0, devices, SPEED).most - 75

    assert most(Devices(1, 4)) == pytest.approx(2 * 4 * 240 * 128 / 1000)  # a fifth, alone
    assert most(Devices(2, 4)) == pytest.approx(4 * 240 * 128 / 1000)


def test_a_duration_is_said_in_minutes_and_then_in_hours() -> None:
    assert Duration(30, 300.5).text() == "1 to 6 minutes"
    assert Duration(3600, 9000).text() == "1.0 to 2.5 hours"
    assert Duration(3600, 7200).cost(8, 2.5) == (20.0, 40.0)
