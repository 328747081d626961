"""The second pass: packed rows, gathered from the tokenised chunks into Arrow files.

Promise: a part holds 2 million positions whatever the dataset's size, and its bytes depend on its
rows alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sftray import storage as files
from sftray.data.packs import localise
from sftray.data.tokenise import chunk_file
from sftray.paths import PacksPaths, is_uri, node_cache

PART_POSITIONS = 2**21
"""Tokens and padding a part: 16 MiB of ids and labels."""
UNTRAINED = -100

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Documents:
    """Where the conversations that were kept lie among the tokenised chunks, in source order."""

    chunk: Ints
    offset: Ints
    """First token within the chunk's file."""
    length: Ints
    ordinal: Ints
    """Row of the source, counted from 0 over all its files."""


def part_items(
    split: str, rows: Sequence[Ints], documents: Documents, max_length: int
) -> Iterator[dict[str, Any]]:
    """One Ray Data item a part; `rows` hold indices into `documents`."""
    size = max(1, PART_POSITIONS // max_length)
    for number, start in enumerate(range(0, len(rows), size)):
        mine = rows[start : start + size]
        where = np.concatenate(mine)
        columns = (documents.chunk, documents.offset, documents.length, documents.ordinal)
        yield {
            "split": split,
            "part": number,
            "row_sizes": np.array([len(row) for row in mine], np.int64).tobytes(),
            "documents": np.stack([column[where] for column in columns]).tobytes(),
        }


def gather_part(
    item: dict[str, Any], *, root: str, folder: str, max_length: int, pad_token_id: int
) -> dict[str, Any]:
    """A Ray Data task: write one part, and report its size, checksum and counts."""
    _forget_old_builds()
    sizes = np.frombuffer(item["row_sizes"], np.int64)
    chunk, offset, length, ordinal = np.frombuffer(item["documents"], np.int64).reshape(4, -1)
    input_ids = np.full((len(sizes), max_length), pad_token_id, np.int32)
    labels = np.full((len(sizes), max_length), UNTRAINED, np.int32)
    seq_lengths: list[list[int]] = []
    documents: list[list[int]] = []
    at = 0
    for row, size in enumerate(sizes):
        place = 0
        for k in range(at, at + size):
            ids, trained = _tokens(folder, int(chunk[k]))
            mine = slice(offset[k], offset[k] + length[k])
            there = slice(place, place + length[k])
            input_ids[row, there] = ids[mine]
            labels[row, there] = np.where(trained[mine], ids[mine], UNTRAINED)
            place += int(length[k])
        pad = [max_length - place] if place < max_length else []
        seq_lengths.append([*length[at : at + size].tolist(), *pad])
        documents.append(ordinal[at : at + size].tolist())
        at += size
    _tokens.cache_clear()  # a mapped file keeps its disk space after the build is over
    data = _arrow(input_ids, labels, seq_lengths, documents)
    path = PacksPaths(root).part(item["split"], int(item["part"]))
    files.write_bytes(path, data)
    supervised = np.count_nonzero(labels != UNTRAINED, axis=1)
    facts = {
        "name": path.rsplit("/", 1)[-1],
        "rows": len(sizes),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return {
        "split": item["split"],
        "part": int(item["part"]),
        "facts": json.dumps(facts),
        "tokens": int(length.sum()),
        "supervised_tokens": int(supervised.sum()),
        "max_supervised_per_row": int(supervised.max()),
        "max_documents_per_row": max(map(len, seq_lengths)),
    }


@functools.cache
def _forget_old_builds() -> None:
    """Delete this node's copies of tokenised chunks from builds of a day ago and more."""
    for old in (node_cache() / "packs").glob("**/tmp-*"):
        if time.time() - old.stat().st_mtime > 86_400:
            shutil.rmtree(old, ignore_errors=True)


@functools.lru_cache(maxsize=4096)
def _tokens(folder: str, chunk: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """The memory-mapped tokens of a chunk."""
    path = chunk_file(folder, chunk)
    local = localise(folder, Path(path).name) if is_uri(folder) else path
    with pa.memory_map(str(local)) as source:
        batch = pa.ipc.open_stream(source).read_next_batch()
    return batch.column("input_ids").to_numpy(), batch.column("trained").to_numpy()


def _arrow(
    input_ids: NDArray[np.int32],
    labels: NDArray[np.int32],
    seq_lengths: list[list[int]],
    documents: list[list[int]],
) -> bytes:
    """The columns of docs/architecture.md, "Packs", as an Arrow IPC stream."""
    rows, max_length = input_ids.shape
    edges = pa.array(np.arange(rows + 1, dtype=np.int32) * max_length)
    table = pa.table(
        {
            "input_ids": pa.ListArray.from_arrays(edges, pa.array(input_ids.reshape(-1))),
            "labels": pa.ListArray.from_arrays(edges, pa.array(labels.reshape(-1))),
            "seq_lengths": pa.array(seq_lengths, pa.list_(pa.int32())),
            "documents": pa.array(documents, pa.list_(pa.int64())),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
