"""How large the packs of a dataset will be, from a sample of its rows.

Promise: neither ray nor torch is imported and nothing is written; the numbers are those of the
whole dataset where it is smaller than the sample, else scaled up from it and labelled so. Price:
under 2 s, half of it imports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from sftray.config import DataConfig
from sftray.data.chat.asking import asked_of, number_of_tokens
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.data.packs.manifest import (
    SAMPLE_PROMPTS,
    Estimate,
    Reference,
    Sizes,
    SourceCounts,
    SplitEstimate,
    overlap_of,
    sizes_of,
)
from sftray.data.packs.packing import Ints, pack
from sftray.data.packs.readings import reading_of, reasons_text
from sftray.data.packs.tokenize_pass import (
    EXAMPLES,
    ChunkReport,
    Kept,
    conversations_of,
    read_and_encode,
)
from sftray.data.recipe import Recipe
from sftray.data.source.conversations import Conversation, conversation, spelling_of
from sftray.data.source.eval_split import TESTED_FROM, held_out, kept_together, limited
from sftray.data.source.readers import NumberedRow
from sftray.data.source.sources import Source, check_spelling, sample_rows
from sftray.errors import DataError

_PACKED = 50_000
"""Conversations packed to learn how full rows become."""
SAMPLE = 2000
"""Rows of a source that are looked at."""


def estimate_packs(recipe: Recipe, *, sample: int = SAMPLE) -> Estimate:
    """What the manifest of `packs_from` would say, as far as a plan needs it.

    The overlap is counted within the samples: an estimate of its share, too low where a
    conversation was sampled and its twin was not. Raises DataError and TemplateError as
    `packs_from` does, but judges neither bad rows nor the overlap.
    """
    train = take_samples(recipe, sample)
    chat = train[0].chat
    given = {
        split: _sampled(source, recipe, chat, sample) for split, source in recipe.given.items()
    }
    return estimate_from(recipe, train, given)


def estimate_from(
    recipe: Recipe, train: Sequence[Sample], given: Mapping[str, Sample] | None = None
) -> Estimate:
    """`estimate_packs` from samples of the training data, one of each source, and of the sets that
    are `given`, by split, that are tokenised already, for rows of the recipe's length."""
    data, chat, given = recipe.data, train[0].chat, given or {}
    most, overlaps, apart = data.num_eval_conversations, {}, 0
    numbers = [one.conversations for one in train]
    seen = np.concatenate([one.kept for one in train])
    if (own := given.get("eval")) is None:
        evaluated = [min(max(1, math.ceil(data.eval_fraction * one)), most) for one in numbers]
        if data.hold_out:
            numbers = [one - held for one, held in zip(numbers, evaluated, strict=True)]
        chosen = [np.ones(len(one.kept), np.bool_) for one in train]  # of a sample any may be
        if any(map(_all_alike, train)) or all(one.report.rows >= one.read for one in train):
            hashes, bands = zip(
                *((one.kept["hash"], one.kept["bands"]) for one in train), strict=True
            )
            together, apart = kept_together(hashes, bands, data.eval_fraction, most)
            chosen = held_out(together, data.eval_fraction, most)
    else:
        evaluated = [min(own.conversations, most)]
        chosen = [limited(own.kept["hash"], most)]
        overlaps["eval"] = overlap_of(seen, own.kept[chosen[0]])
        seen = np.concatenate([seen, own.kept[chosen[0]]])
    tested = given.get("test")
    if tested is not None:
        overlaps["test"] = overlap_of(seen, tested.kept)
    test, numbers = _test_set(data, train, numbers, tested)
    conversed = [
        one.conversed(held, SAMPLE_PROMPTS)
        for one, held in zip([own] if own else train, chosen, strict=True)
    ]
    prompts = [one for together in zip_longest(*conversed) for one in together if one is not None]
    return {
        "key": recipe.key,
        "sampled": sum(one.report.rows for one in train),
        "read": sum(one.read for one in train),
        "splits": {
            "train": {
                **_scaled(train, numbers, data.max_length),
                **reading_of([one.report for one in train], [one.source for one in train]),
            },
            "eval": {
                **_scaled([own] if own else train, evaluated, data.max_length),
                **reading_of([own.report] if own else [], [own.source] if own else []),
            },
            **test,
        },
        "end_of_turn_id": chat.end_of_turn_id,
        "mask_beside_trl": chat.beside_trl,
        "overlaps": overlaps,
        "apart": apart,
        "sample_prompts": _references(chat, prompts[:SAMPLE_PROMPTS]),
    }


def _test_set(
    data: DataConfig, train: Sequence[Sample], numbers: list[int], tested: Sample | None
) -> tuple[dict[str, SplitEstimate], list[int]]:
    """The test set, if there is one, and how many conversations of each source it leaves of
    `numbers` to train on."""
    if tested is not None:
        whole = _scaled([tested], [tested.conversations], data.max_length)
        return {"test": {**whole, **reading_of([tested.report], [tested.source])}}, numbers
    many = sum(one.conversations for one in train) >= TESTED_FROM
    if not (data.hold_out and data.test_fraction and many):
        return {}, numbers
    most = data.num_eval_conversations
    held = [min(math.ceil(data.test_fraction * one.conversations), most) for one in train]
    left = [max(1, one - out) for one, out in zip(numbers, held, strict=True)]
    return {"test": {**_scaled(train, held, data.max_length), **reading_of([], [])}}, left


