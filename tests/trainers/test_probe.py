"""`--probe` trains by the plan's trainer until its time is over, and says how fast that was."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from fake_trials import make_sweep

from sftray.config import DataConfig, SweepConfig, TrialConfig, loguniform
from sftray.demo import CHATS, FOLDER
from sftray.errors import ConfigError
from sftray.plan.preview import make_plan
from sftray.plan.preview_text import time_text
from sftray.plan.proposal import propose
from sftray.trainers.probe import FASTER, SLOWER, probed, speed_of


def sweep_in(folder: Path, trainer: str = "auto") -> SweepConfig:
    return make_sweep(
        data=DataConfig(str(CHATS), max_length=128),
        trial=TrialConfig(str(FOLDER), base_precision="fp32", effective_batch_size=2),
        search_space={"learning_rate": loguniform(1e-4, 1e-2)},
        trainer=trainer,
        use_gpu=False,
        storage=str(folder / "none"),
    )


def ticking(seconds: float) -> Callable[[], float]:
    """A clock on which so many seconds pass between two looks."""
    times = count()
    return lambda: seconds * next(times)


@pytest.mark.parametrize("trainer", ["bank", "train"])
def test_a_probe_measures_the_trainer_of_the_plan_and_leaves_nothing(
    trainer: str, tmp_path: Path
) -> None:
    plan = make_plan(sweep_in(tmp_path, trainer), gpu_memory=None)
    assert plan.trainer == trainer
    assert plan.speed is None
    assert "not known on this CPU" in time_text(plan)
    measured = probed(plan, ticking(3.0))
    assert measured.speed
    assert measured.duration
    step = 2 * 128  # a step of the smallest batch
    if plan.bank:
        step = plan.bank.slots * plan.bank.micro_batch_size * 128
    assert measured.speed.slowest == pytest.approx(SLOWER * measured.speed.fastest / FASTER)
    # the bank's loop looks three times at the clock
    assert measured.speed.fastest == pytest.approx(FASTER * step / (9.0 if plan.bank else 3.0))
    assert measured.duration.text() in time_text(measured)
    assert not (tmp_path / "none").exists()


def test_the_speed_is_that_of_the_slower_and_the_faster_half() -> None:
    marks = [(2.0, 100), (3.0, 200), (4.0, 300), (5.0, 500), (6.0, 700), (6.5, 800)]
    speed = speed_of(marks, 1.0)
    assert (speed.slowest, speed.fastest) == pytest.approx((SLOWER * 400 / 3, FASTER * 200))
    assert speed.loading == 1.0


def test_a_machine_that_the_sweep_does_not_train_on_is_not_probed(tmp_path: Path) -> None:
    plan = make_plan(sweep_in(tmp_path), gpu_memory=80e9)
    with pytest.raises(ConfigError, match="this machine has none"):
        probed(plan)
    wide = replace(plan.sweep, trial=replace(plan.sweep.trial, num_workers=2))
    with pytest.raises(ConfigError, match=r"trial.num_workers: got 2, must be 1"):
        probed(make_plan(wide, gpu_memory=None))


def test_a_real_sweep_took_as_long_as_its_probe_had_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick start on two cores that were busy with other things, and a probe beside it."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "quickstart.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], {})  # type: ignore[index]
    plan = propose(
        "x", ["appointments.jsonl"], str(FOLDER), split="train", gpus=0, gpu_memory=None
    ).plan
    marks = [(1.71, 512), (2.79, 3072), (3.9, 5632), (4.93, 8192), (6.03, 11264), (7.14, 14336)]
    marks += [(8.29, 16896), (9.31, 19456), (10.51, 20992), (11.56, 23552), (12.62, 25600)]
    duration = replace(plan, speed=speed_of(marks, 0.0)).duration
    assert duration
    assert duration.least < 818.3 < duration.most
    assert duration.most < 4 * duration.least  # it says something
