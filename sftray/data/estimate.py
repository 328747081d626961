"""How large the packs of a dataset will be, from a sample of its rows.

Promise: neither ray nor torch is imported and nothing is written; the numbers are those of the
whole dataset where it is smaller than the sample, else scaled up from it and labelled so. Price:
under 2 s, half of it imports.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sftray.config import DataConfig
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.data.packs.manifest import (
    SAMPLE_PROMPTS,
    Estimate,
    Overlap,
    Sizes,
    reading_of,
    reasons_text,
    token_count,
)
from sftray.data.packs.packing import pack, padding_of
from sftray.data.packs.tokenize_pass import ChunkReport, Kept, read_and_encode
from sftray.data.recipe import Recipe, make_recipe
from sftray.data.source.conversations import conversation
from sftray.data.source.eval_split import held_out, limited
from sftray.data.source.readers import NumberedRow
from sftray.data.source.sources import Source, sample_rows, spelling_of_source
from sftray.errors import DataError

_PACKED = 50_000
"""Conversations packed to learn how full rows become."""


def estimate_packs(
    data: DataConfig,
    model: str,
    *,
    model_revision: str | None = None,
    trust_remote_code: bool = False,
    sample: int = 2000,
) -> Estimate:
    """What the manifest of `build_packs` would say, as far as a plan needs it.

    The overlap is counted within the samples: an estimate of its share, too low where a
    conversation was sampled and its twin was not. Raises DataError and TemplateError as
    `build_packs` does, but judges neither bad rows nor the overlap.
    """
    recipe = make_recipe(data, model, revision=model_revision, trust_remote_code=trust_remote_code)
    chat = choose_format(
        read_tokenizer(model, revision=model_revision),
        template=recipe.template,
        date=data.template_date,
        samples=[],
    )
    train = _sampled(recipe.train, recipe, chat, sample)
    most, train_number, overlap = data.num_eval_conversations, train.conversations, None
    if recipe.evaluation is None:
        evaluation, reading = train, reading_of([])
        chosen = np.ones(len(train.kept.hash), np.bool_)  # of a sample any may be evaluated on
        if train.report.rows >= train.read:
            chosen = held_out(train.kept.hash, data.eval_fraction, most)
        number = min(max(1, math.ceil(data.eval_fraction * train.conversations)), most)
        train_number -= number
    else:
        evaluation = _sampled(recipe.evaluation, recipe, chat, sample)
        reading = reading_of([evaluation.report])
        chosen = limited(evaluation.kept.hash, most)
        number = min(evaluation.conversations, most)
        overlap = asdict(Overlap.between(train.kept, evaluation.kept, chosen))
    return {
        "key": recipe.key,
        "sampled": train.report.rows,
        "read": train.read,
        "splits": {
            "train": {
                **train.scaled(train_number, data.max_length),
                **reading_of([train.report]),
            },
            "eval": {**evaluation.scaled(number, data.max_length), **reading},
        },
        "eval_overlap": overlap,
        "sample_prompts": [
            {"reference_tokens": token_count(chat, text)}
            for text in evaluation.references(chosen, SAMPLE_PROMPTS)
        ],
    }


@dataclass(frozen=True)
class _Sampled:
    """Rows of a source that were looked at."""

    rows: list[NumberedRow]
    spelling: str
    report: ChunkReport
    read: int
    """Rows that the source is likely to hold."""

    @property
    def kept(self) -> Kept:
        return self.report.kept

    @property
    def conversations(self) -> int:
        """That can be trained on, of the whole source."""
        return max(1, round(self.read * len(self.kept.length) / self.report.rows))

    def scaled(self, number: int, max_length: int) -> Sizes:
        """Counts of `number` conversations whose lengths are distributed as in the sample."""
        lengths = self.kept.length.astype(np.int64)
        packed = np.resize(lengths, min(number, _PACKED))
        rows = len(pack(packed, max_length))
        return {
            "conversations": number,
            "rows": math.ceil(rows * number / len(packed)),
            "tokens": round(float(lengths.mean()) * number),
            "supervised_tokens": round(self.report.supervised / len(lengths) * number),
            **padding_of(packed, rows, max_length),
        }

    def references(self, chosen: NDArray[np.bool_], most: int) -> Iterator[str]:
        """The last answers of the first conversations that were chosen."""
        for place in self.kept.row[chosen][:most].tolist():
            turns, _ = conversation(self.rows[place][1], self.spelling)
            yield turns[-1]["content"]


def _sampled(source: Source, recipe: Recipe, chat: ChatFormat, sample: int) -> _Sampled:
    spelling = spelling_of_source(source, recipe.data.columns)
    rows, total = sample_rows(source, sample, spelling)
    if recipe.data.max_conversations is not None and source is recipe.train:
        total = min(total, recipe.data.max_conversations)
    data = recipe.data
    report, _, _ = read_and_encode(rows, spelling, chat, data.max_length, data.seed)
    if len(report.kept.length) == 0:
        raise DataError(
            f"{source.name}: none of {report.rows} sampled conversations can be trained on: "
            f"{reasons_text(report.dropped)}; must be one at least, clean them"
        )
    return _Sampled(rows, spelling, report, total)
