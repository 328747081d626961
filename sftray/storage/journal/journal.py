"""The sweep's event log: append, verify, replay.

Promise: an event that `append` returned is on the disk, exactly once, and every later opening reads
the same events in the same order; no message in it holds a secret (`redact`). A line torn by a
crash is dropped; damage anywhere else is a JournalError that names the line. Locally one file under
a lock (`file`); on a URI numbered objects that are never changed, under a lease (`objects`). Price:
one write and one fsync, or one put, a call.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import cast

from sftray.errors import Log
from sftray.storage import files
from sftray.storage.journal.bucket_journal import (
    SYSTEM_CLOCK,
    Clock,
    Objects,
    ObjectsReader,
    require_silence,
)
from sftray.storage.journal.event_types import Event
from sftray.storage.journal.events import decode, encode
from sftray.storage.journal.local_journal import File, FileReader, take_lock
from sftray.storage.paths import is_uri
from sftray.storage.redact import redact

_Key = tuple[object, ...]


class Journal:
    """A sweep's journal, open for writing by this process alone.

    Raises JournalError where another driver holds it, or where it is damaged; OutageError where the
    disk is full or storage does not answer.
    """

    def __init__(
        self, path: str, *, log: Log = lambda line: None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """clock: of the lease on a URI."""
        self._log: File | Objects = (
            Objects(path, _owner(), log, clock) if is_uri(path) else File(path, _owner())
        )
        self._events: list[Event] = []
        self._known: dict[_Key, Event] = {}
        for event in self._log.events:
            self._take(event)

    def append(self, event: Event) -> Event:
        """Record one event and return it as it will be read back.

        An event of the same name, trial and step (or attempt) that is recorded already is returned
        unchanged, and nothing is written.
        """
        return self.append_all([event])[0]

    def append_all(self, events: Sequence[Event]) -> list[Event]:
        """Record events in order with one write, each as `append` does."""
        fresh: dict[_Key, Event] = {}
        lines = []
        recorded = []
        now = round(time.time(), 3)
        for fields in events:
            named = {"event": fields["event"], "trial": fields.get("trial"), "time": now}
            message = fields.get("message")  # what a failure said may name a URL with its key
            shown = {"message": redact(message)} if isinstance(message, str) else {}
            event = cast(Event, {**named, **fields, **shown})
            key = _key(event)
            if key not in self._known and key not in fresh:
                lines.append(encode(event))
                fresh[key] = decode(lines[-1])
            recorded.append(self._known.get(key) or fresh[key])
        if lines:
            self._log.write(b"".join(lines))
            for event in fresh.values():
                self._take(event)
        return recorded

    def events(self, since: int = 0) -> list[Event]:
        """All events but the first `since`, oldest first."""
        return self._events[since:]

    def require_same(self) -> None:
        """Raise JournalError where another journal lies under this one's path by now, or none."""
        self._log.require_same()

    def close(self) -> None:
        """Let go of the lock or the lease."""
        self._log.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _take(self, event: Event) -> None:
        if self._known.setdefault(_key(event), event) is event:
            self._events.append(event)


@contextlib.contextmanager
def held(path: str, *, log: Log = lambda line: None, clock: Clock = SYSTEM_CLOCK) -> Iterator[None]:
    """No driver runs the sweep of this journal meanwhile, whether or not it can be read; on a URI
    as far as the lease says at the start. Raises JournalError where one does."""
    if is_uri(path):
        require_silence(path, log, clock)
        yield
        return
    lock = take_lock(files.resolve(path)[1], _owner())
    try:
        yield
    finally:
        os.close(lock)


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def read_events(path: str) -> list[Event]:
    """The events of a journal that another process may be writing; none if it is not there yet."""
    return reader(path).new()


def reader(path: str) -> FileReader | ObjectsReader:
    """A journal that another process may be writing, to be read as it grows: `new` gives what came
    since it was last asked, `batches` the same some at a time."""
    return ObjectsReader(path) if is_uri(path) else FileReader(path)


def _key(event: Event) -> _Key:
    return (event["event"], event.get("trial"), event.get("step"), event.get("attempt"))
