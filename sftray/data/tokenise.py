"""The first pass: one chunk of a source → tokens on disk, and what the driver must know of them.

Promise: a task holds one chunk; the driver gets lengths, hashes and counts, never a token.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sftray import storage as files
from sftray.data.chat import Document, Dropped, encode
from sftray.data.chunks import BadLineError, Chunk, Row, check_columns, read_chunk
from sftray.data.holdout import turn_hash
from sftray.data.rows import BadRowError, Message, conversation, first_user_turn
from sftray.data.template import ChatFormat
from sftray.errors import SftrayError

EXAMPLES = 3
"""Bad rows shown of each reason."""
BATCH = 512
"""Conversations tokenised at once."""

Ints = NDArray[np.int64]


TABLE = ("row", "length", "supervised", "full_length", "first_exchange", "hash")
"""Columns of ChunkReport.table; "row" counts rows of the chunk, "hash" is a uint64's bits."""


@dataclass
class ChunkReport:
    """What the driver keeps of a chunk: a row of `table` for each conversation kept."""

    lines: int = 0
    """Lines or rows of the file, blank ones too: places the next chunk's line numbers."""
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lost_last_user_turn: int = 0
    lost_exchanges: int = 0
    """Conversations that lost trailing exchanges because they were too long."""
    table: Ints = field(default_factory=lambda: np.empty((0, len(TABLE)), np.int64))
    too_long: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """(full length, first exchange) of conversations dropped as too long."""


def tokenise_chunk(
    item: dict[str, Any],
    *,
    chunks: Sequence[Chunk],
    spelling: str,
    chat: ChatFormat,
    max_length: int,
    seed: int,
    folder: str,
) -> dict[str, Any]:
    """A Ray Data task: tokenise chunk `item["chunk"]` into `folder`, and report.

    An error comes back as {"error": [type, line, message]}, for the driver to raise with the file.
    """
    number = int(item["chunk"])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one task, one CPU
    try:
        report, tokens, trained = read_and_encode(
            read_chunk(chunks[number]), spelling, chat, max_length, seed
        )
    except BadLineError as error:
        return _answer(number, error=["DataError", error.line, error.message])
    except SftrayError as error:
        return _answer(number, error=[type(error).__name__, 0, str(error)])
    _write_tokens(chunk_file(folder, number), tokens, trained)
    return _answer(number, report=report)


def chunk_file(folder: str, number: int) -> str:
    """Where the tokens of a chunk lie between the passes."""
    return f"{folder}/{number:06d}.arrow"


def read_and_encode(
    rows: Iterable[Row], spelling: str, chat: ChatFormat, max_length: int, seed: int
) -> tuple[ChunkReport, list[NDArray[np.int32]], list[NDArray[np.bool_]]]:
    """The report, token ids and masks of some rows. Raises BadLineError."""
    report = ChunkReport()
    tokens: list[NDArray[np.int32]] = []
    trained: list[NDArray[np.bool_]] = []
    kept: list[tuple[int, ...]] = []
    too_long: list[tuple[int, int]] = []
    batch: list[tuple[int, int, list[Message]]] = []

    def flush() -> None:
        encoded = encode(chat, [turns for _, _, turns in batch], max_length)
        for (number, line, turns), document in zip(batch, encoded, strict=True):
            if isinstance(document, Dropped):
                _drop(report, document.reason, line, turns)
                if document.full_length:
                    too_long.append((document.full_length, document.first_exchange))
                continue
            tokens.append(document.input_ids)
            trained.append(document.trained)
            report.lost_exchanges += document.lost_exchanges > 0
            kept.append(_table_row(number, document, turn_hash(first_user_turn(turns), seed)))
        batch.clear()

    for line, row in rows:
        report.lines = line
        number, report.rows = report.rows, report.rows + 1
        check_columns(row, spelling, line)
        try:
            turns, unanswered = conversation(row, spelling)
        except BadRowError as error:
            _drop(report, str(error), line, row)
            continue
        report.lost_last_user_turn += unanswered
        batch.append((number, line, turns))
        if len(batch) == BATCH:
            flush()
    flush()
    if kept:
        report.table = np.array(kept, dtype=np.int64)
    if too_long:
        report.too_long = np.array(too_long, dtype=np.int64)
    return report, tokens, trained


def report_of(answer: dict[str, Any]) -> ChunkReport:
    """The ChunkReport in a task's answer."""
    facts = json.loads(answer["facts"])
    return ChunkReport(
        **{**facts, "dropped": Counter(facts["dropped"])},
        table=np.frombuffer(answer["table"], np.int64).reshape(-1, len(TABLE)),
        too_long=np.frombuffer(answer["too_long"], np.int64).reshape(-1, 2),
    )


def _answer(
    number: int, *, report: ChunkReport | None = None, error: list[Any] | None = None
) -> dict[str, Any]:
    report = report or ChunkReport()
    facts = {k: v for k, v in report.__dict__.items() if k not in ("table", "too_long")}
    return {
        "chunk": number,
        "error": json.dumps(error),
        "facts": json.dumps(facts),
        "table": report.table.tobytes(),
        "too_long": report.too_long.tobytes(),
    }


def _table_row(number: int, document: Document, hashed: int) -> tuple[int, ...]:
    return (
        number,
        len(document.input_ids),
        int(np.count_nonzero(document.trained)),
        document.full_length,
        document.first_exchange,
        int(np.uint64(hashed).view(np.int64)),
    )


def _drop(report: ChunkReport, reason: str, line: int, row: Any) -> None:
    report.dropped[reason] += 1
    shown = report.examples.setdefault(reason, [])
    if len(shown) < EXAMPLES:
        text = json.dumps(row, ensure_ascii=False, default=str)
        text = text.encode("utf-8", "replace").decode()
        shown.append({"line": line, "text": text if len(text) <= 240 else f"{text[:239]}…"})


def _write_tokens(
    path: str, tokens: list[NDArray[np.int32]], trained: list[NDArray[np.bool_]]
) -> None:
    empty = np.empty(0, np.int32)
    batch = pa.record_batch(
        {
            "input_ids": np.concatenate([empty, *tokens]),
            "trained": np.concatenate([empty.astype(np.bool_), *trained]).view(np.uint8),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    files.write_bytes(path, sink.getvalue())
