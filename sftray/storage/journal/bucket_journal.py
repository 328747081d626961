"""A journal on object storage: numbered objects, each created once and never changed.

Promise: of several drivers exactly one writes. The objects' numbers are the order of events and
the fence: a driver creates the next number only if nobody has, and takes a sweep over by creating
the next one itself, as `driver_started`. Whoever held the sweep before finds that number taken at
its next write and stops; nothing that it writes later can get in. Clocks and the lease only tell
when to take over: wrong ones stop a driver that lives, and never mix two.

`<path>/00000000.jsonl` and on, a batch of events each; `<path>.lease`, rewritten by the driver that
holds the sweep: {"epoch", "owner", "time", "released"}. Price: one put an event (about 30 ms on
S3), one a heartbeat; a resume reads all objects, 16 at a time.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from sftray.errors import JournalError, Log
from sftray.storage import files, outages
from sftray.storage.journal.event_types import DriverStarted, Event, EventName
from sftray.storage.journal.events import encode, no_longer_ours, parse
from sftray.storage.paths import join

LEASE_SECONDS = 60.0
"""A driver that was not heard of for so long may be followed by another."""
HEARTBEAT = "journal lease"
"""The name of a driver's thread that says that it lives."""
_BEATS = 4
"""Heartbeats in that time."""
_READS = 4
"""Of a lease that cannot be read."""
_READERS = 16
"""Objects that are read at once."""
BATCH_OBJECTS = 1000
"""Objects whose events are handed on together."""
_NAME = re.compile(r"\d{8}\.jsonl")


class Clock:
    """The time of a driver: that of this machine."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, end: threading.Event, seconds: float) -> bool:
        """Wait for an event, so long at most; whether it came."""
        return end.wait(seconds)


SYSTEM_CLOCK = Clock()


@dataclass(frozen=True)
class Lease:
    """The right to write a journal."""

    epoch: int
    """The number of the driver, from 1."""
    owner: str
    since: float
    """Seconds since the epoch, as are all times here."""
    seen: float
    """When the driver was last heard of."""
    released: bool = False
    """Whether it gave the lease back."""

    def is_fresh(self, now: float) -> bool:
        """Whether its driver was heard of a short time ago, and has not given it back."""
        return not self.released and now - self.seen < LEASE_SECONDS

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.owner}, since {since}"


class Objects:
    """The objects, to be written by this process as long as it holds the lease.

    Raises JournalError where another driver holds it.
    """

    def __init__(self, path: str, owner: str, log: Log, clock: Clock) -> None:
        self._path, self._clock = path, clock
        reader = ObjectsReader(path)
        self.events = reader.new()
        held = _holder(path, self.events)
        if held and held.is_fresh(clock.now()):
            heard = _hears_of(path, held, log, clock)
            written = reader.new()
            self.events += written
            if heard or written:
                held = _holder(path, self.events)
                if held and held.is_fresh(clock.now()):
                    raise _refusal(path, held, clock)
        self._first = self._next = reader.read
        before = [lease.epoch for lease in (held, _read_lease(path)) if lease]
        self._lease = self._take(max(before, default=0) + 1, owner)
        self._lost_to: Lease | None = None
        self._heard = self._lease.seen
        """When the driver last said that it lives, without a gap in which it may be followed."""
        self._closed = threading.Event()
        self._write_lease()
        self._heart = threading.Thread(target=self._beat, name=HEARTBEAT, daemon=True)
        self._heart.start()

    def require_same(self) -> None:
        """Raise JournalError where the object that this driver began with is no longer there."""
        target, there = _object(self._path, self._first), b""
        if files.exists(target):
            there = files.read_bytes(target)
        if there != self._claim:
            raise no_longer_ours(target, "is not what this driver wrote: deleted or replaced")

    def write(self, data: bytes) -> None:
        """Create the next object. Raises JournalError where another driver has taken over, or the
        sweep has been deleted while this driver was not heard of."""
        if self._clock.now() - self._heard >= LEASE_SECONDS:
            self.require_same()
            self._heard = self._clock.now()
        if self._lost_to is None and self._create(data):
            self._next += 1
            return
        self._lost_to = self._lost_to or _holder(self._path, ObjectsReader(self._path).new())
        raise JournalError(
            f"{_object(self._path, self._next)}: another driver has taken this sweep over "
            f"({self._lost_to}), because this one ({self._lease}) was not heard of for "
            f"{LEASE_SECONDS:g} s; this one stops here",
            "stop the other one first to continue here",
        )

    def close(self) -> None:
        """Give the lease back."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._heart.join()
        # out of reach: it runs out by itself
        with contextlib.suppress(OSError), outages.patience(0):
            if not self._is_lost():
                self._write_lease(released=True)

    def _take(self, epoch: int, owner: str) -> Lease:
        now = round(self._clock.now(), 3)
        event = DriverStarted(
            event=EventName.DRIVER_STARTED,
            trial=None,
            attempt=epoch,
            owner=owner,
            lease=uuid.uuid4().hex[:8],
            time=now,
        )
        self._claim, target = encode(event), _object(self._path, self._next)
        if not self._create(self._claim):
            raise JournalError(
                f"{target}: another driver of this sweep wrote it at this moment",
                "wait for it, or give this one a name of its own with --name",
            )
        if files.create(target, self._claim):
            raise JournalError(
                f"{target}: the object store wrote it twice, must refuse to (If-None-Match): two "
                "drivers could not be kept apart; put `storage` on S3, GCS, or a local folder"
            )
        self.events.append(event)
        self._next += 1
        return Lease(epoch, owner, now, now)

    def _create(self, data: bytes) -> bool:
        """Create the next object; False where somebody else has."""
        target = _object(self._path, self._next)
        # one that is there already may be ours: created by a put whose answer was lost
        return files.create(target, data) or files.read_bytes(target) == data

    def _beat(self) -> None:
        while not self._clock.wait(self._closed, LEASE_SECONDS / _BEATS):
            # out of reach: the next one tries again, and tells the time of then
            with contextlib.suppress(OSError), outages.patience(0):
                with contextlib.suppress(JournalError):  # unreadable: it is written anew
                    if self._is_lost():
                        return
                self._write_lease()
                if self._clock.now() - self._heard < LEASE_SECONDS:  # else `write` looks first
                    self._heard = self._clock.now()

    def _is_lost(self) -> bool:
        """Whether the lease is known to be a later driver's."""
        told = _read_lease(self._path)
        if told and told.epoch > self._lease.epoch:
            self._lost_to = told
        return self._lost_to is not None

    def _write_lease(self, *, released: bool = False) -> None:
        lease = asdict(self._lease) | {"seen": round(self._clock.now(), 3), "released": released}
        files.write_text(_lease_path(self._path), json.dumps(lease))


