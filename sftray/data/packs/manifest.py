"""What a pack says about itself: counts, dropped rows by reason with examples, lengths, prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from sftray.config.data_config import WeightedSource
from sftray.data.chat.asking import asked_of, number_of_tokens, prompt_ids
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.spelled import plain_text
from sftray.data.packs.lengths import LengthTable, lengths_of
from sftray.data.packs.packing import Padding, padding_of
from sftray.data.packs.readings import Reading, drop_table, reading_of
from sftray.data.packs.tokenize_pass import ChunkReport, Kept
from sftray.data.source.near_duplicates import is_near
from sftray.data.source.turns import Message
from sftray.errors import DataError

SAMPLE_PROMPTS = 64
"""Held-out prompts that trials may answer at their end."""
DUPLICATES = 0.1
"""Share of a given set above which conversations that are trained on too are refused."""
_SETS = {"eval": "evaluation", "test": "test"}
_OTHERS = {"eval": "training", "test": "training and evaluation"}
"""What must not hold a conversation of a given set."""


class Counts(TypedDict):
    """How much there is of a split."""

    conversations: int
    rows: int
    tokens: int
    supervised_tokens: int


class PartFile(TypedDict):
    """One Arrow file of a split."""

    name: str
    rows: int
    bytes: int
    sha256: str


class SourceCounts(Counts):
    """How much there is of one source in a split, whose rows lie behind those of the one before."""

    source: str
    """As it was named when the packs were built."""
    read: int
    """Rows of the source, of which so many are bad."""
    bad: int


class Sizes(Counts, Padding):
    """How much there is of a split, and what packing it is worth."""

    sources: list[SourceCounts]
    """Apart, in the order of the configuration."""


def sizes_of(
    sources: list[SourceCounts], lengths: Sequence[NDArray[np.integer]], max_length: int
) -> Sizes:
    """Of a split all that is counted of its sources, and what packing their documents, of `lengths`
    tokens each, is worth."""
    rows = sum(one["rows"] for one in sources)
    return {
        "conversations": sum(one["conversations"] for one in sources),
        "rows": rows,
        "tokens": sum(one["tokens"] for one in sources),
        "supervised_tokens": sum(one["supervised_tokens"] for one in sources),
        **padding_of(np.concatenate(lengths), rows, max_length),
        "sources": sources,
    }


class Packed(Sizes):
    """What the second pass wrote of a split."""

    parts: list[PartFile]


class Described(Reading):
    """What the first pass learned of a split's own source."""

    lost_last_user_turn: int
    lost_exchanges: int
    lengths: LengthTable


class Split(Described, Packed):
    """A split of built packs."""


class SplitEstimate(Sizes, Reading):
    """A split as far as a plan needs it; a Split is one too."""


class Reference(TypedDict):
    """An answer that a metric may hold a trial's against."""

    reference_tokens: int


class SamplePrompt(Reference):
    """A held-out conversation as a prompt."""

    messages: list[Message]
    """The turns before the last answer."""
    reference: str
    """The last answer."""
    prompt: str
    """`messages` as text."""
    input_ids: list[int]


class ChatFacts(TypedDict):
    """Template, mask and special tokens: fields of the ChatFormat."""

    mask_method: str
    mask_beside_trl: str
    """ChatFormat.beside_trl"""
    template: str
    own_template: str
    template_differences: list[str]
    template_date: str
    pad_token_id: int
    end_of_turn_id: int
    chat_format: Mapping[str, object]
    """`ChatFormat.to_json`, from which prompts are written."""


class Overlap(TypedDict):
    """What a given set has in common with what must not hold it, in conversations: an evaluation
    set with the training data, a test set with both."""

    training: int
    """Of the others, those that begin like one of the set."""
    duplicates: int
    """Of the set, those that are there from first to last turn."""
    near: int
    """Of the set, those that begin nearly like one there."""
    evaluated: int
    """Of the set, all."""


class Manifest(ChatFacts):
    """manifest.json of packs. `manifest_sum` is what "sha256" must be."""

    key: str
    inputs: dict[str, object]
    """Everything that the key is made of."""
    sources: dict[str, list[dict[str, str | None]]]
    """Names and revisions by split, of those that were not held out of another."""
    model: str
    model_revision: str | None
    max_length: int
    seconds: float
    overlaps: dict[str, Overlap]
    """By split, of those that were not held out of training."""
    apart: int
    """Conversations that begin nearly like more others than may be held out at once."""
    splits: dict[str, Split]
    sample_prompts: list[SamplePrompt]
    tokenizer_sha256: str
    sha256: str


class Estimate(TypedDict):
    """What the manifest would say, from a sample."""

    key: str
    sampled: int
    """Rows of the training data that were looked at, of `read`."""
    read: int
    overlaps: dict[str, Overlap]
    apart: int
    end_of_turn_id: int
    mask_beside_trl: str
    splits: dict[str, SplitEstimate]
    sample_prompts: list[Reference]


def counts_of(manifest: Manifest | Estimate) -> dict[str, Counts]:
    """How much there is of each split, of built packs or of an estimate."""
    splits: Mapping[str, Counts] = manifest["splits"]
    return {
        split: {
            "conversations": counts["conversations"],
            "rows": counts["rows"],
            "tokens": counts["tokens"],
            "supervised_tokens": counts["supervised_tokens"],
        }
        for split, counts in splits.items()
    }


class Drawn(TypedDict):
    """What a sweep takes of one of several sources."""

    source: str
    rows: int
    share: float
    """Of the rows that are drawn."""
    passes: float
    """Over its rows, an epoch."""
    drawn_rows: int
    """An epoch; to within one row."""
    drawn_tokens: int


