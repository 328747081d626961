"""The first pass: one chunk of a source → tokens on disk, and what the driver must know of them.

Promise: a task holds one chunk; the driver gets 24 bytes a conversation, never a token.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.loss_mask import Dropped, encode
from sftray.data.packs.lengths import Lengths, count_lengths
from sftray.data.source.conversations import (
    BadRowError,
    Message,
    conversation,
    first_user_turn,
    unread_keys,
)
from sftray.data.source.eval_split import conversation_hash, turn_hash
from sftray.data.source.readers import BadLineError, NumberedRow, check_columns
from sftray.data.source.sources import Source, located
from sftray.errors import TemplateError
from sftray.storage import files
from sftray.storage.outages import patiently

EXAMPLES = 3
"""Bad rows shown of each reason."""
BATCH = 512
"""Conversations tokenised at once."""
TOKEN_BYTES = 4
"""A token between the passes."""


class BadRow(NamedTuple):
    """A row that was dropped: its line within the chunk, and what it looks like."""

    line: int
    text: str


@dataclass
class ChunkReport:
    """What the driver learns of a chunk: counts, and four numbers of each conversation kept."""

    lines: int = 0
    """Lines or rows of the file, blank ones too: places the next chunk's line numbers."""
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    """Rows by key that was not read, of those that are conversations."""
    examples: dict[str, list[BadRow]] = field(default_factory=dict)
    lost_last_user_turn: int = 0
    lost_exchanges: int = 0
    """Conversations that lost trailing exchanges because they were too long."""
    supervised: int = 0
    """Tokens that are trained on."""
    lengths: Lengths = field(default_factory=Lengths)
    """Of whole conversations, those that were dropped for their length too."""
    kept: Kept = field(default_factory=lambda: kept_of([]))


@dataclass(frozen=True)
class Kept:
    """The conversations of a chunk that are kept, in order; 24 bytes each."""

    row: NDArray[np.int32]
    """Row of the chunk."""
    length: NDArray[np.int32]
    """Tokens."""
    hash: NDArray[np.uint64]
    """Of the first user turn."""
    whole_hash: NDArray[np.uint64]
    """Of all turns."""


def kept_of(rows: Sequence[tuple[int, int, int, int]]) -> Kept:
    """From (row, length, hash, hash of all turns) of each conversation."""
    row, length, hashed, whole = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Kept(
        np.array(row, np.int32),
        np.array(length, np.int32),
        np.array(hashed, np.uint64),
        np.array(whole, np.uint64),
    )


def warm_up() -> None:
    """A Ray task that leaves its process with all that `tokenise_chunk` needs there."""
    import ray.data  # noqa: F401 — Ray Data's own tasks import it
    from transformers.utils import chat_template_utils  # noqa: F401 — 0.9 s, for the templates


def tokenise_chunk(
    number: int,
    *,
    source: Source,
    spelling: str,
    chat: ChatFormat,
    max_length: int,
    seed: int,
    folder: str,
) -> ChunkReport:
    """Tokenise one chunk of a source into `folder`. Raises DataError or TemplateError, with the
    file."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one task, one CPU
    path = source.chunks[number].path
    try:
        report, tokens, trained = patiently(
            files.place(path),
            lambda: read_and_encode(source.read(number), spelling, chat, max_length, seed),
        )
    except BadLineError as error:
        raise located(source, number, error) from error
    except TemplateError as error:
        raise TemplateError(f"{path}: {error}") from error
    _write_tokens(chunk_file(folder, number), tokens, trained)
    return report


def chunk_file(folder: str, number: int) -> str:
    """Where the tokens of a chunk lie between the passes."""
    return f"{folder}/{number:06d}.tokens"


def read_and_encode(
    rows: Iterable[NumberedRow], spelling: str, chat: ChatFormat, max_length: int, seed: int
) -> tuple[ChunkReport, list[NDArray[np.int32]], list[NDArray[np.bool_]]]:
    """The report, token ids and masks of some rows. Raises BadLineError."""
    report = ChunkReport()
    tokens: list[NDArray[np.int32]] = []
    trained: list[NDArray[np.bool_]] = []
    kept: list[tuple[int, int, int, int]] = []
    whole: list[tuple[int, int]] = []
    batch: list[tuple[int, int, list[Message]]] = []

    def flush() -> None:
        encoded = encode(chat, [turns for _, _, turns in batch], max_length)
        for (number, line, turns), document in zip(batch, encoded, strict=True):
            if document.full_length:
                whole.append((document.full_length, document.first_exchange))
            if isinstance(document, Dropped):
                _drop(report, document.reason, line, turns)
                continue
            tokens.append(document.input_ids)
            trained.append(document.trained)
            report.lost_exchanges += document.lost_exchanges > 0
            hashed = turn_hash(first_user_turn(turns), seed)
            kept.append((number, len(document.input_ids), hashed, conversation_hash(turns)))
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
        report.unread.update(unread_keys(row, spelling))
        report.lost_last_user_turn += unanswered
        batch.append((number, line, turns))
        if len(batch) == BATCH:
            flush()
    flush()
    report.supervised = sum(int(np.count_nonzero(mask)) for mask in trained)
    full, first = np.array(whole, np.int64).reshape(-1, 2).T
    report.lengths = count_lengths(full, first)
    report.kept = kept_of(kept)
    return report, tokens, trained


def _drop(report: ChunkReport, reason: str, line: int, row: object) -> None:
    report.dropped[reason] += 1
    shown = report.examples.setdefault(reason, [])
    if len(shown) < EXAMPLES:
        text = json.dumps(row, ensure_ascii=False, default=str)
        text = text.encode("utf-8", "replace").decode()
        shown.append(BadRow(line, text if len(text) <= 240 else f"{text[:239]}…"))


def _write_tokens(
    path: str, tokens: list[NDArray[np.int32]], trained: list[NDArray[np.bool_]]
) -> None:
    """int32 a token: its id where it is trained on, else the id's bits turned over (below zero)."""
    ids = np.concatenate([np.empty(0, np.int32), *tokens])
    mask = np.concatenate([np.empty(0, np.bool_), *trained])
    files.write_bytes(path, np.where(mask, ids, ~ids).tobytes())
