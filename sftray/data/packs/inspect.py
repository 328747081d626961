"""A pack for the eye: decoded rows with the trained tokens marked, lengths, waste, dropped rows.

Promise: everything shown comes from the pack's own folder, tokenizer included, and the data's
control characters are shown, not sent; no torch, no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sftray.data.packs.manifest import counts_of, overlap_lines
from sftray.data.packs.pack_pass import UNTRAINED
from sftray.data.packs.packing import Ints, padding_text
from sftray.data.packs.packs import MappedRows, Packs
from sftray.data.packs.readings import (
    drop_table,
    mask_text,
    spelled_text,
    thoughts_text,
    unread_text,
)
from sftray.data.source.eval_split import apart_text
from sftray.storage import files
from sftray.storage.paths import PacksPaths
from sftray.storage.terminal_text import visible

_GREEN, _GREY, _PLAIN = "\x1b[1;32m", "\x1b[2m", "\x1b[0m"
_BAR = 40
"""Characters of the longest bar of the histogram."""


def inspect_json(packs: Packs) -> dict[str, object]:
    """The counts of both splits, and what a given evaluation set has in common with the training
    data, for scripts."""
    splits = packs.manifest["splits"]
    counts = {
        split: {
            **counts,
            "dropped": splits[split]["dropped"],
            "unread": splits[split]["unread"],
            "spelled": splits[split].get("spelled", {}),
            "thoughts": splits[split]["thoughts"],
            "waste": splits[split]["waste"],
            "sources": splits[split]["sources"],
        }
        for split, counts in counts_of(packs.manifest).items()
    }
    return {**counts, "overlaps": packs.manifest.get("overlaps", {})}


def inspect_text(packs: Packs, rows: int = 3, *, color: bool = False) -> str:
    """The pack as text; `color` marks trained tokens green, else they stand in ⟦…⟧."""
    parts = [visible(part) for part in (_summary(packs), _lengths(packs), _dropped(packs))]
    parts += _rows(packs, rows, color)
    return "\n\n".join(part for part in parts if part)


def _summary(packs: Packs) -> str:
    manifest = packs.manifest
    lines = [
        f"{packs.root}",
        f"tokenizer of {manifest['model']}, rows of {packs.max_length:,} tokens, "
        f"loss mask by {manifest['mask_method']}",
    ]
    lines += [
        f"training differs from the model's own template: {difference}"
        for difference in manifest["template_differences"]
    ]
    if mask := mask_text(manifest.get("mask_beside_trl", "")):
        lines.append(mask)
    lines.append(
        f"{'':6}{'conversations':>14}{'rows':>9}{'tokens':>14}{'trained':>14}{'padding':>9}"
    )
    for split, facts in manifest["splits"].items():
        lines.append(
            f"{split:6}{facts['conversations']:14,}{facts['rows']:9,}{facts['tokens']:14,}"
            f"{facts['supervised_tokens']:14,}{100 * facts['waste']:8.2f}%"
        )
        of_sources = facts["sources"] if len(facts["sources"]) > 1 else []
        lines += [
            f"  {one['source']}: {one['conversations']:,} conversations in {one['rows']:,} rows "
            f"({100 * one['rows'] / facts['rows']:.3g} %), {one['tokens']:,} tokens"
            for one in of_sources
        ]
    lines.append(padding_text(manifest["splits"]["train"], packs.max_length))
    lines += overlap_lines(manifest.get("overlaps", {}))  # earlier packs have none, nor `apart`
    lines += filter(None, [apart_text(manifest.get("apart", 0))])
    return "\n".join(lines)


def _lengths(packs: Packs) -> str:
    lengths = packs.manifest["splits"]["train"]["lengths"]
    lines = [f"tokens a conversation: {lengths['mean']:,} on average, {lengths['max']:,} at most"]
    most = max(lengths["histogram"].values())
    for bound, number in lengths["histogram"].items():
        bar = "█" * round(_BAR * number / most)
        lines.append(f"  ≤ {int(bound):>7,} {number:>9,} {bar}")
    lines.append(f"{'max_length':>12}{'whole':>10}{'shortened':>11}{'dropped':>9}")
    for cut, facts in lengths["cuts"].items():
        if int(cut) < min(lengths["mean"], packs.max_length):
            continue  # nobody would cut so much away
        mine = " ←" if int(cut) == packs.max_length else ""
        lines.append(
            f"{int(cut):12,}{facts['whole']:10,}{facts['shortened']:11,}{facts['dropped']:9,}{mine}"
        )
        if not facts["shortened"] + facts["dropped"] and int(cut) >= packs.max_length:
            break  # nor does more change anything
    return "\n".join(lines)


def _dropped(packs: Packs) -> str:
    lines = []
    for split, facts in packs.manifest["splits"].items():
        if facts["dropped"]:
            number = sum(facts["dropped"].values())
            lines.append(f"{split}: dropped {number:,} of {facts['read']:,} rows")
            lines += drop_table(facts, facts["dropped"])
        if unread := unread_text(facts):
            lines.append(f"{split}: {unread}")
        if spelled := spelled_text(facts):
            lines += [f"{split}: {spelled}", *drop_table(facts, facts["spelled"])]
        if thoughts := thoughts_text(facts, str(packs.manifest["chat_format"]["thinking"])):
            lines.append(f"{split}: {thoughts}")
        if facts["lost_last_user_turn"]:
            lines.append(f"{split}: {facts['lost_last_user_turn']:,} lost an unanswered last turn")
        if facts["lost_exchanges"]:
            lines.append(f"{split}: {facts['lost_exchanges']:,} lost trailing exchanges")
    return "\n".join(lines)


def _rows(packs: Packs, number: int, color: bool) -> Iterator[str]:
    tokenizer = Tokenizer.from_str(files.read_text(PacksPaths(packs.root).tokenizer))
    packed, edges = MappedRows(packs.dataset("train")), [0, *np.cumsum(packs.source_rows("train"))]
    in_turn = zip_longest(*(range(*edge) for edge in pairwise(edges)))  # a row of each source
    places = (place for together in in_turn for place in together if place is not None)
    for place in islice(places, number):
        row = packed[place]
        ids, labels = row["input_ids"], row["labels"]
        trained = int((labels != UNTRAINED).sum())
        title = f"row {place}: {len(row['documents'])} conversations, {trained:,} tokens trained"
        starts = np.cumsum([0, *row["seq_lengths"]])
        texts = [title]
        for document, start in enumerate(starts[:-1]):
            span = slice(start, starts[document + 1])
            if document < len(row["documents"]):
                head = f"— conversation {row['documents'][document]}"
                marked = _marked(tokenizer, ids[span], labels[span] != UNTRAINED, color)
                texts.append(f"{head}, {row['seq_lengths'][document]} tokens\n{marked}")
            else:
                texts.append(f"— padding, {row['seq_lengths'][document]} tokens")
        yield "\n".join(texts)


def _marked(tokenizer: Tokenizer, ids: Ints, trained: NDArray[np.bool_], color: bool) -> str:
    pieces = []
    edges = [0, *(np.flatnonzero(np.diff(trained)) + 1), len(ids)]
    for start, stop in pairwise(edges):
        is_trained = trained[start]
        text = visible(tokenizer.decode(ids[start:stop].tolist(), skip_special_tokens=False))
        if color:
            pieces.append(f"{_GREEN if is_trained else _GREY}{text}{_PLAIN}")
        else:
            pieces.append(f"⟦{text}⟧" if is_trained else text)
    return "".join(pieces).rstrip("\n")