def drawn_from(split: Sizes, mixture: Sequence[WeightedSource]) -> list[Drawn]:
    """Of a training split; empty where it has one source."""
    if len(split["sources"]) == 1:
        return []
    return [
        {
            "source": one.name,
            "rows": counts["rows"],
            "share": one.share,
            "passes": (passes := one.share * split["rows"] / counts["rows"]),
            "drawn_rows": round(passes * counts["rows"]),
            "drawn_tokens": round(passes * counts["tokens"]),
        }
        for one, counts in zip(mixture, split["sources"], strict=True)
    ]


def share_text(low: Drawn, high: Drawn) -> str:
    """What one source gives at the least and the greatest share of one, in an epoch."""
    return (
        f"{low['source']} {low['drawn_rows']:,} … {high['drawn_rows']:,} rows, "
        f"{low['drawn_tokens']:,} … {high['drawn_tokens']:,} tokens, "
        f"{low['passes']:.2f} … {high['passes']:.2f} passes"
    )


def drawn_text(drawn: Drawn) -> str:
    """In one line."""
    return (
        f"{drawn['source']}: {drawn['rows']:,} rows, {100 * drawn['share']:.3g} % of those "
        f"that are drawn, so {drawn['passes']:.2f} passes over them an epoch"
    )


def overlap_of(others: Kept, given: Kept) -> Overlap:
    """Of a given set and what must not hold it."""
    return {
        "training": int(np.isin(others["hash"], given["hash"]).sum()),
        "duplicates": int(np.isin(given["whole_hash"], others["whole_hash"]).sum()),
        "near": int(is_near(given["bands"], others["bands"]).sum()),
        "evaluated": len(given),
    }


def overlap_lines(overlaps: Mapping[str, Overlap]) -> Iterator[str]:
    """One of each given set."""
    for split, one in overlaps.items():
        near = f", {one['near']:,} begin nearly like one there" if one.get("near") else ""
        yield (
            f"overlap: {one['training']:,} {_OTHERS[split]} conversations begin like one of the "
            f"{_SETS[split]} set; {one['duplicates']:,} of its {one['evaluated']:,} are in the "
            f"{_OTHERS[split]} data word for word, and left out there{near}"
        )


def overlap_refusals(overlaps: Mapping[str, Overlap]) -> Iterator[str]:
    """Where the loss of a given set would be that of training data: what is wrong, and what to
    do."""
    for split, one in overlaps.items():
        if one["duplicates"] > DUPLICATES * one["evaluated"]:
            yield (
                f"{split} data: {one['duplicates']:,} of {one['evaluated']:,} conversations "
                f"({100 * one['duplicates'] / one['evaluated']:.0f} %) are in the "
                f"{_OTHERS[split]} data word for word, must be at most {100 * DUPLICATES:g} %; "
                f"take them out of one of the two, or leave data.{split}_source and "
                f"data.{split}_split out to hold conversations out"
            )


def check_bad_rows(splits: Mapping[str, Described], most: float) -> None:
    """Raise DataError with the drop table where more than `most` of a source's rows are bad."""
    for split, facts in splits.items():
        bad = sum(facts["dropped"].values())
        if bad > most * facts["read"]:
            raise DataError(
                f"{split} data: {bad:,} of {facts['read']:,} rows are bad "
                f"({100 * bad / facts['read']:.1f} %), must be at most {100 * most:g} % "
                "(data.max_bad_fraction); clean them, or raise the limit to drop them:\n"
                + "\n".join(drop_table(facts, facts["dropped"]))
            )


def bad_sources(split: Sizes, most: float) -> Iterator[str]:
    """Of several sources those with more than `most` bad rows, in words."""
    for one in split["sources"] if len(split["sources"]) > 1 else []:
        if one["bad"] > most * one["read"]:
            yield (
                f"{one['source']}: {one['bad']:,} of {one['read']:,} rows are bad, must be at most "
                f"{100 * most:g} % of each source (data.max_bad_fraction)"
            )


def describe(reports: Sequence[ChunkReport], paths: Sequence[str]) -> Described:
    """What all chunks of a source held; `paths` are the chunks' files."""
    return {
        **reading_of(reports, paths),
        "lost_last_user_turn": sum(report.lost_last_user_turn for report in reports),
        "lost_exchanges": sum(report.lost_exchanges for report in reports),
        "lengths": lengths_of([report.lengths for report in reports]),
    }


def format_facts(chat: ChatFormat) -> ChatFacts:
    """The manifest's account of template, mask and special tokens."""
    return {
        "mask_method": chat.method,
        "mask_beside_trl": chat.beside_trl,
        "template": chat.template,
        "own_template": chat.own_template,
        "template_differences": list(chat.differences),
        "template_date": chat.date,
        "pad_token_id": chat.pad_token_id,
        "end_of_turn_id": chat.end_of_turn_id,
        "chat_format": chat.to_json(),
    }


def sample_prompts(chat: ChatFormat, conversations: Iterable[list[Message]]) -> list[SamplePrompt]:
    """The first few held-out conversations as prompts: messages, text, ids, and the answer."""
    return [
        {
            "messages": one.turns,
            "reference": one.reference,
            "reference_tokens": number_of_tokens(chat, one.reference),
            "prompt": plain_text(one.prompt),
            "input_ids": prompt_ids(chat, one.prompt),
        }
        for one in asked_of(chat, list(islice(conversations, SAMPLE_PROMPTS)))
    ]
