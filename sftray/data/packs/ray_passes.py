"""The two passes of Ray Data over a source: tokenise its chunks, then gather packed rows.

Promise: the driver holds 60 bytes a conversation (two lengths, a place, ten hashes), about 150
while near-duplicates are found and rows are packed, and never a token; the answers of tasks are put
in the order of chunks and parts, so the number of CPUs changes nothing.
"""

from __future__ import annotations

import logging
import pickle
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Protocol, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from sftray.cluster.node_sight import Sight, require_sight
from sftray.cluster.ray_errors import plain
from sftray.config import DataConfig
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.packs.manifest import Described, Packed, SourceCounts, describe, sizes_of
from sftray.data.packs.pack_pass import Documents, PartPlan, gather_part, plan_parts
from sftray.data.packs.packing import Rows, pack, shuffled
from sftray.data.packs.readings import reading_of, reasons_text
from sftray.data.packs.tokenize_pass import (
    ChunkReport,
    Kept,
    conversations_of,
    tokenise_chunk,
    warm_up,
)
from sftray.data.recipe import Recipe
from sftray.data.source.conversations import Conversation, conversation
from sftray.data.source.sources import Source, check_spelling
from sftray.errors import DataError, Log, SftrayError

_BLOCKS = 4096
"""At most this many Ray Data blocks a pass; more chunks share a block."""

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Tokenised:
    """A source after the first pass."""

    source: Source
    spelling: str
    folder: str
    """Where the tokens of its chunks lie."""
    reports: Sequence[ChunkReport]
    """Of its chunks, without what `documents` has."""
    documents: Documents

    def conversations(self, documents: Iterable[int]) -> Iterator[Conversation]:
        """Read the conversations of some documents again, in that order, each once."""
        last = None
        for document in documents:
            (chunk,) = self.documents.chunk(np.array([document])).tolist()
            place = int(self.documents.kept["row"][document])
            if (chunk, place) == last:
                continue
            last = chunk, place
            _, row = next(islice(self.source.read(chunk), place, None))
            yield conversation(row, self.spelling)[0]


class Each(Protocol):
    """Runs a task on each of some items; returns the answers in the order of the items."""

    def __call__(self, task: Callable[[_Item], _Answer], items: Sequence[_Item]) -> list[_Answer]:
        """Raises the SftrayError of a task."""


def wake_workers(sources: Sequence[Source]) -> None:
    """Have Ray, if it is there, start the workers of the first pass, and import what they need,
    without waiting."""
    import ray

    if not ray.is_initialized():
        return
    number = min(
        sum(len(one.chunks) for one in sources), int(ray.cluster_resources().get("CPU", 0))
    )
    for _ in range(number):
        ray.remote(num_cpus=1)(warm_up).remote()


def tokenise(
    source: Source, chat: ChatFormat, data: DataConfig, folder: str, log: Log, each: Each
) -> Tokenised:
    """The first pass. Raises DataError for a file that cannot be read, or TemplateError."""
    began = time.monotonic()
    check_spelling(source, data.spelling)
    task = partial(
        tokenise_chunk,
        source=source,
        spelling=data.spelling,
        chat=chat,
        max_length=data.max_length,
        seed=data.seed,
        folder=folder,
    )
    reports = each(task, range(len(source.chunks)))
    documents, reading = (
        Documents.of(reports),
        reading_of(reports, [chunk.path for chunk in source.chunks]),
    )
    rows = reading["read"]
    if len(documents.kept) == 0:
        raise DataError(
            f"{source.name}: none of {rows} conversations can be trained on: "
            f"{reasons_text(reading['dropped'])}; must be one at least, clean them"
        )
    reports = [replace(report, kept=documents.kept[:0]) for report in reports]
    seconds = time.monotonic() - began
    log(
        f"tokenised {rows:,} conversations of {source.name} in {seconds:.1f} s "
        f"({rows / seconds:,.0f} a second)"
    )
    return Tokenised(source, data.spelling, folder, reports, documents)


