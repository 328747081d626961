"""A source in pieces, and the rows of each piece: JSONL, Parquet and Hub datasets.

Promise: the borders of chunks depend on the files alone (1 MiB of JSONL, a Parquet row group, 2,048
rows of a Hub dataset) and every row lies in exactly one, so that whoever reads them in whatever
order sees the same rows.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from sftray.data.source.conversations import (
    COLUMNS,
    TOO_DEEP,
    TOO_MANY_DIGITS,
    TWICE,
    BadRowError,
    SourceRow,
    UnreadableRow,
)
from sftray.errors import DataError, OutageError
from sftray.storage import files
from sftray.storage.hub import asked_patiently

if TYPE_CHECKING:
    import datasets

CHUNK_BYTES = 1024**2
"""JSONL a chunk: small enough that 23 MB keep 2 cores busy to the end, large enough that a task is
cheap."""
CHUNK_ROWS = 2048
"""Hub rows a chunk."""
MAX_LINE_BYTES = 64 * 1024**2
"""A longer line is no conversation, but a file of another kind."""

NumberedRow = tuple[int, SourceRow]
"""(1-based line or row within the chunk, columns)."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a source that one task reads."""

    kind: str
    """jsonl, parquet or hub."""
    path: str
    """The file, or the Hub dataset's id."""
    start: int
    """First byte (jsonl), row group (parquet) or row (hub)."""
    stop: int
    """One past the last; a JSONL line belongs to the chunk in which it starts."""
    max_rows: int | None = None
    """Read no more rows than this."""
    split: str | None = None
    revision: str | None = None


class BadLineError(Exception):
    """A line that is no JSON object: its number within the chunk, and what is wrong with it."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Raise DataError where a source cannot be read, because of `what`."""
    try:
        yield
    except OutageError:
        raise
    except (ValueError, OSError) as error:
        raise DataError(f"{what} ({error})") from error


def chunks_of(
    kind: str,
    path: str,
    number: int,
    size: int,
    split: str | None = None,
    revision: str | None = None,
) -> list[Chunk]:
    """A file or dataset of `number` bytes, row groups or rows, so many at a time."""
    return [
        Chunk(kind, path, start, min(start + size, number), None, split, revision)
        for start in range(0, number, size)
    ]


def read_chunk(chunk: Chunk) -> Iterator[NumberedRow]:
    """The rows of a chunk; blank lines are skipped but counted. Raises DataError."""
    readers = {"jsonl": _read_jsonl, "parquet": _read_parquet, "hub": _read_hub}
    for number, row in enumerate(readers[chunk.kind](chunk)):
        if chunk.max_rows is not None and number >= chunk.max_rows:
            return
        yield row


def check_columns(row: SourceRow, spelling: str, line: int) -> None:
    """Raise BadLineError where a row lacks a column of its spelling."""
    if isinstance(row, UnreadableRow):
        return
    missing = [name for name in COLUMNS[spelling] if name not in row]
    if missing:
        raise BadLineError(
            line, f"has no column {', '.join(missing)} (it has {', '.join(row) or 'none'})"
        )


def count_rows(chunk: Chunk, *, blank: bool = False) -> int:
    """The rows of a chunk, with `blank` also its lines without any; of Parquet and the Hub without
    reading them."""
    if chunk.kind == "jsonl":
        return sum(1 for line in _lines(chunk) if blank or line.strip())
    if chunk.kind == "parquet":
        return int(open_parquet(chunk.path).metadata.row_group(chunk.start).num_rows)
    return chunk.stop - chunk.start


def load_hub(name: str, split: str, revision: str | None) -> datasets.Dataset:
    """A Hub dataset, or one in a folder. Raises DataError."""
    import datasets  # 1 s, and only Hub sources need it

    what = "is no .jsonl or .parquet file that is there, nor a dataset whose split"
    with readable(f"{name}: {what} {split!r} could be loaded from the Hub"):
        return asked_patiently(lambda: datasets.load_dataset(name, split=split, revision=revision))


def _read_jsonl(chunk: Chunk) -> Iterator[NumberedRow]:
    for number, line in enumerate(_lines(chunk), start=1):
        if not line.strip():
            continue
        try:
            row = _parse(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BadLineError(number, f"not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadLineError(number, f"got {line[:60]!r}, must be a JSON object")
        yield number, row


def _parse(line: bytes) -> object:
    """A line of JSON; an UnreadableRow where Python's limits or the line itself are in the way."""
    try:
        return json.loads(line, object_pairs_hook=_object)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        reason = TOO_DEEP
    except ValueError:
        reason = TOO_MANY_DIGITS
    except BadRowError as error:
        reason = str(error)
    return UnreadableRow(reason, line[:240].decode("utf-8", "replace"))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise BadRowError(TWICE)
    return values


def _lines(chunk: Chunk) -> list[bytes]:
    """The lines that start in [start, stop) of a file."""
    first = max(chunk.start - 1, 0)
    data = _whole_lines(chunk.path, first, chunk.stop)
    if chunk.start > 0:  # the byte before tells whether a line starts exactly here
        newline = data.find(b"\n", 0, chunk.stop - first - 1)
        if newline < 0:
            return []
        data = data[newline + 1 :]
    elif data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    lines = data.split(b"\n")
    return lines[:-1] if not lines[-1] else lines


@files.patient
def _whole_lines(path: str, first: int, stop: int) -> bytes:
    """A file's bytes from `first` to the end of the line that `stop` lies in."""
    filesystem, inner = files.resolve(path)
    with filesystem.open_input_file(inner) as file:
        parts: list[bytes] = [file.read_at(stop - first, first)]
        if len(parts[0]) < stop - first:
            raise DataError(
                f"{path}: became shorter while it was read", "run the same command again"
            )
        end = stop
        while not parts[-1].endswith(b"\n") and (more := file.read_at(256 * 1024, end)):
            end += len(more)
            parts.append(more[: more.find(b"\n") + 1] or more)
            if end - stop > MAX_LINE_BYTES:
                raise DataError(
                    f"{path}: got more than {MAX_LINE_BYTES:,} bytes without a line break, must be "
                    "JSON, a conversation a line"
                )
    return b"".join(parts)


def _read_parquet(chunk: Chunk) -> Iterator[NumberedRow]:
    file = open_parquet(chunk.path)
    with readable(f"{chunk.path}: row group {chunk.start} is damaged"):
        batches = file.iter_batches(row_groups=[chunk.start], batch_size=1024)
        rows = chain.from_iterable(batch.to_pylist() for batch in batches)
        yield from enumerate(rows, start=1)


def open_parquet(path: str) -> pq.ParquetFile:
    """A Parquet file, its rows unread. Raises DataError."""
    with readable(f"{path}: not a Parquet file"):
        return _parquet_file(path)


@files.patient
def _parquet_file(path: str) -> pq.ParquetFile:
    filesystem, inner = files.resolve(path)
    return pq.ParquetFile(inner, filesystem=filesystem)


def _read_hub(chunk: Chunk) -> Iterator[NumberedRow]:
    dataset = _hub_for_reading(chunk.path, chunk.split or "train", chunk.revision)
    yield from enumerate(dataset.select(range(chunk.start, chunk.stop)), start=1)


@functools.lru_cache(maxsize=2)
def _hub_for_reading(name: str, split: str, revision: str | None) -> datasets.Dataset:
    """A Hub dataset, opened once a process however many of its chunks it reads."""
    return load_hub(name, split, revision)
