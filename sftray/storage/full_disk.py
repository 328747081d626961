"""A full disk in plain words: which one, how full, and what to do.

Promise: whoever writes inside `plainly` raises an OutageError where there is no room.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from sftray.errors import OutageError, SftrayError
from sftray.storage.outages import first_line
from sftray.storage.paths import is_uri, nearest_there

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_SIGNS = re.compile(r"\(os error (27|28|122)\)|No space left on device|errno 28\b")
"""What safetensors and pyarrow say of a full disk."""


def in_words(error: Exception, path: str) -> Exception:
    """An OutageError where the disk of `path` is full, else the error itself."""
    full = is_full(error) and not isinstance(error, SftrayError)
    return OutageError(no_room(path, error)) if full else error


class plainly:  # noqa: N801 – a context manager
    """Raise an error in words where the disk of `path` is full; `words` makes these of others."""

    def __init__(self, path: str, words: Callable[[Exception, str], Exception] = in_words) -> None:
        self._path, self._words = path, words

    def __enter__(self) -> None:
        """Nothing is taken."""

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, Exception):
            said = self._words(error, self._path)
            if said is not error:
                raise said from error


def is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return bool(_FULL_SIGNS.search(str(error)))


def no_room(path: str, error: Exception) -> str:
    """On which disk: safetensors and pyarrow do not name the file that they were writing."""
    written = getattr(error, "filename", None)
    where = Path(written if isinstance(written, str) else path)
    if is_uri(str(where)):  # what comes from there and goes there lies here for a moment
        where = Path(tempfile.gettempdir())
    usage = shutil.disk_usage(nearest_there(where))
    return (
        f"{where}: cannot be written, there is no room ({first_line(error)}); {_size(usage.free)} "
        f"of {_size(usage.total)} are free on that disk. What has been written is whole: make room "
        "and run the same command again, it goes on"
    )


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
