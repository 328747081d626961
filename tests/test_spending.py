"""Budgets: what is counted, what is known after a restart, and how a sweep ends by one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_trials import Kept, make_search, make_sweep, run

from sftray.config import SweepConfig
from sftray.disk import Disk, disk_needed, free_space, require_space
from sftray.errors import ConfigError
from sftray.journal import Journal
from sftray.results import Records, Results, leaderboard, table
from sftray.spending import Meter, Spent, shares, spent_in


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_gpus_are_counted_for_as_long_as_they_are_held(tmp_path: Path) -> None:
    sweep = make_sweep(max_cost=10.0, price_per_gpu_hour=2.0)
    clock, gpus, said = Clock(), [1.0], list[str]()
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        meter = Meter(sweep, journal, lambda: gpus[0], said.append, clock)
        clock.now += 3600
        assert meter.look() == ""
        gpus[0] = 3.0
        clock.now += 3600
        assert meter.look() == ""  # 8 of 10
        assert meter.spent == Spent(7200, 4 * 3600, 8.0)
        assert said == ["80% of max_cost = 10 is spent: 2.00 hours, 4.00 GPU-hours, 8.00 of money"]
        clock.now += 1200
        assert meter.look() == "max_cost"
        assert len(said) == 1


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
        whole = leaderboard(sweep, journal.events())
    kept, looks = Kept(tmp_path / "cut"), iter(range(10_000))
    with Journal(str(tmp_path / "cut" / "journal.jsonl")) as journal:
        search = make_search(sweep, journal, spent=lambda: "max_hours" if next(looks) > 40 else "")
        run(sweep, search, kept=kept)
        left = search.unfinished()
        assert left
        assert search.suggest() is None
        assert search.remaining() > len(left)
        journal.append("spent", attempt=1, wall_seconds=1.0, gpu_seconds=0.0, budget="max_hours")
        board = Records(sweep, journal.events()).leaderboard()
        assert board["budget_spent"] == "max_hours"
        assert "cut off" in table(board)
        journal.append("spent", attempt=2, wall_seconds=1.0, gpu_seconds=0.0, budget="")
        search = make_search(sweep, journal)
        assert {one.trial for one in left} == {one.trial for one in search.unfinished()}
        run(sweep, search, kept=kept)
        assert leaderboard(sweep, journal.events()) == whole


def test_a_price_is_needed_for_a_budget_of_money() -> None:
    with pytest.raises(ConfigError, match=r"max_cost: got 5.0 without a price"):
        make_sweep(max_cost=5.0)
    with pytest.raises(ConfigError, match="max_hours: got 0"):
        make_sweep(max_hours=0)


def test_a_sweep_does_not_start_where_the_disk_is_too_small(tmp_path: Path) -> None:
    sweep = replace(make_sweep(), storage=str(tmp_path / "not" / "there"))
    free = free_space(sweep.storage)
    assert free is not None
    require_space(sweep, Disk(packs=1e18, checkpoints=free / 2, bundle=0.0), str(tmp_path))
    with pytest.raises(ConfigError, match=r"storage: got .* GB free at .*there, must have .* GB"):
        require_space(sweep, Disk(packs=0.0, checkpoints=2 * free, bundle=0.0), str(tmp_path))
    require_space(replace(sweep, storage="s3://bucket/x"), Disk(0, 1e18, 0), str(tmp_path))


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
