"""A journal as one local file: appended to, fsynced, under a lock.

Promise: what `write` returned from is on the disk, and nothing of what it failed to write; a full
disk is an OutageError. The lock lies beside the file and goes when the
process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sftray.errors import JournalError
from sftray.storage import files
from sftray.storage.faults import plainly
from sftray.storage.journal.event_types import Event
from sftray.storage.journal.events import parse


class File:
    """The file, open for writing by this process alone. Raises JournalError where it is not."""

    def __init__(self, path: str, owner: str) -> None:
        _, inner = files.resolve(path)
        self._path, folder = inner, os.path.dirname(inner)
        os.makedirs(folder, exist_ok=True)
        with plainly(inner):
            self._lock = _take_lock(inner, owner)
        self._file = os.open(inner, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self.events, self._end = parse(Path(inner).read_bytes(), path)
        except JournalError:
            self.close()
            raise
        os.ftruncate(self._file, self._end)
        os.fsync(self._file)
        _sync_folder(folder)

    def write(self, data: bytes) -> None:
        """Append whole lines, or nothing."""
        with plainly(self._path):
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
        """Let go of the lock."""
        if self._lock >= 0:
            os.close(self._file)
            os.close(self._lock)
            self._lock = -1


class FileReader:
    """A file that another process may be writing, read as it grows."""

    def __init__(self, path: str) -> None:
        self._path = path
        _, self._inner = files.resolve(path)
        self._read = self._lines = 0

    def new(self) -> list[Event]:
        """The events that were written since the last call."""
        if not os.path.exists(self._inner):
            return []
        with open(self._inner, "rb") as file:
            file.seek(self._read)
            events, end = parse(file.read(), self._path, first=self._lines + 1)
        self._read += end
        self._lines += len(events)
        return events


def _take_lock(inner: str, owner: str) -> int:
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
    os.pwrite(lock, f"{owner}\n".encode(), 0)
    return lock


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
