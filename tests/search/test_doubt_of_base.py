"""A base that is broken stops the sweep with what is wrong; rates that are too high do not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from fake_trials import make_search, make_sweep

from sftray.config import SweepConfig
from sftray.results.diagnosis.broken_base import base_warning
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.search.search import Search
from sftray.storage.journal import Journal, read_events

BASE, USUAL = 3.0, 1e-3
SPENT = {"tokens": 100, "supervised_tokens": 50, "seconds": 1.0, "gpu_seconds": 1.0}


def sweep_of(rates: list[float], **fields: Any) -> SweepConfig:
    points = tuple({"learning_rate": rate} for rate in rates)
    return make_sweep(points=points, search_space={}, **fields)


def run(search: Search, losses: list[float], base: float = BASE) -> None:
    """Trials that end at these losses, as long as the search gives any."""
    for loss in losses:
        suggestion = search.suggest()
        if suggestion is None:
            return
        trial = suggestion.trial
        search.attempt(trial)
        for step, value in ((0, base), (1, loss)):
            search.record(trial, {"step": step, "rows": step, "eval_loss": value, **SPENT})
        search.end(trial, "completed")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.jsonl")


def doubted(path: str, rates: list[float], losses: list[float], **fields: Any) -> str:
    with Journal(path) as journal:
        search = make_search(sweep_of(rates, **fields), journal, usual_rate=USUAL)
        run(search, losses)
        return search.doubted


def test_three_trials_worse_than_the_base_stop_the_sweep(path: str) -> None:
    sweep = sweep_of([1e-2, 1e-3, 1e-1, 1e-4])
    with Journal(path) as journal:
        search = make_search(sweep, journal, usual_rate=USUAL)
        run(search, [3.5, 3.1, 9.0])
        assert search.stopped
        assert search.suggest() is None
        assert "3 trials have ended worse than the base, whose eval loss is 3.0000" in search.broken
        assert "t0001 ran at a learning rate of 0.001" in search.broken
    with Journal(path) as journal:  # and the next start, too
        assert make_search(sweep, journal, usual_rate=USUAL).stopped


def test_a_driver_that_dies_before_it_has_said_so_says_so_when_it_is_back(path: str) -> None:
    doubted(path, [1e-2, 1e-3, 1e-1, 1e-4], [3.5, 3.1, 9.0])
    lines = Path(path).read_bytes().splitlines(keepends=True)
    assert b"base_doubted" in lines[-1]
    Path(path).write_bytes(b"".join(lines[:-1]))
    with Journal(path) as journal:
        search = make_search(sweep_of([1e-2, 1e-3, 1e-1, 1e-4]), journal, usual_rate=USUAL)
        assert search.stopped


def test_a_sweep_goes_on_where_that_is_only_to_be_warned_of(path: str) -> None:
    sweep = sweep_of([1e-2, 1e-3, 1e-1, 1e-4], on_broken_base="warn")
    with Journal(path) as journal:
        search = make_search(sweep, journal, usual_rate=USUAL)
        run(search, [3.5, 3.1, 9.0])
        assert search.doubted
        assert not search.stopped
        assert search.suggest() is not None


@pytest.mark.parametrize(
    ("rates", "losses"),
    [
        ([1e-2, 2e-3, 1e-1], [3.5, 3.1, 9.0]),  # all rates are higher than is usual
        ([1e-2, 1e-3, 1e-1, 1e-4], [3.5, 2.9, 9.0, 3.4]),  # one has learned
        ([1e-3, 1e-4], [3.5, 3.5]),  # too few
    ],
)
def test_healthy_sweeps_are_not_doubted(path: str, rates: list[float], losses: list[float]) -> None:
    assert doubted(path, rates, losses) == ""


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_base_whose_loss_is_not_finite_stops_the_sweep(path: str, loss: float) -> None:
    with Journal(path) as journal:
        search = make_search(sweep_of([1e-3, 1e-4]), journal, usual_rate=USUAL)
        run(search, [2.0], base=loss)
        assert search.broken == f"the base's own eval loss is {loss}"


def test_no_rate_is_advised_where_the_base_is_broken(path: str) -> None:
    rates = [1e-2, 1e-3, 1e-1, 1e-4]
    doubted(path, rates, [3.5, 3.1, 9.0])
    board = leaderboard(sweep_of(rates), Records(read_events(path)))
    for row in board["trials"]:
        assert row["advice"].endswith("no rate helps here.")


def test_a_base_that_knows_less_than_the_frequencies_of_tokens_is_warned_of() -> None:
    # Gemma 3 with an attention that computed garbage, and the demo's base
    assert "the base's eval loss is 9.7200; guessing" in str(base_warning(9.72, 6.5))
    assert base_warning(5.50, 6.11) is None
    assert base_warning(math.nan, 6.5) is not None