Chosen = tuple[Tokenised, NDArray[np.bool_]]
"""A source, and which of its documents are taken."""


def pack_splits(
    splits: Mapping[str, Sequence[Chosen]],
    recipe: Recipe,
    pad_token_id: int,
    root: str,
    each: Each,
) -> dict[str, Packed]:
    """The second pass: pack the chosen documents of each split, the sources of one apart, write the
    parts, and count."""
    data = recipe.data
    plans: list[PartPlan] = []
    packed: dict[str, Packed] = {}
    for split, sources in splits.items():
        counts: list[SourceCounts] = []
        of_split: list[PartPlan] = []
        lengths = [tokenised.documents.kept["length"][chosen] for tokenised, chosen in sources]
        for tokenised, chosen in sources:
            rows = _packed_rows(tokenised.documents.kept, chosen, data)
            of_split += plan_parts(
                split,
                rows,
                tokenised.documents,
                recipe.rows_of_a_part,
                tokenised.folder,
                len(of_split),
            )
            counts.append(_counted(tokenised, chosen, len(rows)))
        plans += of_split
        packed[split] = {**sizes_of(counts, lengths, data.max_length), "parts": []}
    task = partial(gather_part, root=root, max_length=data.max_length, pad_token_id=pad_token_id)
    for plan, part in zip(plans, each(task, plans), strict=True):
        packed[plan.split]["parts"].append(part)
    return packed


def _packed_rows(kept: Kept, chosen: NDArray[np.bool_], data: DataConfig) -> Rows:
    """Rows of the chosen documents, which they name by their places in `kept`."""
    indices = np.flatnonzero(chosen)
    rows = pack(kept["length"][indices], data.max_length)
    return shuffled(Rows(indices[rows.documents], rows.edges), data.seed)


def _counted(tokenised: Tokenised, chosen: NDArray[np.bool_], rows: int) -> SourceCounts:
    kept = tokenised.documents.kept[chosen]
    return {
        "source": tokenised.source.name,
        "read": sum(report.rows for report in tokenised.reports),
        "bad": sum(report.dropped.total() for report in tokenised.reports),
        "conversations": conversations_of(kept),
        "rows": rows,
        "tokens": int(kept["length"].sum(dtype=np.int64)),
        "supervised_tokens": int(kept["trained"].sum(dtype=np.int64)),
    }


def described(sources: Sequence[Tokenised]) -> Described:
    """What the first pass learned of some sources, together."""
    reports = [report for one in sources for report in one.reports]
    return describe(reports, [chunk.path for one in sources for chunk in one.source.chunks])


class _Row(TypedDict):
    """What Ray Data hands to a task and back."""

    number: int
    pickle: bytes


def each_on_ray(
    task: Callable[[_Item], _Answer], items: Sequence[_Item], sight: Sight | None = None
) -> list[_Answer]:
    """By Ray Data, on nodes that see what a sweep needs."""
    import ray

    context = ray.data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    answers: dict[int, _Answer] = {}
    try:
        rows = [{"number": n, "pickle": pickle.dumps(item)} for n, item in enumerate(items)]
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS))
        for row in dataset.map(_answered, fn_kwargs={"task": task, "sight": sight}).iter_rows():
            answer = pickle.loads(row["pickle"])
            if isinstance(answer, SftrayError):
                raise answer
            answers[row["number"]] = answer
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)
    return [answers[number] for number in range(len(items))]


def _answered(row: _Row, *, task: Callable[[_Item], _Answer], sight: Sight | None) -> _Row:
    """A task's answer, or its SftrayError, of which Ray Data would pass on a traceback."""
    answer: _Answer | Exception
    try:
        if sight is not None:
            require_sight(sight)
        answer = task(pickle.loads(row["pickle"]))
    except (SftrayError, OSError) as error:
        answer = plain(error, tempfile.gettempdir())  # in words where a disk is full
        if not isinstance(answer, SftrayError):
            raise
    return {"number": row["number"], "pickle": pickle.dumps(answer)}
