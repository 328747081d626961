"""A journal as one local file: appended to, fsynced, under a lock.

Promise: what `write` returned from is on the disk, and nothing of what it failed to write; a full
disk is an OutageError. The file is locked, and so is one beside it that names the holder; both
locks go when the process ends, however it ends. Before each write the path must still lead to the
folder, the lock and the file that were opened (three stats, 10 µs on a local disk): what has been
deleted, moved or replaced under a driver stops it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from sftray.errors import JournalError
from sftray.storage import files, outages
from sftray.storage.faults import plainly
from sftray.storage.journal.event_types import Event
from sftray.storage.journal.events import no_longer_ours, parse

BATCH_BYTES = 2**22
"""Of a journal that are read at a time: what they say takes ten times the room."""


class File:
    """The file, open for writing by this process alone. Raises JournalError where it is not."""

    def __init__(self, path: str, owner: str) -> None:
        _, inner = files.resolve(path)
        self._path, folder = inner, os.path.dirname(inner)
        self._torn = False
        """Whether a write has failed, and may have left half a line."""
        with plainly(inner):
            files.make_folder(folder)
            self._lock = take_lock(inner, owner)
            self._folder = os.open(folder, os.O_RDONLY)
            self._file = files.open_shared(inner, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            _lock(self._file, inner, self._lock)
            self.events, self._end = parse(Path(inner).read_bytes(), path)
        except JournalError:
            self.close()
            raise
        os.ftruncate(self._file, self._end)
        os.fsync(self._file)
        os.fsync(self._folder)

    def require_same(self) -> None:
        """Raise JournalError where the path leads to another folder, lock or file than were opened,
        or somebody else has written to the file."""
        opened = {
            os.path.dirname(self._path): self._folder,
            f"{self._path}.lock": self._lock,
            self._path: self._file,
        }
        for path, descriptor in opened.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    continue
            raise no_longer_ours(path, "is not what this driver opened: deleted, moved or replaced")
        if os.fstat(self._file).st_size != self._end:
            raise no_longer_ours(self._path, "was written to by another process")

    def write(self, data: bytes) -> None:
        """Append whole lines, or nothing; again where the storage is away. Raises JournalError as
        `require_same` does."""
        with plainly(self._path):
            outages.patiently(os.path.dirname(self._path), lambda: self._append(data))
        self._end += len(data)

    def _append(self, data: bytes) -> None:
        if self._torn:
            os.ftruncate(self._file, self._end)  # no half line may stand before a whole one
            self._torn = False
        self.require_same()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            self._torn = True
            with contextlib.suppress(OSError):  # the next try does it
                os.ftruncate(self._file, self._end)
            raise

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock >= 0:
            for descriptor in (self._file, self._folder, self._lock):
                os.close(descriptor)
            self._lock = -1


class FileReader:
    """A file that another process may be writing, read as it grows."""

    def __init__(self, path: str) -> None:
        self._path = path
        _, self._inner = files.resolve(path)
        self._read = self._lines = 0

    def batches(self, size: int = BATCH_BYTES) -> Iterator[list[Event]]:
        """The events that were written since they were last asked for, some at a time."""
        if not os.path.exists(self._inner):
            return
        most = size
        with open(self._inner, "rb") as file:
            while True:
                file.seek(self._read)
                data = file.read(most)
                events, end = parse(data, self._path, first=self._lines + 1)
                self._read += end
                self._lines += len(events)
                yield events
                if len(data) < most:
                    return
                most = size if end else 2 * most  # a line may be longer than a batch

    def new(self) -> list[Event]:
        """All of them at once."""
        return [event for batch in self.batches() for event in batch]


def take_lock(inner: str, owner: str) -> int:
    """A descriptor of the lock beside a journal, held until it is closed. Raises JournalError where
    another driver has it."""
    lock = files.open_shared(f"{inner}.lock", os.O_RDWR | os.O_CREAT)
    try:
        _lock(lock, inner, lock)
    except JournalError:
        os.close(lock)
        raise
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{owner}\n".encode(), 0)
    return lock


def _lock(descriptor: int, inner: str, lock: int) -> None:
    """Lock a file for a journal's driver; `lock` names who has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 200, 0).decode("utf-8", "replace").strip()
        raise JournalError(
            f"{inner}: another driver is running this sweep ({holder or 'unknown'})",
            "wait for it or stop it, or give this one a name of its own with --name",
        ) from error
    except OSError as error:
        raise JournalError(
            f"{inner}: the filesystem gives no locks ({error})",
            "mount it with locks, or put `storage` on one that has them",
        ) from error
