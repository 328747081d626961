"""Read, write and copy on a local path or on any URI that pyarrow opens (s3://, gs://).

Promise: a file is there whole or not at all. Local writes go through a temporary name and an atomic
rename; object stores put whole objects. Storage that does not answer is asked again for minutes,
and a full disk is an OutageError that says where (`faults`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from pyarrow import BufferReader, fs

from sftray.errors import ConfigError, SftrayError
from sftray.storage import outages
from sftray.storage.faults import plainly
from sftray.storage.paths import is_uri, join

P = ParamSpec("P")
T = TypeVar("T")


_GCS_TRIES = "?retry_limit_seconds=10"
"""pyarrow would try for a quarter of an hour, and say nothing."""
_RETRIES = re.compile(r" in \S+, after \d+ retries, .* - ")
"""What obstore says of its own tries, between what it did and what went wrong."""


def patient(function: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
    """Have a function of a path wait where its storage is away; it must bear being done twice."""

    @functools.wraps(function)
    def waiting(path: str, /, *arguments: P.args, **options: P.kwargs) -> T:
        with plainly(path):
            return outages.patiently(place(path), lambda: function(path, *arguments, **options))

    return waiting


def place(path: str) -> str:
    """What is away when a path is out of reach: its bucket, or its folder."""
    if is_uri(path):
        return "/".join(path.split("/")[:3])
    return os.path.dirname(path)


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a path or URI, and the path within it."""
    if is_uri(path):
        gcs = path.startswith(("gs://", "gcs://")) and "?" not in path
        filesystem, inner = fs.FileSystem.from_uri(path + _GCS_TRIES if gcs else path)
        return filesystem, inner
    return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))


@patient
def info(path: str) -> fs.FileInfo:
    """Type, size and time of a file or folder, or that there is none."""
    filesystem, inner = resolve(path)
    return filesystem.get_file_info(inner)


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    return bool(info(path).type != fs.FileType.NotFound)


def is_file(path: str) -> bool:
    """Whether a file is there, and no folder."""
    return bool(info(path).type == fs.FileType.File)


@patient
def read_bytes(path: str) -> bytes:
    """The whole of a file."""
    filesystem, inner = resolve(path)
    with filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())


def read_text(path: str) -> str:
    """The whole of a UTF-8 file."""
    return read_bytes(path).decode("utf-8")


def read_object(path: str) -> dict[str, Any]:
    """The JSON object in a file. Raises SftrayError where it holds none."""
    data = read_bytes(path)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise SftrayError(
            f"{path}: got {data[:40]!r}, must be a JSON object", "restore the file from a copy"
        )
    return values


def write_text(path: str, text: str) -> None:
    """Write a UTF-8 file atomically, making its folder."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str, data: bytes) -> None:
    """Write a file atomically, making its folder."""
    _put(path, data)


@patient
def create(path: str, data: bytes) -> bool:
    """Write a file, making its folder, unless it is there; whether it was written.

    Of several that try at the same moment one gets True. (One gets False, too, where an
    object store retried a put that had succeeded: `data` then is what lies there.) Raises OSError
    where the storage is out of reach.
    """
    filesystem, inner = resolve(path)
    if isinstance(filesystem, fs.LocalFileSystem):
        with _written_beside(inner, io.BytesIO(data)) as temporary:
            try:
                os.link(temporary, inner)  # which, unlike a rename, replaces nothing
            except FileExistsError:
                return False
        return True
    from obstore import put
    from obstore.exceptions import AlreadyExistsError, BaseError

    bucket, _, key = inner.partition("/")
    region = filesystem.region if isinstance(filesystem, fs.S3FileSystem) else None
    try:
        put(_bucket(filesystem.type_name, bucket, region), key, data, mode="create")
    except AlreadyExistsError:
        return False
    except BaseError as error:
        reason = _RETRIES.sub(": ", str(error).partition("\n")[0])
        raise OSError(f"{path}: {reason}") from error
    return True


def make_folder(path: str) -> None:
    """Make a local folder and those above it, for the group where the one that is there is so."""
    missing = [one for one in (Path(path), *Path(path).parents) if not one.exists()]
    os.makedirs(path, exist_ok=True)
    for one in reversed(missing):
        _share(str(one))


def open_shared(path: str, flags: int) -> int:
    """A descriptor of a local file; where it is made here, for the group as its folder is."""
    is_new = not os.path.exists(path)
    descriptor = os.open(path, flags, 0o644)
    if is_new:
        _share(path)
    return descriptor


def _share(path: str) -> None:
    """Let the group write what was made in a folder that is shared with it: group-writable, and
    handing its group on (`chmod g+ws`)."""
    above = os.stat(os.path.dirname(path)).st_mode
    if above & stat.S_ISGID and above & stat.S_IWGRP:
        os.chmod(path, os.stat(path).st_mode | stat.S_IRGRP | stat.S_IWGRP)


def flush(file: IO[Any]) -> None:
    """Force what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


