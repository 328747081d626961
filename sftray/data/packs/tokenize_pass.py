"""The first pass: one chunk of a source → tokens on disk, and what the driver must know of them.

Promise: a task holds one chunk; the driver gets 60 bytes a conversation, never a token.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import tee
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.documents import Document, Dropped
from sftray.data.chat.loss_mask import encode_ahead
from sftray.data.chat.template_process import template_process
from sftray.data.chat.token_kinds import with_ends
from sftray.data.chat.tokenizer import backend
from sftray.data.packs.lengths import Lengths, count_lengths
from sftray.data.source.conversations import (
    Conversation,
    conversation,
    first_user_turn,
    spelling_of,
    unread_keys,
)
from sftray.data.source.eval_split import conversation_hash, turn_hash
from sftray.data.source.near_duplicates import BANDS, Bands, bands_of
from sftray.data.source.readers import BadLineError, NumberedRow, check_columns
from sftray.data.source.row_keys import BadRowError
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
KIND_BIT = 28
"""Its lowest bit of the kind; vocabularies have 2^18 tokens and few more."""
KEPT = np.dtype(
    [
        *(("row", "i4"), ("length", "i4"), ("trained", "i4")),
        *(("hash", "u8"), ("whole_hash", "u8"), ("bands", "u4", (BANDS,))),
    ]
)
"""A conversation that is kept: its row of the chunk, its tokens and how many of them are trained
on, the hashes of its first user turn and of all turns, and what is like in turns nearly the same
(`near_duplicates`)."""

Kept = NDArray[np.void]
"""Conversations as KEPT, in the order of their rows."""


def conversations_of(kept: Kept) -> int:
    """How many conversations some documents are of, in their order."""
    same = [kept[name][1:] == kept[name][:-1] for name in ("row", "whole_hash")]
    return len(kept) - int(np.count_nonzero(same[0] & same[1]))


class BadRow(NamedTuple):
    """A row that was dropped: its line within the chunk, and what it looks like."""

    line: int
    text: str


@dataclass
class ChunkReport:
    """What the driver learns of a chunk: counts, and five numbers of each conversation kept."""

    lines: int = 0
    """Lines or rows of the file, blank ones too: places the next chunk's line numbers."""
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    """Rows by key that was not read, of those that are conversations."""
    unread_values: dict[str, str] = field(default_factory=dict)
    """The first value of each."""
    spelled: Counter[str] = field(default_factory=Counter)
    """Rows by special token that their words spell, of those that are kept."""
    thoughts: Counter[str] = field(default_factory=Counter)
    """Of the conversations with thoughts that are kept: how many, the documents that they became,
    their tokens, and those of their ends (`manifest.Thoughts`)."""
    examples: dict[str, list[BadRow]] = field(default_factory=dict)
    """By reason, and by special token in the words."""
    lost_last_user_turn: int = 0
    lost_exchanges: int = 0
    """Conversations that lost trailing exchanges because they were too long."""
    lengths: Lengths = field(default_factory=Lengths)
    """Of whole conversations, those that were dropped for their length too."""
    kept: Kept = field(default_factory=lambda: np.empty(0, KEPT))
    highest_token: int = 0
    """Of the conversations kept and their padding, the highest token id."""


def warm_up() -> None:
    """A Ray task that leaves its process with all that `tokenise_chunk` needs there."""
    template_process().start()  # which needs a second, too

    import ray.data  # noqa: F401 — Ray Data's own tasks import it


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
        report, documents = patiently(
            files.place(path),
            lambda: read_and_encode(source.read(number), spelling, chat, max_length, seed),
        )
    except BadLineError as error:
        raise located(source, number, error) from error
    except TemplateError as error:
        raise TemplateError(f"{path}: {error}") from error
    end = backend(chat.tokenizer).encode(chat.ends[1], add_special_tokens=False)
    _write_tokens(chunk_file(folder, number), documents, len(end))
    return report


def chunk_file(folder: str, number: int) -> str:
    """Where the tokens of a chunk lie between the passes."""
    return f"{folder}/{number:06d}.tokens"


