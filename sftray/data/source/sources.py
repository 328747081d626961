"""Where conversations come from: the files, URIs and Hub datasets that a name stands for.

Promise: a source that opens is there and not empty, and its fingerprint changes when its content
does. A file that cannot be read is a DataError that names the file and the line.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from pyarrow import fs

from sftray.data.source.conversations import UnreadableRow
from sftray.data.source.readers import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    BadLineError,
    Chunk,
    NumberedRow,
    check_columns,
    chunks_of,
    count_rows,
    open_parquet,
    read_chunk,
    renamed,
)
from sftray.data.source.row_keys import SourceRow
from sftray.data.source.table_files import SUFFIXES, kind_of, load_hub, load_table, readable
from sftray.errors import DataError
from sftray.storage import files as storage_files
from sftray.storage.paths import is_uri

HASHED_WHOLE_BYTES = 128 * 1024**2
"""Files up to this size are fingerprinted whole; larger ones by size, time and both ends."""

_SAMPLED_CHUNKS = 4
"""Chunks that an estimate looks at."""


@dataclass(frozen=True)
class Source:
    """A dataset that was found: what to read, and what tells its content from another's."""

    name: str
    chunks: tuple[Chunk, ...]
    fingerprint: str
    size: int
    """Bytes of the files; rows of a Hub dataset."""
    files: tuple[tuple[str, int, int], ...] = ()
    """Each file with its size and time."""
    revision: str | None = None
    """The commit of a Hub dataset."""
    names: tuple[tuple[str, str], ...] = ()
    """Columns that have another name here, and that name."""

    def read(self, number: int) -> Iterator[NumberedRow]:
        """The rows of one chunk."""
        rows = read_chunk(self.chunks[number])
        return (
            ((line, renamed(row, dict(self.names))) for line, row in rows) if self.names else rows
        )


def open_source(
    name: str,
    *,
    split: str,
    revision: str | None = None,
    max_rows: int | None = None,
    columns: str | Mapping[str, str] = "auto",
    chunk_bytes: int = CHUNK_BYTES,
    chunk_rows: int = CHUNK_ROWS,
) -> Source:
    """Find a dataset and cut it into chunks, at most `max_rows` rows from its start: JSONL by
    `chunk_bytes`, tables and what is on the Hub by `chunk_rows`. `columns` may rename them.

    Raises DataError where there is no such file, dataset or split, or where it is empty.
    """
    if not names_files(name):
        source = _open_hub(name, split, revision, chunk_rows)
    elif split == "train":
        source = _open_files(name, chunk_bytes, chunk_rows)
    else:
        raise DataError(
            f"{name}: files have no splits, got {split!r}, must be 'train'; for an evaluation set "
            "of its own give data.eval_source"
        )
    if source.size == 0 or not source.chunks:
        raise DataError(f"{name}: the dataset is empty, must hold at least one conversation")
    if max_rows is not None:
        source = replace(source, chunks=tuple(_first_rows(source.chunks, max_rows)))
    if not isinstance(columns, str):
        source = replace(source, names=tuple(columns.items()))
    return source


def check_unchanged(source: Source) -> None:
    """Raise DataError where a file is no longer the one that the fingerprint was taken of."""
    for path, *facts in source.files:
        info = storage_files.info(path)
        if [info.size, info.mtime_ns] != facts:
            raise DataError(f"{path}: changed while it was read", "run the same command again")


def check_spelling(source: Source, spelling: str) -> None:
    """Raise DataError where the first row is not spelled so, or with "auto" in no known way."""
    for chunk, (line, row) in _rows(source):
        try:
            check_columns(row, spelling, line)
        except BadLineError as error:
            raise DataError(f"{chunk.path}, line {line}: {error.message}") from error
        return
    raise DataError(
        f"{source.name}: the dataset is empty or none of its lines can be read, must hold at least "
        "one conversation"
    )


def first_rows(source: Source, number: int) -> list[SourceRow]:
    """The first rows of a source."""
    return [row for _, (_, row) in islice(_rows(source), number)]


