"""A process that follows a sweep's journal and keeps something else in step with it.

Promise: every event is handed on once, in the journal's order, and it is known whether all were
read; a storage that is out of reach is tried again. Price: about a second behind the journal, and
at most READING_SHARE of the time goes into reading a long or a remote one.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from sftray.config import SweepConfig
from sftray.config.config_json import sweep_from_json
from sftray.results.sweep_folder import read_record
from sftray.storage.journal import Event, reader
from sftray.storage.paths import SweepPaths
from sftray.storage.redact import redact
from sftray.storage.terminal_text import log_line, put

POLL_SECONDS = 1.0
READING_SHARE = 0.05


class Follower(Protocol):
    """What is kept in step."""

    def apply(self, event: Event) -> None:
        """Take an event."""
        ...

    def close(self) -> bool:
        """End, when the last event was taken; whether everything was kept."""
        ...


def arguments_of(module: str, about: str | None) -> argparse.ArgumentParser:
    """The command line that every follower has."""
    parser = argparse.ArgumentParser(f"python -m {module}", description=about)
    parser.add_argument("folder", help="the sweep's folder or URI")
    parser.add_argument(
        "--follow", action="store_true", help="continue until a line or the end comes on stdin"
    )
    return parser


def follow(
    paths: SweepPaths,
    folder: Path,
    start: Callable[[SweepConfig, str], Follower],
    *,
    until_asked: bool,
) -> bool:
    """Keep a follower, which has `folder` to itself, in step with the journal; whether all of it
    was read and kept.

    start: makes the follower of a sweep and its uid, before its first event. until_asked: continue
    until a line or the end comes on standard input.
    """
    journal, waiting = reader(paths.journal), deque[Event]()
    follower, asked = None, not until_asked
    with _lock(folder):
        while True:
            started = time.monotonic()
            try:
                waiting += journal.new()
                if waiting and follower is None:
                    record = read_record(paths.sweep)
                    follower = start(sweep_from_json(record["config"]), record["uid"])
                all_read = True
            except OSError as error:  # storage out of reach; the next look tries again
                say(f"{paths.root}: {error}")
                all_read = False
            reading = time.monotonic() - started
            while waiting and follower is not None:
                follower.apply(waiting.popleft())
            if asked:
                kept = follower is None or follower.close()
                return kept and all_read
            wait = max(POLL_SECONDS, reading / READING_SHARE)
            asked = bool(select.select([sys.stdin], [], [], wait)[0])


def say(text: str) -> None:
    """A line of mirror.log, which is the process's standard error."""
    put(log_line(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {redact(text)}"), sys.stderr)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process a folder: that of a driver killed a moment ago may still be at work."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "mirror.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that mirrors this sweep")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