def read_and_encode(
    rows: Iterable[NumberedRow], spelling: str, chat: ChatFormat, max_length: int, seed: int
) -> tuple[ChunkReport, list[Document]]:
    """The report of some rows, and the conversations kept of them. Raises BadLineError."""
    report = ChunkReport(highest_token=chat.pad_token_id)  # rows are padded with it
    documents: list[Document] = []
    kept: list[tuple[int, int, int, int, int, Bands]] = []
    lengths: list[tuple[int, int]] = []
    batches, ahead = tee(_batches(rows, spelling, report))
    texts = ([turns for _, _, turns in batch] for batch in ahead)
    for batch, encoded in zip(batches, encode_ahead(chat, texts, max_length), strict=True):
        bands = bands_of([first_user_turn(turns) for _, _, turns in batch])
        for (number, line, turns), document, near in zip(batch, encoded, bands, strict=True):
            if document.full_length:
                lengths.append((document.full_length, document.first_exchange))
            if isinstance(document, Dropped):
                _drop(report, document.reason, line, turns)
                continue
            for token in document.spelled:
                _count(report.spelled, report, token, line, turns)
            report.lost_exchanges += document.lost_exchanges > 0
            hashes = turn_hash(first_user_turn(turns), seed), conversation_hash(turns)
            for one in (document, *document.more):
                documents.append(one)
                report.highest_token = max(report.highest_token, int(one.input_ids.max()))
                trained = int(np.count_nonzero(one.trained))
                kept.append((number, len(one.input_ids), trained, *hashes, near))
            if not turns.is_plain and turns.has_thoughts:
                _count_thoughts(report, document)
    report.lengths = count_lengths(*np.array(lengths, np.int64).reshape(-1, 2).T)
    report.kept = np.array(kept, KEPT)
    return report, documents


def _batches(
    rows: Iterable[NumberedRow], spelling: str, report: ChunkReport
) -> Iterator[list[tuple[int, int, Conversation]]]:
    """Conversations with their row and line, BATCH at a time; what is bad is reported."""
    batch: list[tuple[int, int, Conversation]] = []
    for line, row in rows:
        report.lines = line
        number, report.rows = report.rows, report.rows + 1
        check_columns(row, spelling, line)
        own = spelling_of(row) or spelling if spelling == "auto" else spelling
        try:
            turns, unanswered = conversation(row, own)
        except BadRowError as error:
            _drop(report, str(error), line, row)
            continue
        if unread := unread_keys(row, own):
            report.unread.update(unread.keys())
            for key in unread.keys() - report.unread_values.keys():
                report.unread_values[key] = _shown(unread[key], 40)
        report.lost_last_user_turn += unanswered
        batch.append((number, line, turns))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _drop(report: ChunkReport, reason: str, line: int, row: object) -> None:
    _count(report.dropped, report, reason, line, row)


def _count(counted: Counter[str], report: ChunkReport, reason: str, line: int, row: object) -> None:
    counted[reason] += 1
    shown = report.examples.setdefault(reason, [])
    if len(shown) < EXAMPLES:
        shown.append(BadRow(line, _shown(row, 240)))


def _shown(value: object, most: int) -> str:
    """A value as JSON, at most so many characters of it."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:  # whatever made the row bad, it is nested deep, too
        text = reprlib.repr(value)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _count_thoughts(report: ChunkReport, document: Document) -> None:
    lengths = [len(one.input_ids) for one in (document, *document.more)]
    report.thoughts["conversations"] += 1
    report.thoughts["documents"] += len(lengths)
    report.thoughts["tokens"] += sum(lengths)
    report.thoughts["last_tokens"] += lengths[0]


def _write_tokens(path: str, documents: Sequence[Document], end_tokens: int) -> None:
    """int32 a token: where it is trained on its id and above KIND_BIT its kind, else the id's bits
    turned over (below zero)."""
    ids = np.concatenate([np.empty(0, np.int32), *(one.input_ids for one in documents)])
    mask = np.concatenate([np.empty(0, np.bool_), *(one.trained for one in documents)])
    kinds = np.zeros(len(ids), np.int32)
    at = 0
    for one in documents:
        if one.kinds is not None:
            kinds[at : at + len(one.kinds)] = one.kinds
        at += len(one.input_ids)
    kinds = with_ends(kinds, mask, end_tokens)
    files.write_bytes(path, np.where(mask, ids | kinds << KIND_BIT, ~ids).tobytes())
