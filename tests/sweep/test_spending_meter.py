"""Budgets: what is counted, what is known after a restart, and how a sweep ends by one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from events import an_event
from fake_trials import Kept, make_search, make_sweep, reports, run

from sftray.config import SweepConfig, loguniform
from sftray.errors import ConfigError
from sftray.plan.disk import Disk, disk_needed, require_space
from sftray.results import Results
from sftray.results.leaderboard import leaderboard
from sftray.results.leaderboard_text import table
from sftray.results.records import Records
from sftray.results.spending import Spent, shares, spent_in
from sftray.storage.journal import Journal
from sftray.sweep.run import _confirms, run_sweep
from sftray.sweep.spending_meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: int, meter: Meter) -> None:
        """Time, in which a meter is looked at every minute."""
        for _ in range(seconds // 60):
            self.now += 60
            meter.look()


def test_gpus_are_counted_for_as_long_as_they_are_held(tmp_path: Path) -> None:
    sweep = make_sweep(max_cost=10.0, price_per_gpu_hour=2.0)
    clock, gpus, said = Clock(), [1.0], list[str]()
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        began = (clock.now, 1.0)
        clock.now += 1800  # data is packed, the base is loaded
        meter = Meter(sweep, journal, lambda: gpus[0], said.append, clock, began)
        clock.pass_by(1800, meter)
        assert meter.spent == Spent(3600, 3600, 2.0)
        gpus[0] = 3.0
        clock.pass_by(60, meter)  # two have come, nobody knows when
        assert meter.spent == Spent(3660, 3660, pytest.approx(2 * 3660 / 3600))
        clock.pass_by(3600 - 60, meter)
        assert said == []
        clock.pass_by(60, meter)
        assert said == ["80% of max_cost=10 is used: 2.02 hours, 4.02 GPU-hours, 8.03 of money"]
        clock.pass_by(1200, meter)
        assert meter.look() == "max_cost"
        assert len(said) == 1


def test_a_meter_asks_how_many_gpus_there_are_once_a_second(tmp_path: Path) -> None:
    clock, asked = Clock(), list[float]()

    def gpus() -> float:
        asked.append(clock.now)
        return 1.0

    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        meter = Meter(make_sweep(), journal, gpus, _silent, clock)
        asked.clear()
        for _ in range(100):
            clock.now += 0.125
            meter.look()
        assert len(asked) == 12
        assert journal.events() == []  # not a minute yet
        meter.record()
        assert meter.spent == Spent(12.5, 12.5, None)
        assert spent_in(make_sweep(), journal.events()) == meter.spent


def test_a_sweep_is_marked_as_ended_by_its_budget_until_it_goes_on(tmp_path: Path) -> None:
    sweep, clock = make_sweep(max_hours=1.0), Clock()

    def marked(journal: Journal) -> str:
        return str(leaderboard(sweep, Records(journal.events())).get("budget_spent", ""))

    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        meter = Meter(sweep, journal, lambda: 0.0, _silent, clock)
        clock.pass_by(3600, meter)
        assert meter.used_up == "max_hours"
        assert marked(journal) == ""  # it may yet come to its own end
        meter.end()
        assert marked(journal) == "max_hours"
        meter.record()  # the winner has been checked
        assert marked(journal) == "max_hours"
        Meter(replace(sweep, max_hours=2.0), journal, lambda: 0.0, _silent, clock)
        assert marked(journal) == ""


def test_a_trial_that_has_taken_its_last_step_may_say_how_it_ended(tmp_path: Path) -> None:
    sweep, spent = make_sweep(points=({"seed": 0}, {"seed": 1}), scheduler="none"), [""]
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        search = make_search(sweep, journal, spent=lambda: spent[0])
        for trial in ("t0000", "t0001"):
            assert search.suggest() is not None
            search.attempt(trial)
        *earlier, last = reports(sweep, {})
        for report in earlier:
            assert search.record("t0000", report) == "continue"
        spent[0] = "max_hours"
        assert search.record("t0000", last) == "continue"
        assert search.record("t0000", last, "completed") == "stop"
        assert search.record("t0001", earlier[0]) == "stop"
        assert search.outcome_of("t0000") == "completed"
        assert search.outcome_of("t0001") is None
        assert search.last_step("t0001") == 0


def test_repetitions_wait_where_the_budget_is_spent_when_the_search_ends(tmp_path: Path) -> None:
    points = tuple({"learning_rate": 10**-n, "effective_batch_size": 4} for n in range(2, 5))
    sweep = make_sweep(points=points, scheduler="none", confirm_top=2, confirm_seeds=2)
    spent = [""]
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        search = make_search(sweep, journal, spent=lambda: spent[0])
        spent[0] = "max_hours"
        assert not _confirms(sweep, search)  # the search has not ended: nothing is chosen
        assert search.remaining() == 3
        spent[0] = ""
        run(sweep, search)
        spent[0] = "max_hours"
        assert not _confirms(sweep, search)
        assert search.remaining() == 4
        spent[0] = ""
        assert _confirms(sweep, search)


def test_what_was_spent_is_known_after_a_restart(tmp_path: Path) -> None:
    sweep, clock = make_sweep(max_hours=1.0), Clock()
    path = str(tmp_path / "journal.jsonl")
    with Journal(path) as journal:
        meter = Meter(sweep, journal, lambda: 2.0, _silent, clock)
        for _ in range(59):
            clock.now += 60
            meter.look()
    clock.now += 86400  # no driver lived
    with Journal(path) as journal:
        assert spent_in(sweep, journal.events()) == Spent(59 * 60, 2 * 59 * 60, None)
        meter = Meter(sweep, journal, lambda: 2.0, _silent, clock)
        assert meter.used_up == ""
        clock.now += 60
        assert meter.look() == "max_hours"
        assert shares(sweep, meter.spent) == {"max_hours": 1.0}
    with Journal(path) as journal:
        raised = Meter(replace(sweep, max_hours=2.0), journal, lambda: 2.0, _silent, clock)
        assert raised.used_up == ""


def test_a_sweep_whose_budget_is_spent_goes_on_with_a_larger_one_as_if_it_had_never_stopped(
    tmp_path: Path,
) -> None:
    points = tuple({"learning_rate": 10**-n, "effective_batch_size": 4} for n in range(2, 10))
    sweep = make_sweep(points=points, scheduler="none")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    with Journal(str(tmp_path / "whole" / "journal.jsonl")) as journal:
        run(sweep, make_search(sweep, journal), kept=Kept(tmp_path / "whole"))
        whole = leaderboard(sweep, Records(journal.events()))
    kept, looks = Kept(tmp_path / "cut"), iter(range(10_000))
    with Journal(str(tmp_path / "cut" / "journal.jsonl")) as journal:
        search = make_search(sweep, journal, spent=lambda: "max_hours" if next(looks) > 40 else "")
        run(sweep, search, kept=kept)
        left = search.unfinished()
        assert left
        assert search.suggest() is None
        assert search.remaining() > len(left)
        journal.append(
            an_event("spent", attempt=1, wall_seconds=1.0, gpu_seconds=0.0, budget="max_hours")
        )
        board = leaderboard(sweep, Records(journal.events()))
        assert board["budget_spent"] == "max_hours"
        assert table(board).count("unfinished") == len(left)
        journal.append(an_event("spent", attempt=2, wall_seconds=1.0, gpu_seconds=0.0, budget=""))
        search = make_search(sweep, journal)
        assert {one.trial for one in left} == {one.trial for one in search.unfinished()}
        run(sweep, search, kept=kept)
        assert leaderboard(sweep, Records(journal.events())) == whole


def test_a_price_is_needed_for_a_budget_of_money() -> None:
    with pytest.raises(ConfigError, match=r"max_cost: got 5.0 without a price"):
        make_sweep(max_cost=5.0)
    with pytest.raises(ConfigError, match="max_hours: got 0"):
        make_sweep(max_hours=0)


def test_a_sweep_does_not_start_where_the_disk_is_too_small(tmp_path: Path) -> None:
    sweep = replace(make_sweep(), storage=str(tmp_path / "not" / "there"))
    free = disk_needed(sweep, {}, {}, at_once=1).free
    assert free is not None
    require_space(sweep, Disk(1e18, free / 2, 0.0, free), str(tmp_path))
    with pytest.raises(ConfigError, match=r"storage: got .* GB free at .*there, must have .* GB"):
        require_space(sweep, Disk(0.0, 2 * free, 0.0, free), str(tmp_path))
    elsewhere = replace(sweep, storage="s3://bucket/x")
    assert disk_needed(elsewhere, {}, {}, at_once=1).free is None
    require_space(elsewhere, Disk(0.0, 1e18, 0.0, None), str(tmp_path))


def test_a_sweep_too_large_for_the_disk_is_refused_before_anything_is_written(
    small_sweep_config: SweepConfig, tmp_path: Path
) -> None:
    many = {"points": (), "search_space": {"learning_rate": loguniform(1e-5, 1e-2)}}
    sweep = replace(small_sweep_config, storage=str(tmp_path), num_trials=10**9, **many)
    with pytest.raises(ConfigError, match=r"storage: got .* make room"):
        run_sweep(sweep, log=_silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_the_disk_of_checkpoints_is_told_within_a_quarter(
    small_sweep_config: SweepConfig, small_sweep: Results
) -> None:
    base = json.loads(Path(small_sweep_config.trial.model, "config.json").read_text("utf-8"))
    splits = {"train": {"rows": 10}, "eval": {"rows": 1}}
    needed = disk_needed(small_sweep_config, base, splits, at_once=0)
    files = Path(small_sweep.folder, "trials").rglob("*.safetensors")
    there = sum(file.stat().st_size for file in files)
    assert needed.checkpoints == pytest.approx(there, rel=0.25)


def _silent(line: str) -> None:
    """Logs nothing."""
