"""The rates of false and missed alarms, on trials that are known to be healthy or broken."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from sftray.results.diagnosis import neighbours


@pytest.fixture
def alarms(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import alarms

    return alarms


def test_verdicts_and_warnings_hardly_err(alarms: ModuleType) -> None:
    trials = alarms.judged()
    counts = Counter(one.what == alarms.HEALTHY for one in trials)
    assert counts[True] >= 200
    assert counts[False] >= 60
    false, missed = alarms.rates(trials)
    assert false <= 0.02, alarms.table(trials)
    assert missed <= 0.10, alarms.table(trials)


def test_a_strange_batch_is_called_harmful_where_it_was(alarms: ModuleType) -> None:
    healthy, damaged = alarms.beside_neighbours(0.0), alarms.beside_neighbours(0.05)
    assert len(healthy) == len(damaged) >= 100
    assert sum(healthy) <= 0.02 * len(healthy)
    assert sum(damaged) >= 0.9 * len(damaged)


def test_a_bar_below_what_seeds_make_of_a_loss_gives_false_alarms(
    alarms: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "WORSE", 0.0)
    healthy = alarms.beside_neighbours(0.0)
    assert sum(healthy) > 0.02 * len(healthy)


def test_the_recorded_trials_are_small(alarms: ModuleType) -> None:
    assert sum(path.stat().st_size for path in alarms.RECORDED.iterdir()) < 1_000_000


def test_the_base_is_doubted_in_no_healthy_sweep(alarms: ModuleType) -> None:
    assert not [name for name in alarms.doubted() if name.endswith(alarms.HEALTHY)]


def test_an_alarm_that_is_always_given_is_refused(
    alarms: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "base_warning", lambda *_: "always")
    assert alarms.rates(alarms.judged()) == (1.0, 0.0)