def _references(chat: ChatFormat, prompts: Sequence[Conversation]) -> list[Reference]:
    asked = asked_of(chat, prompts)
    return [{"reference_tokens": number_of_tokens(chat, one.reference)} for one in asked]


def _all_alike(sample: Sample) -> bool:
    """Whether all begin alike: of such nothing can be held out, however many there are."""
    return len(np.unique(sample.kept["hash"])) == 1 < len(sample.kept)


def _scaled(samples: Sequence[Sample], numbers: Sequence[int], max_length: int) -> Sizes:
    """Counts of this many conversations of each source."""
    of_each = [one.scaled(n, max_length) for one, n in zip(samples, numbers, strict=True)]
    return sizes_of(
        [counts for counts, _ in of_each], [packed for _, packed in of_each], max_length
    )


@dataclass(frozen=True)
class Sample:
    """Rows of a source that were looked at, and tokenised."""

    source: str
    rows: list[NumberedRow]
    spelling: str
    chat: ChatFormat
    seed: int
    report: ChunkReport
    read: int
    """Rows that the source is likely to hold."""

    @property
    def kept(self) -> Kept:
        return self.report.kept

    @property
    def spelled(self) -> str:
        """How its rows spell conversations, each way once."""
        if self.spelling != "auto":
            return self.spelling
        ways = (spelling_of(row) for _, row in self.rows if isinstance(row, dict))
        return " or ".join(dict.fromkeys(filter(None, ways)))

    @property
    def conversations(self) -> int:
        """That can be trained on, of the whole source; each document of one that became several."""
        return max(1, round(self.read * len(self.kept) / self.report.rows))

    def cut(self, max_length: int) -> Sample:
        """The same for shorter rows: only conversations too long for them are tokenised again, to
        lose trailing exchanges or to be dropped. Raises DataError where none is left."""
        places = np.unique(self.kept["row"][self.kept["length"] > max_length])
        too_long = np.isin(self.kept["row"], places)
        again, _ = read_and_encode(
            [self.rows[k] for k in places], self.spelling, self.chat, max_length, self.seed
        )
        again.kept["row"] = places[again.kept["row"]]
        shown = self.report.examples
        kept = np.concatenate([self.kept[~too_long], again.kept])
        report = replace(
            self.report,
            dropped=self.report.dropped + again.dropped,
            examples={
                reason: sorted([*shown.get(reason, []), *again.examples.get(reason, [])])[:EXAMPLES]
                for reason in shown | again.examples
            },
            lost_exchanges=again.lost_exchanges,
            kept=kept[np.argsort(kept["row"], kind="stable")],
        )
        return _usable(replace(self, report=report))

    def scaled(self, number: int, max_length: int) -> tuple[SourceCounts, Ints]:
        """Counts of `number` conversations whose lengths are distributed as in the sample, and as
        many such lengths, at most _PACKED."""
        lengths = self.kept["length"].astype(np.int64)
        packed = np.resize(lengths, min(number, _PACKED))
        rows = len(pack(packed, max_length))
        counts: SourceCounts = {
            "source": self.source,
            "read": self.report.rows,
            "bad": self.report.dropped.total(),
            "conversations": round(number * conversations_of(self.kept) / len(lengths)),
            "rows": math.ceil(rows * number / len(packed)),
            "tokens": round(float(lengths.mean()) * number),
            "supervised_tokens": round(float(self.kept["trained"].mean()) * number),
        }
        return counts, packed

    def conversed(self, chosen: NDArray[np.bool_], most: int) -> list[Conversation]:
        """The first conversations that were chosen."""
        places = np.unique(self.kept["row"][chosen])[:most].tolist()
        return [conversation(self.rows[place][1], self.spelling)[0] for place in places]


def take_samples(recipe: Recipe, size: int) -> list[Sample]:
    """About so many rows of each source of the training data, tokenised. Raises DataError and
    TemplateError."""
    chat = choose_format(
        read_tokenizer(recipe.model, revision=recipe.model_revision),
        template=recipe.template,
        date=recipe.data.template_date,
        samples=[],
        thinking=recipe.data.thinking,
        train_on=recipe.data.train_on,
        enable_thinking=recipe.data.enable_thinking,
        allow_special_tokens=recipe.data.allow_special_tokens,
    )
    return [_sampled(source, recipe, chat, size) for source in recipe.train]


def _sampled(source: Source, recipe: Recipe, chat: ChatFormat, sample: int) -> Sample:
    spelling = recipe.data.spelling
    check_spelling(source, spelling)
    rows, total = sample_rows(source, sample, spelling)
    if recipe.data.max_conversations is not None and source in recipe.train:
        total = min(total, recipe.data.max_conversations)
    data = recipe.data
    report, _ = read_and_encode(rows, spelling, chat, data.max_length, data.seed)
    return _usable(Sample(source.name, rows, spelling, chat, data.seed, report, total))


def _usable(sample: Sample) -> Sample:
    if len(sample.kept) == 0:
        raise DataError(
            f"{sample.source}: none of {sample.report.rows} sampled conversations can be trained "
            f"on: {reasons_text(sample.report.dropped)}; must be one at least, clean them"
        )
    return sample
