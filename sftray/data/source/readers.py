"""A source in pieces, and the rows of each piece: JSONL, Parquet, and what `datasets` reads.

Promise: the borders of chunks depend on the files alone (1 MiB of JSONL, a Parquet row group, 2,048
rows of another table or of a Hub dataset) and every row lies in exactly one, so that whoever reads
them in whatever order sees the same rows. JSON arrays, CSV, TSV, Arrow and compressed files become
an Arrow table in the cache of `datasets`, once a node.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from sftray.data.source.conversations import (
    TOO_MANY_DIGITS,
    TWICE,
    TableRow,
    UnreadableRow,
    spelling_of,
)
from sftray.data.source.row_keys import COLUMNS, BadRowError, SourceRow
from sftray.data.source.table_files import MAX_LINE_BYTES, load_hub, load_table, no_lines, readable
from sftray.data.source.turns import TOO_DEEP
from sftray.errors import DataError
from sftray.storage import files

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
    """jsonl, parquet, hub or, for a file that `datasets` reads, table."""
    path: str
    """The file, or the Hub dataset's id."""
    start: int
    """First byte (jsonl), row group (parquet) or row."""
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
    readers = {"jsonl": _read_jsonl, "parquet": _read_parquet}
    for number, row in enumerate(readers.get(chunk.kind, _read_table)(chunk)):
        if chunk.max_rows is not None and number >= chunk.max_rows:
            return
        yield row


def renamed(row: SourceRow, names: Mapping[str, str]) -> SourceRow:
    """A row whose columns are called as `names` says; another of such a name is not read."""
    if isinstance(row, UnreadableRow):
        return row
    taken = set(names.values())
    called = {
        names.get(name, f"{name} (not mapped)" if name in taken else name): value
        for name, value in row.items()
    }
    return TableRow(called) if isinstance(row, TableRow) else called


def check_columns(row: SourceRow, spelling: str, line: int) -> None:
    """Raise BadLineError where a row lacks a column of its spelling, or with "auto" of any."""
    if isinstance(row, UnreadableRow) or (spelling == "auto" and spelling_of(row)):
        return
    if spelling == "auto":
        known = "; ".join(" and ".join(names) for names in COLUMNS.values())
        raise BadLineError(
            line, f"got the columns {', '.join(row) or 'none'}, must have one of: {known}"
        )
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
                raise no_lines(path)
    return b"".join(parts)


def _read_parquet(chunk: Chunk) -> Iterator[NumberedRow]:
    file = open_parquet(chunk.path)
    with readable(f"{chunk.path}: row group {chunk.start} is damaged"):
        batches = file.iter_batches(row_groups=[chunk.start], batch_size=1024)
        rows = chain.from_iterable(batch.to_pylist() for batch in batches)
        yield from enumerate(map(TableRow, rows), start=1)


def open_parquet(path: str) -> pq.ParquetFile:
    """A Parquet file, its rows unread. Raises DataError."""
    with readable(f"{path}: not a Parquet file"):
        return _parquet_file(path)


@files.patient
def _parquet_file(path: str) -> pq.ParquetFile:
    filesystem, inner = files.resolve(path)
    return pq.ParquetFile(inner, filesystem=filesystem)


def _read_table(chunk: Chunk) -> Iterator[NumberedRow]:
    if chunk.kind == "table":
        dataset = load_table(chunk.path)
    else:
        dataset = _hub_for_reading(chunk.path, chunk.split or "train", chunk.revision)
    rows = map(TableRow, dataset.select(range(chunk.start, chunk.stop)))
    yield from enumerate(rows, start=1)


@functools.lru_cache(maxsize=2)
def _hub_for_reading(name: str, split: str, revision: str | None) -> datasets.Dataset:
    """A Hub dataset, opened once a process however many of its chunks it reads."""
    return load_hub(name, split, revision)