@patient
def list_names(folder: str) -> list[str]:
    """The sorted names of what lies directly in a folder; empty if it is not there."""
    filesystem, inner = resolve(folder)
    selector = fs.FileSelector(inner, allow_not_found=True)
    return sorted(info.base_name for info in filesystem.get_file_info(selector))


@patient
def list_below(folder: str) -> list[fs.FileInfo]:
    """All that lies in a folder and in the folders within it; empty if it is not there."""
    filesystem, inner = resolve(folder)
    selector = fs.FileSelector(inner, recursive=True, allow_not_found=True)
    return list(filesystem.get_file_info(selector))


@patient
def remove(path: str) -> None:
    """Delete a file, or a folder and what is in it, if it is there."""
    filesystem, inner = resolve(path)
    match filesystem.get_file_info(inner).type:
        case fs.FileType.Directory:
            filesystem.delete_dir(inner)
        case fs.FileType.File:
            filesystem.delete_file(inner)


def put_folder(local: Path, folder: str, *, last: str) -> None:
    """Copy a local folder's files, the file named `last` after all others.

    A reader that finds `last` finds all of it. An older folder of that name is replaced; of what
    cannot be written to its end nothing stays.
    """
    remove(folder)
    names = sorted(path.name for path in local.iterdir() if path.name != last)
    try:
        for name in [*names, last]:
            _put(join(folder, name), local / name)
    except OSError:
        with contextlib.suppress(OSError), outages.patience(0):
            remove(folder)
        raise


@patient
def get_folder(folder: str, local: Path | None = None) -> Path:
    """A copy of a folder's files in `local`, by default a new temporary folder, which is the
    caller's; the folder itself where it is local already."""
    filesystem, inner = resolve(folder)
    if not is_uri(folder):
        return Path(inner)
    local = local or Path(tempfile.mkdtemp(prefix="sftray-"))
    fs.copy_files(inner, str(local), source_filesystem=filesystem)
    return local


@functools.cache
def _bucket(kind: str, bucket: str, region: str | None) -> Any:
    """A bucket for what pyarrow cannot do: put an object only where there is none."""
    from obstore.store import GCSStore, S3Store

    if kind == "gcs":
        return GCSStore(bucket)
    if kind != "s3":
        raise ConfigError(f"storage: got {kind}://{bucket}, must be a path, s3:// or gs://")
    return S3Store(
        bucket,
        region=region,
        credential_provider=_aws_credentials(),
        client_options={"allow_http": True},  # as AWS_ENDPOINT_URL may name a server of one's own
        # `patient` waits, and says so
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=10)},
    )


def _aws_credentials() -> Any:
    """As boto3 finds them, where it is installed: obstore itself knows the environment and what a
    machine of AWS is given, but not the profiles of ~/.aws, which pyarrow reads."""
    if importlib.util.find_spec("boto3") is None:
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:  # it finds none
        return None


@patient
def _put(path: str, content: bytes | Path) -> None:
    """Write bytes, or what a local file holds, atomically."""
    filesystem, inner = resolve(path)
    # packs come as a buffer of Arrow's, which is not copied
    with open(content, "rb") if isinstance(content, Path) else BufferReader(content) as source:
        if isinstance(filesystem, fs.LocalFileSystem):
            with _written_beside(inner, source) as temporary:
                os.replace(temporary, inner)
        else:
            filesystem.create_dir(os.path.dirname(inner), recursive=True)
            with filesystem.open_output_stream(inner) as target:
                shutil.copyfileobj(source, target)


@contextlib.contextmanager
def _written_beside(inner: str, source: IO[bytes]) -> Iterator[str]:
    """The name of a temporary file with the content of another that is to come beside it, on the
    disk; it does not stay, whatever happens."""
    make_folder(os.path.dirname(inner))
    temporary = f"{inner}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "wb") as target:
            shutil.copyfileobj(source, target)
            flush(target)
        _share(temporary)
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)
