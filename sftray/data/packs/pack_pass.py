"""The second pass: packed rows, gathered from the tokenised chunks into Arrow files.

Promise: a part holds 2 million positions whatever the dataset's size, and its bytes depend on its
rows alone.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sftray.data.packs.manifest import PartFile
from sftray.data.packs.packing import Ints, Rows
from sftray.data.packs.packs import localise
from sftray.data.packs.tokenize_pass import (
    KIND_BIT,
    TOKEN_BYTES,
    ChunkReport,
    Kept,
    chunk_file,
)
from sftray.storage import files
from sftray.storage.paths import PacksPaths, is_uri, name_of, node_cache

UNTRAINED = -100


@dataclass(frozen=True)
class Documents:
    """The conversations that were kept of all chunks, in source order."""

    kept: Kept
    first: Ints
    """First document of each chunk, and their number: [chunks + 1]."""
    rows_before: Ints
    """Rows of the source before each chunk."""

    @classmethod
    def of(cls, reports: Sequence[ChunkReport]) -> Documents:
        """From the reports of all chunks."""
        return cls(
            np.concatenate([report.kept for report in reports]),
            first=np.cumsum([0, *(len(report.kept) for report in reports)]),
            rows_before=np.cumsum([0, *(report.rows for report in reports)]),
        )

    def chunk(self, documents: Ints) -> Ints:
        """The chunks of some documents."""
        return np.searchsorted(self.first, documents, side="right") - 1

    def ordinal(self, documents: Ints) -> Ints:
        """Their rows of the source, counted from 0 over all its files."""
        ordinals: Ints = self.kept["row"][documents] + self.rows_before[self.chunk(documents)]
        return ordinals


class PartPlan(NamedTuple):
    """One part to write."""

    split: str
    number: int
    row_sizes: Ints
    """Documents of each row."""
    folder: str
    """Where the tokens of its documents lie, and in `file` which they are."""
    file: str


def plan_parts(
    split: str, rows: Rows, documents: Documents, size: int, folder: str, first: int
) -> Iterator[PartPlan]:
    """What each part holds, most of it in a file, so that the driver never holds it all.

    `rows` hold indices into `documents`, `size` of them a part; `folder` is where their tokens lie.
    Parts are counted from `first`.
    """
    length = documents.kept["length"]
    starts = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    for number, start in enumerate(range(0, len(rows), size), start=first):
        edges = rows.edges[start : start + size + 1]
        mine = rows.documents[edges[0] : edges[-1]]
        chunk = documents.chunk(mine)
        offset = starts[mine] - starts[documents.first[chunk]]
        columns = (chunk, offset, length[mine], documents.ordinal(mine))
        file = f"{folder}/{split}-{number:05d}.plan"
        files.write_bytes(file, np.stack(columns, dtype=np.int64).tobytes())
        yield PartPlan(split, number, np.diff(edges), folder, file)


def gather_part(plan: PartPlan, *, root: str, max_length: int, pad_token_id: int) -> PartFile:
    """Write one part."""
    _forget_old_builds()
    sizes = plan.row_sizes
    columns = np.frombuffer(files.read_bytes(plan.file), np.int64)
    chunk, offset, length, ordinal = columns.reshape(4, -1)
    row = np.repeat(np.arange(len(sizes)), sizes)
    before = np.cumsum(length) - length
    first = np.cumsum(sizes) - sizes
    place = before - before[first][row]
    tokens = np.full((len(sizes), max_length), ~np.int32(pad_token_id), np.int32)
    _read_tokens(plan.folder, chunk, offset, length, tokens, row * max_length + place)
    used = np.add.reduceat(length, first)
    data = _arrow(tokens, used, sizes, length, ordinal, with_kinds=plan.split == "eval")
    path = PacksPaths(root).part(plan.split, plan.number)
    files.write_bytes(path, data)
    return {
        "name": name_of(path),
        "rows": len(sizes),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


@functools.cache
def _forget_old_builds() -> None:
    """Delete this node's copies of tokenised chunks from builds of a day ago and more."""
    for old in (node_cache() / "packs").glob("**/tmp-*"):
        if time.time() - old.stat().st_mtime > 86_400:
            shutil.rmtree(old, ignore_errors=True)


def _read_tokens(
    folder: str, chunk: Ints, offset: Ints, length: Ints, tokens: NDArray[np.int32], place: Ints
) -> None:
    """Copy documents from their chunks' files to their places in `tokens`, flat.

    They are read, not mapped: the pages of a mapped file would count as this process's memory, all
    chunks of a large source in the end.
    """
    target = tokens.reshape(-1).view(np.uint8).data
    order = np.lexsort((offset, chunk))
    edges = np.flatnonzero(np.diff(chunk[order], prepend=-1, append=-1))
    for start, stop in pairwise(edges.tolist()):
        mine = order[start:stop]
        path = chunk_file(folder, int(chunk[mine[0]]))
        local = localise(folder, name_of(path)) if is_uri(folder) else path
        spans = zip(offset[mine].tolist(), length[mine].tolist(), place[mine].tolist(), strict=True)
        with open(local, "rb", buffering=0) as file:
            for first, size, at in spans:
                file.seek(first * TOKEN_BYTES)
                file.readinto(target[at * TOKEN_BYTES : (at + size) * TOKEN_BYTES])


def _arrow(
    tokens: NDArray[np.int32],
    used: Ints,
    sizes: Ints,
    length: Ints,
    ordinal: Ints,
    *,
    with_kinds: bool,
) -> pa.Buffer:
    """The columns of docs/architecture.md, "Packs", as an Arrow IPC stream.

    `tokens` are as chunks hold them; `used` are tokens a row, `sizes` documents a row.
    """
    rows, max_length = tokens.shape
    flat = tokens.reshape(-1)
    padded = used < max_length
    ends = np.cumsum(sizes)
    lengths = np.insert(length, ends[padded], (max_length - used)[padded])
    whole = np.full(rows, max_length)
    ids = np.where(flat < 0, ~flat, flat & np.int32((1 << KIND_BIT) - 1))
    columns = {
        "input_ids": (ids, whole),
        "labels": (np.where(flat < 0, np.int32(UNTRAINED), ids), whole),
        "seq_lengths": (lengths.astype(np.int32), sizes + padded),
        "documents": (ordinal, sizes),
    }
    if with_kinds:
        columns["kinds"] = (np.where(flat < 0, 0, flat >> KIND_BIT).astype(np.int8), whole)
    table = pa.table({name: _lists(*column) for name, column in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _lists(values: NDArray[np.signedinteger], sizes: Ints) -> pa.ListArray:
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(edges), pa.array(values))
