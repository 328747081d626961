"""A sweep whose driver dies, and dies again: benchmarks/chaos.py has the long version."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fake_trials import make_search, make_sweep, run
from killed_sweeps import SWEEPS, check, survive, survive_asleep, sweep_of, timeless

from sftray.config import SweepConfig
from sftray.storage.journal import Event, Journal
from sftray.storage.journal.events import parse

SEED = 20
"""Another one gives other kills; the benchmark goes through ten of them."""


@pytest.mark.parametrize("kind", SWEEPS)
def test_a_sweep_is_not_lost_however_often_its_driver_dies(tmp_path: Path, kind: str) -> None:
    survived = survive(sweep_of(kind, seed=SEED), tmp_path, seed=SEED, bytes_a_life=2000)
    assert survived.kills > 10
    check(survived, tmp_path, every=5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SWEEPS)
def test_a_driver_that_is_suspended_for_ten_minutes_continues_or_is_refused(
    tmp_path: Path, kind: str
) -> None:
    """On a URI, where another driver may take over; no clock is waited for."""
    survived = survive_asleep(sweep_of(kind, seed=SEED), tmp_path, seed=SEED, bytes_a_life=2000)
    assert survived.suspended > 2
    assert survived.kills > 0
    check(survived, tmp_path, every=5)


@pytest.fixture
def small(tmp_path: Path) -> tuple[SweepConfig, list[Event], bytes]:
    """A sweep of two trials, one after another, its events, and its journal."""
    sweep = make_sweep(num_trials=2)
    with Journal(str(tmp_path / "whole.jsonl")) as journal:
        run(sweep, make_search(sweep, journal), slots=1)
        events = journal.events()
    return sweep, events, (tmp_path / "whole.jsonl").read_bytes()


def test_a_journal_cut_after_any_byte_has_its_whole_events(
    small: tuple[SweepConfig, list[Event], bytes],
) -> None:
    _, events, data = small
    for length in range(len(data) + 1):
        cut = data[:length]
        assert parse(cut, "cut") == (events[: cut.count(b"\n")], cut.rfind(b"\n") + 1)


def test_a_sweep_cut_within_any_event_goes_on_to_the_same_end(
    small: tuple[SweepConfig, list[Event], bytes], tmp_path: Path
) -> None:
    """The same trials, decisions and outcomes in the same order: what is whole is all that counts,
    so one random byte of each event stands for all of them."""
    sweep, events, data = small
    dice, path, begins = random.Random(SEED), tmp_path / "cut.jsonl", 0
    for line in data.splitlines(keepends=True):
        path.write_bytes(data[: begins + dice.randrange(len(line))])
        begins += len(line)
        with Journal(str(path)) as journal:
            run(sweep, make_search(sweep, journal), slots=1)
            assert told(journal.events()) == told(events)


def told(events: list[Event]) -> list[Event]:
    return [timeless(event) for event in events if event["event"] != "attempt_started"]
