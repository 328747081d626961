"""Faults of the machine in plain words: a disk that is full, read-only or gone, a right or a
resource that is missing; which one it is, and what to do.

Promise: whoever reads or writes inside `plainly` raises an OutageError for them, which is not the
fault of a choice of hyper-parameters: the sweep stops, and no trial is blamed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from sftray.errors import OutageError, SftrayError
from sftray.storage.outages import first_line
from sftray.storage.paths import is_uri, nearest_there

AGAIN = "and run the same command to continue"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_SIGNS = re.compile(r"\(os error (27|28|122)\)|No space left on device|errno 28\b")
"""What safetensors and pyarrow say of a full disk."""
_OTHER_SIGNS = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]")
_REFUSED_SIGNS = re.compile(
    "ACCESS_?DENIED|EXPIRED_?TOKEN|INVALID_?ACCESS_?KEY|SIGNATURE_?DOES_?NOT_?MATCH|403 Forbidden",
    re.IGNORECASE,
)
"""What pyarrow and obstore say of a bucket that may not be used, or no longer."""

_RIGHTS = "give this user the right to it, or name another place"
_PROCESSES = "close what else holds files, or raise the limit (`ulimit -n`)"
_SERVER = "see that its disk or its server is up and mounted (`dmesg`)"
_FAULTS = {
    errno.EROFS: ("its filesystem is read-only", "see why (`dmesg`) and mount it for writing"),
    errno.EACCES: ("it may not be used", _RIGHTS),
    errno.EPERM: ("it may not be used", _RIGHTS),
    errno.ENOLCK: ("its filesystem gives no locks now", "see that its lock server is up"),
    errno.EMFILE: ("this process has too many open files", _PROCESSES),
    errno.ENFILE: ("this machine has too many open files", _PROCESSES),
    errno.ENOMEM: ("this machine has no memory left", "end what else needs it"),
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO),
        ("its storage is gone", _SERVER),
    ),
}
"""What else is a fault of the machine: what it is, and the fix."""


def in_words(error: Exception, path: str) -> Exception:
    """An OutageError where an error is a fault of the machine, else the error itself. `path`: what
    was read or written, where the error does not name it."""
    if isinstance(error, SftrayError):
        return error
    if _is_full(error):
        return _no_room(path, error)
    if words := _FAULTS.get(_number(error)):
        where = getattr(error, "filename", None) or path
        what, fix = words
        return OutageError(f"{where}: {what} ({first_line(error)})", hint=f"{fix}, {AGAIN}")
    if isinstance(error, OSError) and _REFUSED_SIGNS.search(str(error)):
        fix = "see that the key or role is valid and has the right to it"
        return OutageError(f"{path}: refused ({first_line(error)})", hint=f"{fix}, {AGAIN}")
    return error


class plainly:  # noqa: N801 – a context manager
    """Raise a fault of the machine in words; `words` makes these of others."""

    def __init__(self, path: str, words: Callable[[Exception, str], Exception] = in_words) -> None:
        self._path, self._words = path, words

    def __enter__(self) -> None:
        """Nothing is taken."""

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, Exception):
            said = self._words(error, self._path)
            if said is not error:
                raise said from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return bool(_FULL_SIGNS.search(str(error)))


def _number(error: Exception) -> int:
    """Of an error of the operating system, which libraries may have in their words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    sign = _OTHER_SIGNS.search(str(error))
    return int(sign[1] or sign[2]) if sign else 0


def _no_room(path: str, error: Exception) -> OutageError:
    """On which disk: safetensors and pyarrow do not name the file that they were writing."""
    written = getattr(error, "filename", None)
    where = Path(written if isinstance(written, str) else path)
    if is_uri(str(where)):  # what comes from there and goes there lies here for a moment
        where = Path(tempfile.gettempdir())
    disk = nearest_there(where)
    usage, counts = shutil.disk_usage(disk), os.statvfs(disk)
    what = "cannot be written, there is no room"
    left, fix = (
        f"{in_bytes(usage.free)} of {in_bytes(usage.total)} are free on that disk",
        "make room",
    )
    if counts.f_files and not counts.f_favail:
        what = "cannot be written, its disk has no inodes left"
        left = f"all {counts.f_files:,} files that it can hold are there, of whatever size"
        fix = "delete unused files, or name another disk,"
    return OutageError(
        f"{where}: {what} ({first_line(error)}); {left}. What has been written is whole",
        hint=f"{fix} {AGAIN}",
    )


def in_bytes(number: float) -> str:
    """A size for a person, in GB or MB."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
