"""Read, write and copy on a local path or on any URI that pyarrow opens (s3://, gs://).

Promise: a file is there whole or not at all. Local writes go through a temporary name and an atomic
rename; object stores put whole objects.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import IO, Any

from pyarrow import fs

from sftray.paths import is_uri, join


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a path or URI, and the path within it."""
    if is_uri(path):
        filesystem, inner = fs.FileSystem.from_uri(path)
        return filesystem, inner
    return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, inner = resolve(path)
    return bool(filesystem.get_file_info(inner).type != fs.FileType.NotFound)


def read_bytes(path: str) -> bytes:
    """The whole of a file."""
    filesystem, inner = resolve(path)
    with filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())


def read_text(path: str) -> str:
    """The whole of a UTF-8 file."""
    return read_bytes(path).decode("utf-8")


def write_text(path: str, text: str) -> None:
    """Write a UTF-8 file atomically, making its folder."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str, data: bytes) -> None:
    """Write a file atomically, making its folder."""
    filesystem, inner = resolve(path)
    filesystem.create_dir(os.path.dirname(inner), recursive=True)
    if is_uri(path):
        with filesystem.open_output_stream(inner) as stream:
            stream.write(data)
        return
    temporary = f"{inner}.{uuid.uuid4().hex[:8]}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
        flush(file)
    os.replace(temporary, inner)


def flush(file: IO[Any]) -> None:
    """Force what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def list_names(folder: str) -> list[str]:
    """The sorted names of what lies directly in a folder; empty if it is not there."""
    filesystem, inner = resolve(folder)
    selector = fs.FileSelector(inner, allow_not_found=True)
    return sorted(info.base_name for info in filesystem.get_file_info(selector))


def remove_folder(folder: str) -> None:
    """Delete a folder and what is in it, if it is there."""
    filesystem, inner = resolve(folder)
    if filesystem.get_file_info(inner).type == fs.FileType.Directory:
        filesystem.delete_dir(inner)


def put_folder(local: Path, folder: str, *, last: str) -> None:
    """Copy a local folder's files, the file named `last` after all others.

    A reader that finds `last` finds all of it. An older folder of that name is replaced.
    """
    remove_folder(folder)
    names = sorted(path.name for path in local.iterdir() if path.name != last)
    for name in [*names, last]:
        _put(local / name, join(folder, name))


def get_folder(folder: str, local: Path | None = None) -> Path:
    """A copy of a folder's files in `local`, by default a new temporary folder, which is the
    caller's; the folder itself where it is local already."""
    filesystem, inner = resolve(folder)
    if not is_uri(folder):
        return Path(inner)
    local = local or Path(tempfile.mkdtemp(prefix="sftray-"))
    local.mkdir(parents=True, exist_ok=True)
    for info in filesystem.get_file_info(fs.FileSelector(inner)):
        if info.type == fs.FileType.File:
            with (
                filesystem.open_input_stream(info.path) as source,
                open(local / info.base_name, "wb") as target,
            ):
                shutil.copyfileobj(source, target)
    return local


def _put(source: Path, path: str) -> None:
    filesystem, inner = resolve(path)
    filesystem.create_dir(os.path.dirname(inner), recursive=True)
    target = inner if is_uri(path) else f"{inner}.{uuid.uuid4().hex[:8]}.tmp"
    with open(source, "rb") as read, filesystem.open_output_stream(target) as write:
        shutil.copyfileobj(read, write)
    if target != inner:
        os.replace(target, inner)
