"""Disks that are full when a test wants them to be."""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 1_000_000


class Tmpfs:
    """A disk of a megabyte; needs the right to mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no byte free."""
        with open(self.folder / "filler", "ab", buffering=0) as file:
            try:
                while file.write(bytes(1000)):
                    pass
            except OSError:
                pass

    def make_room(self) -> None:
        (self.folder / "filler").unlink()

    def remount(self, mode: str) -> None:
        """Make it read-only ("ro"), as a kernel does after an error, or writable ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)


class Limit:
    """Any disk, on which no file may grow above `most` bytes: for who may not mount one."""

    def __init__(self, folder: Path, most: int = 1000) -> None:
        self.folder, self.most = folder, most

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, resource.RLIM_INFINITY))

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@contextmanager
def tmpfs(folder: Path, *, inodes: int = 10_000) -> Iterator[Tmpfs | None]:
    """None where none can be mounted. `inodes`: how many files it can hold, itself included."""
    folder.mkdir()
    options = f"size={SIZE},nr_inodes={inodes}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        yield None
        return
    try:
        yield Tmpfs(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def limit(folder: Path) -> Iterator[Limit]:
    folder.mkdir()
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    disk = Limit(folder)
    try:
        yield disk
    finally:
        disk.make_room()
        signal.signal(signal.SIGXFSZ, before)
