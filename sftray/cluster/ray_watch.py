"""Whether the Ray beneath a driver lives. Where it does not, the driver ends with our words.

Promise: a killed gcs_server or raylet costs no trial an attempt, and the driver ends within seconds
with status 2 and what to do; Ray itself would end it after a quarter of a minute to a minute, with
a line of its own and status 1. Price: two connections a second, to this machine as a rule.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from sftray.errors import OutageError
from sftray.storage.faults import AGAIN
from sftray.storage.terminal_text import put, visible

LOOK_SECONDS = 1.0
CONNECT_SECONDS = 5.0
RETURN_SECONDS = 45.0
"""How long the control process of a cluster that was joined may be away: with its state in Redis it
comes back. Ray ends a driver after 60 s."""
STATUS = 2
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""This process cannot ask."""


@dataclass
class Part:
    """A process of Ray's without which nothing goes."""

    name: str
    host: str
    port: int
    patience: float
    """Seconds for which it may refuse connections; it may be silent for RETURN_SECONDS, since it or
    this machine may have too much to do."""
    clock: Callable[[], float] = time.monotonic
    connect_seconds: float = CONNECT_SECONDS
    _away_since: float | None = field(default=None, init=False)

    def is_lost(self) -> bool:
        """Whether it has not accepted connections for longer than it may."""
        try:
            socket.create_connection((self.host, self.port), timeout=self.connect_seconds).close()
        except OSError as error:
            if error.errno in _OURS:
                return False
            now, refused = self.clock(), isinstance(error, ConnectionRefusedError)
            self._away_since = now if self._away_since is None else self._away_since
            return now - self._away_since >= (self.patience if refused else RETURN_SECONDS)
        self._away_since = None
        return False


_watched: list[Part] = []
"""Of the cluster that this driver is connected to; empty in other processes."""

_asked: list[Callable[[], int | None]] = []


def watch(gcs_address: str, raylet: tuple[str, int], *, started: bool) -> None:
    """Watch the cluster that this process has joined, or `started`, from a thread until the process
    ends."""
    host, _, port = gcs_address.rpartition(":")
    patience = 0.0 if started else RETURN_SECONDS
    _watched[:] = [
        Part(f"gcs_server at {gcs_address}", host.strip("[]"), int(port), patience),
        Part("raylet of this machine", *raylet, 0.0),
    ]
    threading.Thread(target=_look_on, args=(started,), name="Ray's pulse", daemon=True).start()


def lost() -> OutageError | None:
    """What to stop with where a part of Ray's has ended."""
    for part in _watched:
        if part.is_lost():
            return OutageError(
                f"Ray's {part.name} has ended: it was killed, or its machine has; the sweep stops, "
                "and its trials stay as they were",
                hint=f"see why (`dmesg` names what ran out of memory) {AGAIN}",
            )
    return None


def ask_at_the_end(asked: Callable[[], int | None]) -> None:
    """Where Ray is lost, have `asked` end this process with its words and exit status if it knows
    why: SLURM and `timeout` send SIGTERM to Ray's processes, too."""
    _asked[:] = [asked]


def _look_on(started: bool) -> None:
    import ray

    while True:
        time.sleep(LOOK_SECONDS)
        error = lost()
        if not ray.is_initialized():  # left in good order, and so ended
            _watched.clear()
            return
        if error:
            _end(error, started)


def _end(error: OutageError, started: bool) -> None:
    """End this process: its other threads wait within Ray, which does not come back."""
    time.sleep(LOOK_SECONDS)  # a signal that ended Ray may be on its way to the main thread
    status = next((known for ask in _asked if (known := ask())), None)
    show_cursor = "\033[?25h" if sys.stderr.isatty() else ""
    words = "" if status else visible(f"error: {error.message}\nhint: {error.hint}")
    put(f"{show_cursor}{words}", sys.stderr, coloured=True)
    if started:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if not any("sftray.views" in word for word in child.cmdline()):  # W&B's last words
                    child.kill()
    os._exit(status or STATUS)
