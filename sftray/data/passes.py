"""The two passes of Ray Data over a source: tokenise its chunks, then gather packed rows.

Promise: the driver holds about 250 bytes a conversation (lengths, places, a hash) and never a
token; the answers of tasks are put in the order of chunks and parts, so the number of CPUs changes
nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftray.config import DataConfig
from sftray.data.chunks import BadLineError
from sftray.data.gather import Documents, gather_part, part_items
from sftray.data.manifest import drops
from sftray.data.packing import pack, shuffled
from sftray.data.rows import Message, conversation
from sftray.data.sources import Source, located, spelling_of_source
from sftray.data.template import ChatFormat
from sftray.data.tokenise import TABLE, ChunkReport, report_of, tokenise_chunk
from sftray.errors import DataError, TemplateError

_BLOCKS = 4096
"""At most this many Ray Data blocks a pass; more chunks share a block."""


@dataclass(frozen=True)
class Tokenised:
    """A source after the first pass."""

    source: Source
    folder: str
    """Where the tokens of its chunks lie."""
    reports: list[ChunkReport]
    documents: Documents
    hashes: NDArray[np.uint64]
    """Of the first user turn of each document."""

    @property
    def rows(self) -> int:
        return sum(report.rows for report in self.reports)

    def places(self) -> list[tuple[str, int]]:
        """(file, lines of it before the chunk) for each chunk."""
        before: dict[str, int] = {}
        out = []
        for chunk, report in zip(self.source.chunks, self.reports, strict=True):
            out.append((chunk.path, before.get(chunk.path, 0)))
            before[chunk.path] = before.get(chunk.path, 0) + report.lines
        return out

    def conversations(self, documents: Iterable[int], columns: str) -> Iterator[list[Message]]:
        """Read the conversations of some documents again, in that order."""
        spelling = spelling_of_source(self.source, columns)
        for document in documents:
            chunk = int(self.documents.chunk[document])
            before = sum(report.rows for report in self.reports[:chunk])
            place = int(self.documents.ordinal[document]) - before
            for number, (_, row) in enumerate(self.source.read(chunk)):
                if number == place:
                    yield conversation(row, spelling)[0]
                    break


def tokenise(
    source: Source, chat: ChatFormat, data: DataConfig, folder: str, log: Callable[[str], None]
) -> Tokenised:
    """The first pass. Raises DataError for a file that cannot be read, or TemplateError."""
    began = time.monotonic()
    settings = {
        "chunks": source.chunks,
        "spelling": spelling_of_source(source, data.columns),
        "chat": chat,
        "max_length": data.max_length,
        "seed": data.seed,
        "folder": folder,
    }
    items = [{"chunk": number} for number in range(len(source.chunks))]
    found: dict[int, ChunkReport] = {}
    for answer in _map(items, tokenise_chunk, settings):
        error = json.loads(answer["error"])
        if error is not None:
            raise _error(source, int(answer["chunk"]), *error)
        found[int(answer["chunk"])] = report_of(answer)
    reports = [found[number] for number in range(len(items))]
    tokenised = Tokenised(source, folder, reports, *_documents(reports))
    if len(tokenised.hashes) == 0:
        counts, _ = drops(reports, tokenised.places())
        raise DataError(
            f"{source.name}: none of {tokenised.rows} conversations can be trained on: "
            + ", ".join(f"{count} {reason}" for reason, count in counts.items())
        )
    seconds = time.monotonic() - began
    log(
        f"tokenised {tokenised.rows:,} conversations of {source.name} in {seconds:.1f} s "
        f"({tokenised.rows / seconds:,.0f} a second)"
    )
    return tokenised


def pack_split(
    split: str,
    tokenised: Tokenised,
    chosen: NDArray[np.bool_],
    *,
    chat: ChatFormat,
    data: DataConfig,
    root: str,
) -> dict[str, Any]:
    """The second pass: pack the chosen documents, write the parts, and count."""
    indices = np.flatnonzero(chosen)
    lengths = tokenised.documents.length[indices]
    rows = shuffled([indices[row] for row in pack(lengths, data.max_length)], data.seed)
    items = list(part_items(split, rows, tokenised.documents, data.max_length))
    settings = {
        "root": root,
        "folder": tokenised.folder,
        "max_length": data.max_length,
        "pad_token_id": chat.pad_token_id,
    }
    answers = sorted(_map(items, gather_part, settings), key=lambda answer: int(answer["part"]))
    tokens = int(lengths.sum())
    return {
        "conversations": len(indices),
        "rows": len(rows),
        "tokens": tokens,
        "supervised_tokens": sum(int(answer["supervised_tokens"]) for answer in answers),
        "waste": 1 - tokens / (len(rows) * data.max_length),
        "waste_padded": 1 - tokens / (len(indices) * data.max_length),
        "max_documents_per_row": max(int(a["max_documents_per_row"]) for a in answers),
        "max_supervised_per_row": max(int(a["max_supervised_per_row"]) for a in answers),
        "parts": [json.loads(answer["facts"]) for answer in answers],
    }


def _map(
    items: list[dict[str, Any]], task: Callable[..., dict[str, Any]], settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Run a task on each item with Ray Data; the answers come in any order."""
    import ray

    context = ray.data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        blocks = min(len(items), _BLOCKS)
        dataset = ray.data.from_items(items, override_num_blocks=blocks)
        yield from dataset.map(task, fn_kwargs=settings).iter_rows()
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


def _error(source: Source, number: int, kind: str, line: int, message: str) -> Exception:
    chunk = source.chunks[number]
    if kind == "TemplateError":
        return TemplateError(f"{chunk.path}: {message}")
    if line:
        return located(source, number, BadLineError(line, message))
    return DataError(message)


def _documents(reports: list[ChunkReport]) -> tuple[Documents, NDArray[np.uint64]]:
    rows_before = np.cumsum([0, *(report.rows for report in reports)])
    sizes = [len(report.table) for report in reports]
    table = np.concatenate([report.table for report in reports])
    chunk = np.repeat(np.arange(len(reports)), sizes)
    length = table[:, TABLE.index("length")]
    starts = np.concatenate([[0], np.cumsum(length)])
    first_of_chunk = np.cumsum([0, *sizes])[chunk]
    documents = Documents(
        chunk=chunk,
        offset=starts[:-1] - starts[first_of_chunk],
        length=length,
        ordinal=table[:, TABLE.index("row")] + rows_before[chunk],
    )
    return documents, np.ascontiguousarray(table[:, TABLE.index("hash")]).view(np.uint64)