def require_silence(path: str, log: Log, clock: Clock) -> None:
    """Raise JournalError where a driver of this journal lives, by its lease alone."""
    held = _read_lease(path)
    if held and held.is_fresh(clock.now()) and _hears_of(path, held, log, clock):
        raise _refusal(path, held, clock)


def _hears_of(path: str, held: Lease, log: Log, clock: Clock) -> bool:
    """Whether a driver, or one that has followed it, is heard of before its lease runs out."""
    ago = clock.now() - held.seen
    left = LEASE_SECONDS - min(max(ago, 0), LEASE_SECONDS)  # its clock may be another
    log(
        f"journal: another driver ({held}) was heard of {LEASE_SECONDS - left:.0f} s ago; "
        f"waiting up to {left:.0f} s to see whether it lives"
    )
    first = _read_lease(path)
    while left > 0:
        pause = min(left, LEASE_SECONDS / _BEATS / 3)
        clock.pause(pause)
        left -= pause
        now = _read_lease(path)
        if now and now != first and now.epoch >= held.epoch:
            return True
    return False


def _refusal(path: str, held: Lease, clock: Clock) -> JournalError:
    ago = max(clock.now() - held.seen, 0)
    return JournalError(
        f"{path}: another driver is running this sweep ({held}, heard of {ago:.0f} s ago)",
        "wait for it or stop it, or give this one a name of its own with --name",
    )


class ObjectsReader:
    """Objects that another process may be writing, read as they come."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.read = 0
        """How many objects have been read."""

    def batches(self, size: int = BATCH_OBJECTS) -> Iterator[list[Event]]:
        """The events that were written since they were last asked for, of so many objects at a
        time. Raises JournalError where an object is missing or damaged."""
        names = [name for name in files.list_names(self._path) if _NAME.fullmatch(name)]
        targets = []
        for number, name in enumerate(names[self.read :], start=self.read):
            targets.append(_object(self._path, number))
            if join(self._path, name) != targets[-1]:
                raise JournalError(
                    f"{targets[-1]}: missing, but {name} is there; restore it to resume"
                )
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(targets), size):
                some = targets[start : start + size]
                events = [event for batch in pool.map(_read, some) for event in batch]
                self.read += len(some)
                yield events

    def new(self) -> list[Event]:
        """All of them at once."""
        return [event for batch in self.batches() for event in batch]


def _read(target: str) -> list[Event]:
    data = files.read_bytes(target)
    events, end = parse(data, target)
    if end != len(data) or not events:
        raise JournalError(f"{target}: its last line is cut off; restore the object to resume")
    return events


def _holder(path: str, events: list[Event]) -> Lease | None:
    """Who took the lease last, and when it was last heard of: by a heartbeat or an event."""
    claims = [event for event in events if event["event"] == EventName.DRIVER_STARTED]
    if not claims:
        return None
    epoch, owner, since = claims[-1]["attempt"], claims[-1]["owner"], claims[-1]["time"]
    told = _read_lease(path)
    seen = max(since, events[-1]["time"])
    if told is None or told.epoch != epoch:  # not written yet, or by a driver that is fenced off
        return Lease(epoch, owner, since, seen)
    return Lease(epoch, owner, since, max(seen, told.seen), told.released)


def _read_lease(path: str) -> Lease | None:
    if not files.exists(_lease_path(path)):
        return None
    for left in reversed(range(_READS)):
        try:
            return Lease(**json.loads(files.read_text(_lease_path(path))))
        except (ValueError, TypeError) as error:  # a store may give it while it is being rewritten
            if not left:
                raise JournalError(f"{_lease_path(path)}: damaged; delete it to resume") from error
            time.sleep(0.1)
    raise AssertionError


def _lease_path(path: str) -> str:
    return f"{path}.lease"


def _object(folder: str, number: int) -> str:
    return join(folder, f"{number:08d}.jsonl")
