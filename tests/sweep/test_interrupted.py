"""A driver that dies in any phase of a sweep: the same call ends with the undisturbed answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sftray.config import SweepConfig
from sftray.results import Results
from sftray.storage.journal import read_events
from sftray.storage.paths import SweepPaths
from sftray.sweep.run import run_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

DIES_AT = {
    "the end of the search": "the best points are run again",
    "before the first step of a repetition": "t0002  started",
    "in a repetition": "t0002  step     4",
    "between two repetitions": "t0002  completed",
    "after the last trial": "t0003  completed",
    "the winner is checked": "best/: reloaded",
    "the report is written": "report: ",
}
"""What a driver dies of: its own line in this phase."""
SHORT = "in a repetition"
PHASES = [
    phase if phase == SHORT else pytest.param(phase, marks=pytest.mark.exhaustive)
    for phase in DIES_AT
]


class Died(BaseException):
    """A driver's death: nobody catches it on the way."""


def silent(line: str) -> None:
    """Logs nothing."""


def dies_at(beginning: str) -> Callable[[str], None]:
    def log(line: str) -> None:
        if line.startswith(beginning):
            raise Died

    return log


@pytest.fixture(scope="module")
def confirmed(small_sweep_config: SweepConfig, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two points, the better of them run again with two more seeds; undisturbed."""
    sweep = replace(
        small_sweep_config,
        points=({"learning_rate": 1e-3}, {"learning_rate": 1e-2}),
        scheduler="none",
        confirm_top=1,
        confirm_seeds=2,
        evals_per_trial=3,
        storage=str(tmp_path_factory.mktemp("confirmed")),
    )
    return run_sweep(sweep, local=True, log=silent)


@pytest.fixture
def sweep(confirmed: Results, tmp_path: Path) -> SweepConfig:
    """The same sweep, to be run in another folder."""
    storage = Path(confirmed.config.storage)
    shutil.copytree(storage / "packs", tmp_path / "packs")
    return replace(confirmed.config, storage=str(tmp_path))


def answer(found: Results) -> object:
    """What a sweep is for: its trials and how they ended, the winner."""
    trials = {
        trial.trial: (trial.point, trial.outcome, [result["step"] for result in trial.results])
        for trial in found.records
    }
    return trials, found.leaderboard["best"], found.ended


def check(found: Results, undisturbed: Results) -> None:
    paths = SweepPaths(found.folder)
    assert answer(found) == answer(undisturbed)
    losses, expected = (
        [result["eval_loss"] for trial in one.records for result in trial.results]
        for one in (found, undisturbed)
    )
    assert losses == pytest.approx(expected, abs=1e-6)
    assert Path(paths.best, "sweep.json").exists()
    assert Path(paths.report).exists()
    keys = [
        (event["event"], event["trial"], event.get("step"), event.get("attempt"))
        for event in read_events(paths.journal)
    ]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("phase", PHASES)
def test_a_driver_that_dies_late_is_followed_by_one_that_finishes(
    confirmed: Results, sweep: SweepConfig, phase: str
) -> None:
    with pytest.raises(Died):
        run_sweep(sweep, local=True, log=dies_at(DIES_AT[phase]))
    check(run_sweep(sweep, local=True, log=silent), confirmed)


@pytest.mark.exhaustive
def test_a_budget_that_ends_in_the_repetitions_and_may_be_raised(
    confirmed: Results, sweep: SweepConfig
) -> None:
    hours = 0.0

    def log(line: str) -> None:
        nonlocal hours
        if line.startswith("t0002  step     4"):
            hours += 2.0

    small = replace(sweep, max_hours=1.0)
    cut = run_sweep(small, local=True, log=log, clock=lambda: 3600 * hours)
    assert [trial.outcome for trial in cut.records] == ["completed", "completed", None]
    assert not cut.ended
    again = run_sweep(small, local=True, log=silent, clock=lambda: 3600 * hours)
    assert answer(again) == answer(cut)
    large = replace(sweep, max_hours=9.0)
    check(run_sweep(large, local=True, log=silent, clock=lambda: 0.0), confirmed)
