"""What Ray raises, without what it has wrapped around it, and in words where it is an outage."""

from __future__ import annotations

from sftray.cluster.ray_watch import lost
from sftray.errors import OutageError, SftrayError
from sftray.storage.faults import AGAIN, in_words
from sftray.storage.outages import first_line

_FULL_OBJECT_STORE = {"ObjectStoreFullError", "OutOfDiskError"}


def plain(error: Exception, path: str) -> Exception:
    """An error without what Ray has wrapped around it, and in words where it is a fault of the
    machine. `path`: where the sweep writes."""
    if not isinstance(error, SftrayError) and (gone := lost()):
        return gone  # whatever has failed, has failed by that
    inner: BaseException | None = error
    while inner is not None:
        cause = getattr(inner, "cause", None)  # of a RayTaskError, which is of its type, too
        if isinstance(cause, Exception):
            inner = cause
        elif {kind.__name__ for kind in type(inner).__mro__} & _FULL_OBJECT_STORE:
            return _object_store_full(inner)
        elif isinstance(inner, SftrayError):
            return inner
        elif isinstance(inner, Exception) and (words := in_words(inner, path)) is not inner:
            return words
        elif type(inner).__module__.startswith("ray."):
            inner = inner.__cause__ or inner.__context__
        else:
            return error
    return error


def _object_store_full(error: BaseException) -> OutageError:
    return OutageError(
        f"Ray's object store is full ({first_line(error)}): a node's /dev/shm, or the disk that it "
        "spills to; `sftray doctor` shows both",
        hint="give a container more shared memory (docker run --shm-size=8g), or start Ray with "
        "more (ray start --object-store-memory=BYTES) or another disk "
        f"(--object-spilling-directory=PATH), {AGAIN}",
    )
