"""Time that moves when a driver waits, however busy the machine is."""

from __future__ import annotations

import threading
import time

from sftray.storage.journal.bucket_journal import HEARTBEAT, Clock

_SECONDS = 0.01
"""Between two looks at what other threads have done."""


class FakeClock(Clock):
    """When a pause ends, every heartbeat that was due in it has happened."""

    def __init__(self) -> None:
        self._now = time.time()  # events tell the time of this machine
        self._changed = threading.Condition()
        self._due: dict[threading.Thread, float] = {}

    def now(self) -> float:
        return self._now

    def pause(self, seconds: float) -> None:
        with self._changed:
            self._now += seconds
            self._changed.notify_all()
            while not all(map(self._rests, threading.enumerate())):
                self._changed.wait(_SECONDS)

    def wait(self, end: threading.Event, seconds: float) -> bool:
        heart = threading.current_thread()
        with self._changed:
            due = self._due[heart] = self._now + seconds
            self._changed.notify_all()
            while not end.is_set() and self._now < due:
                self._changed.wait(_SECONDS)
            del self._due[heart]
        return end.is_set()

    def _rests(self, thread: threading.Thread) -> bool:
        return thread.name != HEARTBEAT or self._due.get(thread, 0) > self._now
