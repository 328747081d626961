"""Drivers that die in the middle of a sweep, and what must hold of the journal that is left."""

from __future__ import annotations

import functools
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from events import an_event
from fake_clock import FakeClock
from fake_trials import Kept, make_search, make_sweep, run

from sftray.config import SweepConfig
from sftray.errors import JournalError, Log
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.search.search import Search
from sftray.storage.journal import Event, Journal, read_events
from sftray.storage.journal.bucket_journal import HEARTBEAT, Objects
from sftray.storage.journal.events import encode

POINTS = tuple(
    {"learning_rate": 10 ** -(1 + number / 4), "effective_batch_size": (2, 4, 8)[number % 3]}
    for number in range(16)
)
SWEEPS: dict[str, dict[str, Any]] = {
    "given points, no scheduler": {"points": POINTS, "scheduler": "none"},
    "TPE + ASHA": {},
    "TPE + ASHA, confirmed": {"confirm_top": 2, "confirm_seeds": 3},
}
SUSPENDED_SECONDS = 600.0
CLOCK = FakeClock()
"""Of all drivers that are suspended."""
SLOTS = 3
"""Trials at a time."""


class Died(BaseException):
    """A driver's death: nobody catches it on the way."""


class Mortal(Journal):
    """A journal whose driver dies when it has written so many bytes: in the middle of a line, or
    between two writes."""

    def __init__(self, path: str, left: int) -> None:
        super().__init__(path)
        self._alive, self._left = self._log.write, left
        self._log.write = self._write  # type: ignore[method-assign]

    def _write(self, data: bytes) -> None:
        self._alive(data[: self._left])
        if len(data) > self._left:
            raise Died
        self._left -= len(data)


class Sleeper(Journal):
    """A journal on a URI whose driver is suspended for ten minutes whenever it is about to write
    more than so many bytes; then others may do something."""

    def __init__(
        self,
        path: str,
        dice: Callable[[], int],
        meanwhile: Callable[[], None],
        log: Log = lambda line: None,
    ) -> None:
        """dice: how many bytes until it is suspended, the next time."""
        super().__init__(path, clock=CLOCK, log=log)
        assert isinstance(self._log, Objects)
        self._alive, self._dice, self._meanwhile = self._log.write, dice, meanwhile
        self._left = dice()
        self.suspended = 0
        self._log.write = self._write  # type: ignore[method-assign]

    def _write(self, data: bytes) -> None:
        if len(data) > self._left:
            self._sleep()
        self._left -= len(data)
        self._alive(data)

    def _sleep(self) -> None:
        log, self.suspended = self._log, self.suspended + 1
        assert isinstance(log, Objects)
        log._closed.set()  # its heart stands still, too
        log._heart.join()
        CLOCK.pause(SUSPENDED_SECONDS)
        self._meanwhile()
        log._closed = threading.Event()
        log._heart = threading.Thread(target=log._beat, name=HEARTBEAT, daemon=True)
        log._heart.start()
        self._left = self._dice()


@dataclass(frozen=True)
class Survived:
    """A sweep that has ended, however often its driver had died."""

    sweep: SweepConfig
    kills: int
    events: list[Event]
    kept: Kept
    suspended: int = 0
    """How often a driver was suspended for ten minutes."""


def sweep_of(kind: str, **changes: Any) -> SweepConfig:
    """A sweep of one of the SWEEPS."""
    return make_sweep(**changes | SWEEPS[kind])


def drive(
    sweep: SweepConfig,
    journal: Journal,
    kept: Kept,
    *,
    order: int,
    ended: Callable[[Search], None] = lambda search: None,
) -> None:
    """A driver's life, to the sweep's end if it lives so long."""
    search = make_search(sweep, journal)
    for more in (lambda: True, lambda: bool(sweep.confirm_top) and search.confirm()):
        if more():
            run(sweep, search, slots=SLOTS, order=order, kept=kept, ended=lambda: ended(search))
    journal.append(an_event("sweep_ended"))


