"""What Ray raises, without what it has wrapped around it, and in words where it is an outage."""

from __future__ import annotations

from sftray.errors import OutageError, SftrayError
from sftray.storage.full_disk import is_full, no_room
from sftray.storage.outages import first_line

_FULL_OBJECT_STORE = {"ObjectStoreFullError", "OutOfDiskError"}


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
        elif isinstance(inner, Exception) and is_full(inner):
            return OutageError(no_room(path, inner))
        elif type(inner).__module__.startswith("ray."):
            inner = inner.__cause__ or inner.__context__
        else:
            return error
    return error


def _object_store_full(error: BaseException) -> str:
    return (
        f"Ray's object store is full ({first_line(error)}): a node's /dev/shm, or the disk that "
        "it spills to; `sftray doctor` shows both. Give a container more shared memory (docker run "
        "--shm-size=8g), or start Ray with more (ray start --object-store-memory=BYTES) or another "
        "disk (--object-spilling-directory=PATH), and run the same command again: it goes on"
    )