def sample_rows(source: Source, number: int, spelling: str) -> tuple[list[NumberedRow], int]:
    """About `number` rows from evenly spaced chunks, and how many rows the source may have.

    Exact where the source has no more chunks than are looked at, and for Parquet and the Hub. A row
    is numbered as in its file; as 0 in a source of several files, or above HASHED_WHOLE_BYTES.
    Raises DataError, with file and line, where a row has not the columns of its spelling.
    """
    places = sorted(
        {*np.linspace(0, len(source.chunks) - 1, _SAMPLED_CHUNKS).round().astype(int).tolist()}
    )
    counts = {place: count_rows(source.chunks[place]) for place in places}
    each = -(-number // len(places))
    is_numbered = len({chunk.path for chunk in source.chunks}) == 1 and (
        len(places) == 1 or source.size <= HASHED_WHOLE_BYTES
    )
    rows: list[NumberedRow] = []
    for place in places:
        before = _rows_before(source, place) if is_numbered else 0
        try:
            for line, row in islice(source.read(place), each):
                check_columns(row, spelling, line)
                rows.append((before + line if is_numbered else 0, row))
        except BadLineError as error:
            raise located(source, place, error) from error
    if any(chunk.kind != "jsonl" for chunk in source.chunks):
        return rows, sum(count_rows(chunk) for chunk in source.chunks)
    looked_at = sum(source.chunks[place].stop - source.chunks[place].start for place in places)
    return rows, round(sum(counts.values()) * source.size / looked_at)


def located(source: Source, number: int, error: BadLineError) -> DataError:
    """The error with the file and the line that it is about."""
    line = _rows_before(source, number) + error.line
    return DataError(f"{source.chunks[number].path}, line {line}: {error.message}")


def _rows_before(source: Source, number: int) -> int:
    """Rows of a chunk's file before it, blank lines too."""
    path = source.chunks[number].path
    chunks = (chunk for chunk in source.chunks[:number] if chunk.path == path)
    return sum(count_rows(chunk, blank=True) for chunk in chunks)


def _rows(source: Source) -> Iterator[tuple[Chunk, NumberedRow]]:
    for number, chunk in enumerate(source.chunks):
        try:
            for line, row in source.read(number):
                if not isinstance(row, UnreadableRow):
                    yield chunk, (line, row)
        except BadLineError as error:
            raise located(source, number, error) from error


def names_files(name: str) -> bool:
    """Whether a source is files rather than a dataset for `load_dataset`."""
    if is_uri(name) or any(character in name for character in "*?["):
        return True
    return os.path.isfile(os.path.expanduser(name)) or name.endswith(SUFFIXES)


def _open_files(name: str, chunk_bytes: int, chunk_rows: int) -> Source:
    listed = _list_files(name)
    chunks: list[Chunk] = []
    digest = hashlib.sha256()
    for info, path in listed:
        with readable(f"{path}: cannot be read"):
            digest.update(_file_fingerprint(info, path).encode())
            kind = kind_of(path)
        if kind == "parquet":
            chunks += chunks_of(kind, path, open_parquet(path).metadata.num_row_groups, 1)
        elif kind == "table":
            digest.update(os.path.splitext(path)[1].encode())
            chunks += chunks_of(kind, path, len(load_table(path)), chunk_rows)
        else:
            chunks += chunks_of(kind, path, info.size, chunk_bytes)
    files = tuple((path, info.size, info.mtime_ns) for info, path in listed)
    size = sum(info.size for info, _ in listed)
    return Source(name, tuple(chunks), digest.hexdigest(), size, files)


def _list_files(name: str) -> list[tuple[fs.FileInfo, str]]:
    """The files that a path, glob or URI names, in the order of their names."""
    with readable(f"{name}: cannot be read"):
        if is_uri(name):
            files = _list_uri(name)
        else:
            paths = sorted(glob.glob(os.path.expanduser(name), recursive=True))
            paths = paths or [name]
            files = [(fs.LocalFileSystem().get_file_info(os.path.abspath(p)), p) for p in paths]
    regular = [(info, path) for info, path in files if info.type == fs.FileType.File]
    if not regular and all(info.type == fs.FileType.NotFound for info, _ in files):
        raise DataError(f"{name}: there is no such file")
    if not regular:
        kind = "a folder" if files[0][0].type == fs.FileType.Directory else "no regular file"
        raise DataError(
            f"{name}: is {kind}, must be a file", "name files, as in 'folder/*.jsonl' with quotes"
        )
    return regular


def _list_uri(name: str) -> list[tuple[fs.FileInfo, str]]:
    """Files of a URI whose path may hold * and ?; the scheme and bucket may not."""
    wild = re.search(r"[*?\[]", name)
    if wild is None:
        return [(storage_files.info(name), name)]
    folder = name[: name.rindex("/", 0, wild.start())]
    _, inner = storage_files.resolve(folder)
    files = []
    for info in storage_files.list_below(folder):
        rest = info.path[len(inner) :].lstrip("/")
        if fnmatch.fnmatchcase(rest, name[len(folder) + 1 :]):
            files.append((info, f"{folder}/{rest}"))
    return sorted(files, key=lambda item: item[1])


def _file_fingerprint(info: fs.FileInfo, path: str) -> str:
    """Changes when the file's bytes do; the path is no part of it."""
    filesystem, inner = storage_files.resolve(path)
    if is_uri(path) and not path.startswith("file://"):
        return f"{os.path.basename(path)} {info.size} {info.mtime_ns}"
    with filesystem.open_input_file(inner) as file:
        if info.size <= HASHED_WHOLE_BYTES:
            return hashlib.sha256(file.read_buffer()).hexdigest()
        ends = hashlib.sha256(file.read_at(1024**2, 0))
        ends.update(file.read_at(1024**2, info.size - 1024**2))
        return f"{ends.hexdigest()} {info.size} {info.mtime_ns}"


def _open_hub(name: str, split: str, revision: str | None, chunk_rows: int) -> Source:
    revision = _pinned(name, revision)
    dataset = load_hub(name, split, revision)
    chunks = chunks_of("hub", name, len(dataset), chunk_rows, split, revision)
    fingerprint = f"{split} {dataset._fingerprint}"
    return Source(name, tuple(chunks), fingerprint, len(dataset), revision=revision)


def _pinned(name: str, revision: str | None) -> str | None:
    """The commit that a Hub revision stands for now; as given for folders and without network."""
    if os.path.isdir(name):
        return revision
    from huggingface_hub import HfApi

    from sftray.storage.hub_errors import HUB_ERRORS

    try:
        return str(HfApi().dataset_info(name, revision=revision, timeout=10).sha)
    except HUB_ERRORS:
        return revision  # loading says what is wrong, or finds it in the cache


def _first_rows(chunks: tuple[Chunk, ...], max_rows: int) -> Iterator[Chunk]:
    """The chunks that hold the first `max_rows` rows, the last of them cut short."""
    for chunk in chunks:
        if max_rows <= 0:
            return
        yield replace(chunk, max_rows=max_rows)
        max_rows -= count_rows(chunk)