def survive(sweep: SweepConfig, folder: Path, *, seed: int, bytes_a_life: int) -> Survived:
    """Run a sweep to its end whose drivers die at random bytes of its journal."""
    dice, kept = random.Random(seed), Kept(folder)
    path, kills = str(folder / "journal.jsonl"), 0
    while True:
        journal = Mortal(path, dice.randrange(2 * bytes_a_life))
        try:
            drive(sweep, journal, kept, order=kills)
            return Survived(sweep, kills, journal.events(), kept)
        except Died:
            kills += 1
        finally:
            journal.close()


def survive_asleep(sweep: SweepConfig, folder: Path, *, seed: int, bytes_a_life: int) -> Survived:
    """Run a sweep to its end whose drivers are suspended for ten minutes at random bytes. Of two
    such drivers one is followed by another in the meantime, which runs the sweep to its end."""
    dice, kept = random.Random(seed), Kept(folder)
    path, replaced, suspended = f"file://{folder}/journal.jsonl", 0, 0

    def live() -> None:
        nonlocal replaced, suspended
        journal = Sleeper(
            path,
            lambda: dice.randrange(2 * bytes_a_life),
            lambda: live() if dice.random() < 0.5 else None,
        )
        try:
            drive(sweep, journal, kept, order=replaced)
        except JournalError as error:
            if "another driver has taken this sweep over" not in str(error):
                raise
            replaced += 1
        finally:
            suspended += journal.suspended
            journal.close()

    live()
    return Survived(sweep, replaced, read_events(path), kept, suspended)


def check(survived: Survived, scratch: Path, *, every: int = 1) -> None:
    """Assert what must hold. every: of the decisions and suggestions, each how manieth is made
    again from the events before it, in `scratch`."""
    sweep, events = survived.sweep, survived.events
    twice = Counter((e["event"], e["trial"], e.get("step"), e.get("attempt")) for e in events)
    assert max(twice.values()) == 1
    repeats = [e for e in events if e.get("confirms")]
    assert len(repeats) == sweep.confirm_top * sweep.confirm_seeds
    ended = sorted(e["trial"] for e in events if e["event"] == "trial_ended")
    assert ended == [f"t{n:04d}" for n in range(sweep.total_trials + len(repeats))]
    attempts = Counter(e["trial"] for e in events if e["event"] == "attempt_started")
    again: Counter[str] = Counter()
    for (trial, _), times in survived.kept.trained().items():
        again[trial] += times - 1
    for trial, intervals in again.items():
        assert intervals <= attempts[trial] - 1, f"{trial}: more than one interval a death"
    assert attempts.total() - len(ended) <= survived.kills * SLOTS
    if sweep.points:
        assert leaderboard(sweep, Records(events)) == leaderboard(
            sweep, Records(undisturbed(sweep, scratch))
        )
    chosen = [n for n, e in enumerate(events) if e["event"] in ("trial_suggested", "decision")]
    for number in chosen[::every]:
        make = functools.partial(make_search, sweep)
        check_made_again(make, events, number, scratch / "prefix.jsonl")


def undisturbed(sweep: SweepConfig, scratch: Path) -> list[Event]:
    """The events of a sweep whose driver lives."""
    folder = scratch / "undisturbed"
    folder.mkdir()
    with Journal(str(folder / "journal.jsonl")) as journal:
        drive(sweep, journal, Kept(folder), order=0)
        return journal.events()


def check_made_again(
    make: Callable[[Journal], Search], events: list[Event], number: int, path: Path
) -> None:
    """Assert that a search which knows the events before `number` makes that one next."""
    path.write_bytes(b"".join(encode(event) for event in events[:number]))
    with Journal(str(path)) as journal:
        search = make(journal)
        if events[number]["event"] == "trial_suggested":
            search.suggest()
        made = journal.events()[number]
    assert timeless(made) == timeless(events[number])


def repeated(survived: Survived) -> int:
    """How many intervals were trained again."""
    return sum(times - 1 for times in survived.kept.trained().values())


def timeless(event: Event) -> Event:
    return {**event, "time": None}
