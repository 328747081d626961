"""The two passes of Ray Data over a source: tokenise its chunks, then gather packed rows.

Promise: the driver holds 24 bytes a conversation (a length, a place, two hashes), about 100 while
it packs them, and never a token; the answers of tasks are put in the order of chunks and parts, so
the number of CPUs changes nothing.
"""

from __future__ import annotations

import json
import logging
import pickle
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftray.cluster.ray_errors import plain
from sftray.config import DataConfig
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.packs.manifest import Counts, Packed, drops, reasons_text
from sftray.data.packs.pack_pass import Documents, gather_part, plan_parts
from sftray.data.packs.packing import Padding, Rows, pack, padding_of, shuffled
from sftray.data.packs.tokenize_pass import ChunkReport, kept_of, report_of, tokenise_chunk, woken
from sftray.data.source.conversations import Message, conversation
from sftray.data.source.readers import BadLineError
from sftray.data.source.sources import Source, located, spelling_of_source
from sftray.errors import DataError, Log, OutageError, TemplateError
from sftray.storage.full_disk import plainly

_BLOCKS = 4096
"""At most this many Ray Data blocks a pass; more chunks share a block."""


@dataclass(frozen=True)
class Tokenised:
    """A source after the first pass."""

    source: Source
    folder: str
    """Where the tokens of its chunks lie."""
    reports: list[ChunkReport]
    """What was counted of each chunk; its conversations are in `documents`."""
    documents: Documents

    @property
    def rows(self) -> int:
        return int(self.documents.rows_before[-1])

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
            (chunk,) = self.documents.chunk(np.array([document])).tolist()
            place = int(self.documents.row[document])
            _, row = next(islice(self.source.read(chunk), place, None))
            yield conversation(row, spelling)[0]


def wake_workers(source: Source) -> None:
    """Have Ray start the workers of the first pass, and import what they need, without waiting."""
    import ray

    number = min(len(source.chunks), int(ray.cluster_resources().get("CPU", 0)))
    for _ in range(number):
        ray.remote(num_cpus=1)(woken).remote()


def tokenise(
    source: Source, chat: ChatFormat, data: DataConfig, folder: str, log: Log
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
    tokenised = Tokenised(source, folder, reports, _documents(reports))
    if len(tokenised.documents.row) == 0:
        counts, _ = drops(reports, tokenised.places())
        raise DataError(
            f"{source.name}: none of {tokenised.rows} conversations can be trained on: "
            f"{reasons_text(counts)}; must be one at least, clean them"
        )
    seconds = time.monotonic() - began
    log(
        f"tokenised {tokenised.rows:,} conversations of {source.name} in {seconds:.1f} s "
        f"({tokenised.rows / seconds:,.0f} a second)"
    )
    return tokenised


def pack_splits(
    splits: Mapping[str, tuple[Tokenised, NDArray[np.bool_]]],
    *,
    chat: ChatFormat,
    data: DataConfig,
    root: str,
) -> dict[str, Packed]:
    """The second pass: pack the chosen documents of each split, write the parts, and count."""
    items: list[dict[str, Any]] = []
    counts: dict[str, Counts] = {}
    padding: dict[str, Padding] = {}
    for split, (tokenised, chosen) in splits.items():
        indices = np.flatnonzero(chosen)
        lengths = tokenised.documents.length[indices]
        rows = pack(lengths, data.max_length)
        rows = shuffled(Rows(indices[rows.documents], rows.edges), data.seed)
        items += plan_parts(split, rows, tokenised.documents, data.max_length, tokenised.folder)
        tokens = int(lengths.sum(dtype=np.int64))
        counts[split] = {
            "conversations": len(indices),
            "rows": len(rows),
            "tokens": tokens,
            "supervised_tokens": 0,
        }
        padding[split] = padding_of(lengths, len(rows), data.max_length)
    settings = {
        "root": root,
        "folders": {split: tokenised.folder for split, (tokenised, _) in splits.items()},
        "max_length": data.max_length,
        "pad_token_id": chat.pad_token_id,
    }
    answers = sorted(_map(items, gather_part, settings), key=lambda answer: int(answer["part"]))
    packed: dict[str, Packed] = {}
    for split in splits:
        mine = [answer for answer in answers if answer["split"] == split]
        counts[split]["supervised_tokens"] = sum(int(one["supervised_tokens"]) for one in mine)
        packed[split] = {
            **counts[split],
            **padding[split],
            "max_documents_per_row": max(int(one["max_documents_per_row"]) for one in mine),
            "max_supervised_per_row": max(int(one["max_supervised_per_row"]) for one in mine),
            "parts": [json.loads(one["facts"]) for one in mine],
        }
    return packed


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
        options = {"task": task, "settings": settings}
        for done in dataset.map(_told, fn_kwargs=options).iter_rows():
            if done["outage"]:
                raise OutageError(done["outage"])
            yield pickle.loads(done["answer"])
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


def _told(
    item: dict[str, Any], *, task: Callable[..., dict[str, Any]], settings: dict[str, Any]
) -> dict[str, Any]:
    """A task's answer, or what there is to say of a full disk and the like, of which Ray Data would
    pass on a traceback."""
    try:
        with plainly(tempfile.gettempdir(), plain):
            return {"outage": "", "answer": pickle.dumps(task(item, **settings))}
    except OutageError as error:
        return {"outage": str(error), "answer": b""}


def _error(source: Source, number: int, kind: str, line: int, message: str) -> Exception:
    chunk = source.chunks[number]
    if kind == "TemplateError":
        return TemplateError(f"{chunk.path}: {message}")
    if line:
        return located(source, number, BadLineError(line, message))
    return DataError(message)


def _documents(reports: list[ChunkReport]) -> Documents:
    """The conversations of all chunks, taken out of their reports."""
    kept = [report.kept for report in reports]
    for report in reports:
        report.kept = kept_of([])
    return Documents(
        row=np.concatenate([part.row for part in kept]),
        length=np.concatenate([part.length for part in kept]),
        hash=np.concatenate([part.hash for part in kept]),
        whole_hash=np.concatenate([part.whole_hash for part in kept]),
        first=np.cumsum([0, *(len(part.row) for part in kept)]),
        rows_before=np.cumsum([0, *(report.rows for report in reports)]),
    )
