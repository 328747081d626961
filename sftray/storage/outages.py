"""Faults of what a sweep runs on, in plain words: a full disk, storage that is away, a full object
store of Ray's.

Promise: what may pass is waited out for PATIENCE_SECONDS, which is said once, as is its end;
anything else is an OutageError at once that says what is full, where, and what to do. Permanent
errors (no such bucket, no right to it) are raised as they came. Neither ray nor torch is needed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import random
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sftray.errors import OutageError, SftrayError
from sftray.storage.paths import is_uri, nearest_there

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long storage may be away."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two tries: twice as many each time, less up to a half by chance, so that not all
workers ask at once."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AWAY = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE,
}  # fmt: skip
"""What a network filesystem gives while its server is away."""
_SIGNS = re.compile(
    "NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT|"
    r"UNAVAILABLE|HTTP status 5\d\d|status code: 5\d\d|error sending request|timed out|"
    "connection (closed|reset|refused)",
    re.IGNORECASE,
)
"""What pyarrow and obstore say of an object store that is away: they give no error numbers."""
_FULL_SIGNS = re.compile(r"\(os error (27|28|122)\)|No space left on device|errno 28\b")
"""What safetensors and pyarrow say of a full disk."""
_FULL_OBJECT_STORE = {"ObjectStoreFullError", "OutOfDiskError"}

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
            said = _first_line(error)
            if not _wait_on(place, said, clock()):
                raise OutageError(
                    f"{place} does not answer ({said}), and has not for {_span(_patience.get())}; "
                    f"{advice}, and run the same command again: it goes on"
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


@contextlib.contextmanager
def plainly(path: str) -> Iterator[None]:
    """Raise what is `plain` of an error: in words where the disk of `path` is full."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 – what is plain already is raised again
        found = plain(error, path)
        if found is error:
            raise
        raise found from error


def plain(error: Exception, path: str) -> Exception:
    """An error without what Ray has wrapped around it, and in words where it is a full disk or
    object store. `path`: where the sweep writes."""
    inner: BaseException | None = error
    while inner is not None:
        cause = getattr(inner, "cause", None)  # of a RayTaskError, which is of its type, too
        if isinstance(cause, Exception):
            inner = cause
        elif {kind.__name__ for kind in type(inner).__mro__} & _FULL_OBJECT_STORE:
            return OutageError(_object_store_full(inner))
        elif isinstance(inner, SftrayError):
            return inner
        elif isinstance(inner, Exception) and _is_full(inner):
            return OutageError(_no_room(path, inner))
        elif type(inner).__module__.startswith("ray."):
            inner = inner.__cause__ or inner.__context__
        else:
            return error
    return error


def _wait_on(place: str, said: str, now: float) -> bool:
    """Whether to go on waiting for a place that does not answer; says so the first time."""
    limit = _patience.get()
    with _lock:
        absence = _away.get(place)
        if absence is None or now - absence.last > PATIENCE_SECONDS:  # another absence
            _log.warning("%s does not answer (%s); trying again for %s", place, said, _span(limit))
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


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return bool(_FULL_SIGNS.search(str(error)))


def _no_room(path: str, error: Exception) -> str:
    """On which disk: safetensors and pyarrow do not name the file that they were writing."""
    written = getattr(error, "filename", None)
    where = Path(written if isinstance(written, str) else path)
    if is_uri(str(where)):  # what comes from there and goes there lies here for a moment
        where = Path(tempfile.gettempdir())
    usage = shutil.disk_usage(nearest_there(where))
    return (
        f"{where}: cannot be written, there is no room ({_first_line(error)}); {_size(usage.free)} "
        f"of {_size(usage.total)} are free on that disk. What has been written is whole: make room "
        "and run the same command again, it goes on"
    )


def _object_store_full(error: BaseException) -> str:
    return (
        f"Ray's object store is full ({_first_line(error)}): a node's /dev/shm, or the disk that "
        "it spills to; `sftray doctor` shows both. Give a container more shared memory (docker run "
        "--shm-size=8g), or start Ray with more (ray start --object-store-memory=BYTES) or another "
        "disk (--object-spilling-directory=PATH), and run the same command again: it goes on"
    )


def _first_line(error: BaseException) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0][:300]


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} s"


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
