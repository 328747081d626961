"""A process that follows a sweep's journal and keeps something else in step with it.

Promise: every event is handed on once, in the journal's order, and it is known whether all were
read; a storage that is out of reach is tried again. Price: about a second behind the journal, and
at most READING_SHARE of the time goes into reading a long or a remote one.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sftray.storage import files
from sftray.storage.journal import Event, reader
from sftray.storage.paths import SweepPaths
from sftray.storage.redact import redact

POLL_SECONDS = 1.0
READING_SHARE = 0.05


class Follower(Protocol):
    """What is kept in step."""

    def begin(self, record: Mapping[str, Any]) -> None:
        """Before the first event. record: sweep.json."""
        ...

    def apply(self, event: Event) -> None:
        """Take an event."""
        ...

    def flush(self) -> None:
        """All events that there are have been taken, for now."""
        ...


def follow(paths: SweepPaths, follower: Follower, *, until_told: bool) -> bool:
    """Hand on the journal's events; whether the last look at it was a success.

    until_told: go on until a line or the end comes on standard input.
    """
    journal, waiting, begun = reader(paths.journal), deque[Event](), False
    told = not until_told
    while True:
        started = time.monotonic()
        try:
            waiting += journal.new()
            if waiting and not begun:
                follower.begin(json.loads(files.read_text(paths.sweep)))
                begun = True
            all_read = True
        except OSError as error:  # storage out of reach; the next look tries again
            say(f"{paths.root}: {error}")
            all_read = False
        reading = time.monotonic() - started
        while waiting and begun:
            follower.apply(waiting.popleft())
        follower.flush()
        if told:
            return all_read
        wait = max(POLL_SECONDS, reading / READING_SHARE)
        told = bool(select.select([sys.stdin], [], [], wait)[0])


def take_lock(folder: Path) -> int:
    """One process a folder: that of a driver killed a moment ago may still be at work."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "mirror.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another process that mirrors this sweep")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def say(text: str) -> None:
    """A line of mirror.log, which is the process's standard error."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {redact(text)}\n")
    sys.stderr.flush()
