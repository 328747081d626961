"""A source in pieces, and the rows of each piece: JSONL, Parquet and Hub datasets.

Promise: the borders of chunks depend on the files alone (1 MiB of JSONL, a Parquet row group, 2,048
rows of a Hub dataset) and every row lies in exactly one, so that whoever reads them in whatever
order sees the same rows.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from sftray.data.source.conversations import COLUMNS, SourceRow
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


def jsonl_chunks(path: str, size: int, chunk_bytes: int) -> list[Chunk]:
    """A JSONL file of `size` bytes, `chunk_bytes` at a time."""
    starts = range(0, size, chunk_bytes)
    return [Chunk("jsonl", path, start, min(start + chunk_bytes, size)) for start in starts]


def parquet_chunks(path: str) -> list[Chunk]:
    """A Parquet file, a row group at a time. Raises DataError."""
    groups = _open_parquet(path).metadata.num_row_groups
    return [Chunk("parquet", path, group, group + 1) for group in range(groups)]


def hub_chunks(
    name: str, split: str, revision: str | None, rows: int, chunk_rows: int
) -> list[Chunk]:
    """A Hub dataset, `chunk_rows` at a time."""
    return [
        Chunk("hub", name, start, min(start + chunk_rows, rows), None, split, revision)
        for start in range(0, rows, chunk_rows)
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
    missing = [name for name in COLUMNS[spelling] if name not in row]
    if missing:
        raise BadLineError(
            line, f"has no column {', '.join(missing)} (it has {', '.join(row) or 'none'})"
        )


def count_rows(chunk: Chunk) -> int:
    """The rows of a chunk; of Parquet and the Hub without reading them."""
    if chunk.kind == "jsonl":
        return sum(1 for line in _lines(chunk) if line.strip())
    return count_lines(chunk)


def count_lines(chunk: Chunk) -> int:
    """The lines or rows that a chunk takes up, blank lines too."""
    if chunk.kind == "jsonl":
        return len(_lines(chunk))
    if chunk.kind == "parquet":
        return int(_open_parquet(chunk.path).metadata.row_group(chunk.start).num_rows)
    return chunk.stop - chunk.start


def load_hub(name: str, split: str, revision: str | None) -> datasets.Dataset:
    """A Hub dataset, or one in a folder. Raises DataError."""
    import datasets  # 1 s, and only Hub sources need it

    try:
        return asked_patiently(lambda: datasets.load_dataset(name, split=split, revision=revision))
    except OutageError:
        raise
    except (ValueError, OSError) as error:
        raise DataError(
            f"{name}: is no .jsonl or .parquet file that is there, nor a dataset whose split "
            f"{split!r} could be loaded from the Hub ({error})"
        ) from error


def _read_jsonl(chunk: Chunk) -> Iterator[NumberedRow]:
    for number, line in enumerate(_lines(chunk), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BadLineError(number, f"not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadLineError(number, f"got {line[:60]!r}, must be a JSON object")
        yield number, row


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
        data: bytes = file.read_at(stop - first, first)
        while data and not data.endswith(b"\n"):
            more = file.read_at(256 * 1024, stop)
            if not more:
                break
            stop += len(more)
            data += more[: more.find(b"\n") + 1] or more
    return data


def _read_parquet(chunk: Chunk) -> Iterator[NumberedRow]:
    number = 0
    for batch in _open_parquet(chunk.path).iter_batches(row_groups=[chunk.start], batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _open_parquet(path: str) -> pq.ParquetFile:
    try:
        return _parquet_file(path)
    except OutageError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error


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
