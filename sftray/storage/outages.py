"""Waiting for storage, or the Hub, that is away.

Promise: what may pass is waited out for PATIENCE_SECONDS, which is said once, as is its end.
Permanent errors (no such bucket, no right to it) are raised as they came. Neither ray nor torch is
needed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from sftray.errors import OutageError, SftrayError
from sftray.storage.terminal_text import log_line

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long storage may be away."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two tries: twice as many each time, less up to a half by chance, so that not all
workers ask at once."""

_AWAY = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE,
    errno.ENOTCONN, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO, errno.ENOLCK,
    errno.EMFILE, errno.ENFILE, errno.ENOMEM,
}  # fmt: skip
"""What a network filesystem or a mount in user space gives while its server is away, and a machine
that has too much to do."""
_SIGNS = re.compile(
    "NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT|"
    r"UNAVAILABLE|HTTP status 5\d\d|status code: 5\d\d|error sending request|timed out|"
    "connection (closed|reset|refused)",
    re.IGNORECASE,
)
"""What pyarrow and obstore say of an object store that is away: they give no error numbers."""
_log = logging.getLogger("sftray")
_patience: ContextVar[float] = ContextVar("patience", default=PATIENCE_SECONDS)


@dataclass
class _Absence:
    """Of a place that does not answer."""

    since: float
    last: float
    """When it was asked last."""


_away: dict[str, _Absence] = {}
_lock = threading.Lock()


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Have this thread wait so long at most; with 0 an error is raised as it came."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def patiently(
    place: str,
    operation: Callable[[], T],
    *,
    passes: Callable[[Exception], bool] | None = None,
    advice: str = "see that it is up and can be reached",
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What `operation` returns, tried again as long as `place` is away. It must bear being done
    twice: a try whose answer was lost may have succeeded.

    `passes` tells the errors that pass, by default those of storage. Raises OutageError when
    patience is at its end; threads that wait for the same place share it.
    """
    for number in itertools.count():
        try:
            found = operation()
        except Exception as error:  # noqa: BLE001 – what does not pass is raised again
            if not (passes or is_away)(error):
                raise
            if _patience.get() <= 0:
                raise
            said = first_line(error)
            if not _wait_on(place, said, clock()):
                raise OutageError(
                    f"{place} does not answer ({said}), and has not for {_span(_patience.get())}",
                    hint=f"{advice}, and run the same command to continue",
                ) from error
            sleep(min(_FIRST_PAUSE * 2**number, _LONGEST_PAUSE) * random.uniform(0.5, 1))
        else:
            _answers(place, clock())
            return found
    raise AssertionError


def is_away(error: Exception) -> bool:
    """Whether an error of storage may pass by waiting."""
    if not isinstance(error, OSError) or isinstance(error, (SftrayError, PermissionError)):
        return False
    return error.errno in _AWAY or (error.errno is None and bool(_SIGNS.search(str(error))))


def _wait_on(place: str, said: str, now: float) -> bool:
    """Whether to wait longer for a place that does not answer; says so the first time."""
    limit = _patience.get()
    with _lock:
        absence = _away.get(place)
        if absence is None or now - absence.last > PATIENCE_SECONDS:  # another absence
            _log.warning(
                "%s does not answer (%s); trying again for %s", place, log_line(said), _span(limit)
            )
            absence = _away[place] = _Absence(now, now)
        absence.last = now
        return now - absence.since < limit


def _answers(place: str, now: float) -> None:
    if place not in _away:  # without the lock, which nearly every read and write would take
        return
    with _lock:
        absence = _away.pop(place, None)
    if absence is not None:
        _log.warning("%s answers again, after %.0f s", place, now - absence.since)


def first_line(error: BaseException) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0][:300]


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} s"
