"""The sweep's event log: append, verify, replay.

Promise: an event that `append` returned is on the disk, exactly once, and every later opening reads
the same events in the same order. A line torn by a crash is dropped; damage anywhere else is a
JournalError that names the line. Locally one file under a lock; on a URI numbered objects that are
never changed. Price: one write and one fsync a call.

Lines are strict JSON, so any language reads them. NaN and the infinities, which JSON lacks, are the
strings "NaN", "Infinity" and "-Infinity"; reading turns these three back into floats.
"""

from __future__ import annotations

import fcntl
import json
import math
import numbers
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from sftray import storage
from sftray.errors import JournalError
from sftray.paths import is_uri, join

Event = dict[str, Any]

_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Journal:
    """A sweep's journal, open for writing by this process alone.

    Raises JournalError where another driver holds it, or where it is damaged.
    """

    def __init__(self, path: str) -> None:
        self._log: _File | _Objects = _Objects(path) if is_uri(path) else _File(path)
        self._events: dict[tuple[Any, ...], Event] = {}
        for event in self._log.events:
            self._events.setdefault(_key(event), event)

    def append(self, event: str, trial: str | None = None, **fields: Any) -> Event:
        """Record one event and return it as it will be read back.

        An event of the same name, trial and step (or attempt) that is recorded already is returned
        unchanged, and nothing is written.
        """
        return self.append_all([{"event": event, "trial": trial, **fields}])[0]

    def append_all(self, events: Sequence[Mapping[str, Any]]) -> list[Event]:
        """Record events in order with one write, each as `append` does."""
        fresh: dict[tuple[Any, ...], Event] = {}
        lines = []
        recorded = []
        for fields in events:
            event = {"event": fields["event"], "trial": fields.get("trial")}
            event |= {"time": round(time.time(), 3), **fields}
            key = _key(event)
            if key not in self._events and key not in fresh:
                lines.append(_encode(event))
                fresh[key] = _decode(lines[-1])
            recorded.append(self._events.get(key) or fresh[key])
        if lines:
            self._log.write(b"".join(lines))
            self._events |= fresh
        return recorded

    def events(self) -> list[Event]:
        """All events, oldest first."""
        return list(self._events.values())

    def close(self) -> None:
        """Let go of the lock."""
        self._log.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_events(path: str) -> list[Event]:
    """The events of a journal that another process may be writing; none if it is not there yet."""
    if is_uri(path):
        return _read_objects(path)
    _, inner = storage.resolve(path)
    return _parse(Path(inner).read_bytes(), path)[0] if os.path.exists(inner) else []


class _File:
    """One local file. The lock lies beside it and goes when the process ends, however it ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        _, inner = storage.resolve(path)
        folder = os.path.dirname(inner)
        os.makedirs(folder, exist_ok=True)
        self._lock = _take_lock(inner)
        self._file = os.open(inner, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self.events, self._end = _parse(Path(inner).read_bytes(), path)
        except JournalError:
            self.close()
            raise
        os.ftruncate(self._file, self._end)
        os.fsync(self._file)
        _sync_folder(folder)

    def write(self, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._end)  # no half line may stand before a whole one
            raise
        self._end += len(data)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._file)
            os.close(self._lock)
            self._lock = -1


class _Objects:
    """On a URI: `<path>/00000000.jsonl` and on, one a write, each created once."""

    def __init__(self, path: str) -> None:
        self._folder = path
        self.events = _read_objects(path)
        self._next = len(storage.list_names(path))

    def write(self, data: bytes) -> None:
        target = _object(self._folder, self._next)
        if storage.exists(target):
            raise JournalError(
                f"{target}: another driver wrote it; let one driver at a time run a sweep"
            )
        storage.write_bytes(target, data)
        self._next += 1

    def close(self) -> None:
        return


def _take_lock(inner: str) -> int:
    path = f"{inner}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 200).decode("utf-8", "replace").strip()
        os.close(lock)
        raise JournalError(
            f"{inner}: another driver is running this sweep ({holder or 'unknown'}); wait for it "
            "or stop it, or give this one a name of its own with --name"
        ) from error
    except OSError as error:
        os.close(lock)
        raise JournalError(
            f"{path}: the filesystem gives no locks ({error}); mount it with locks, or put "
            "`storage` on one that has them"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return lock


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_objects(path: str) -> list[Event]:
    events = []
    for number, name in enumerate(storage.list_names(path)):
        target = _object(path, number)
        if join(path, name) != target:
            raise JournalError(f"{target}: missing, but {name} is there; restore it to resume")
        data = storage.read_bytes(target)
        found, end = _parse(data, target)
        if end != len(data):
            raise JournalError(f"{target}: its last line is cut off; restore the object to resume")
        events += found
    return events


def _object(folder: str, number: int) -> str:
    return join(folder, f"{number:08d}.jsonl")


def _parse(data: bytes, path: str) -> tuple[list[Event], int]:
    """The events of whole lines, and where the last of these ends."""
    events: list[Event] = []
    end = 0
    *lines, torn = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            events.append(_decode(line))
        except ValueError as error:
            if number == len(lines) and not torn:
                break  # a crash may leave the end of a line on the disk without its beginning
            raise JournalError(
                f"{path}, line {number}: got {line[:80]!r}, must be a JSON event ({error}); "
                "restore the file from a copy, or start the sweep afresh under another name"
            ) from error
        end += len(line) + 1
    return events, end


def _encode(event: Event) -> bytes:
    return (json.dumps(_plain(event), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _decode(line: bytes) -> Event:
    """The event of a line; ValueError where it is none."""
    event = _restored(json.loads(line, parse_constant=_no_constant))
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("an object with a name under 'event'")
    return event


def _plain(value: Any) -> Any:
    """As strict JSON has it; numpy's scalars become Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else ("Infinity" if number > 0 else "-Infinity")


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return _SPELLED.get(value, value) if isinstance(value, str) else value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _key(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return (event["event"], event.get("trial"), event.get("step"), event.get("attempt"))
