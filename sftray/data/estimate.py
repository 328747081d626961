"""How large the packs of a dataset will be, from a sample of its rows.

Promise: neither ray nor torch is imported and nothing is written; the numbers are those of the
whole dataset where it is smaller than the sample, else scaled up from it and labelled so. Price:
under 2 s, half of it imports.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftray.config import DataConfig
from sftray.data.packing import pack
from sftray.data.padding import padding_of
from sftray.data.probe import choose_format
from sftray.data.recipe import Recipe, make_recipe
from sftray.data.sources import Source, sample_rows, spelling_of_source
from sftray.data.template import ChatFormat
from sftray.data.tokenise import read_and_encode
from sftray.data.tokenizer import read_tokenizer
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
) -> dict[str, Any]:
    """What the manifest of `build_packs` would say, as far as a plan needs it.

    "splits" → "train", "eval" → conversations, rows, tokens, supervised_tokens, and for train the
    rows read and dropped by reason in the sample. "sampled" of "read" rows were looked at. Raises
    DataError and TemplateError as `build_packs` does, but judges bad rows by no limit.
    """
    recipe = make_recipe(data, model, revision=model_revision, trust_remote_code=trust_remote_code)
    chat = choose_format(
        read_tokenizer(model, revision=model_revision),
        template=recipe.template,
        date=data.template_date,
        samples=[],
    )
    train = _sampled(recipe.train, recipe, chat, sample)
    if recipe.evaluation is None:
        number = min(
            max(1, math.ceil(data.eval_fraction * train["conversations"])),
            data.num_eval_conversations,
        )
        held_out = {**train, "conversations": number}
        train = {**train, "conversations": train["conversations"] - number}
    else:
        held_out = _sampled(recipe.evaluation, recipe, chat, sample)
        number = min(held_out["conversations"], data.num_eval_conversations)
        held_out = {**held_out, "conversations": number}
    return {
        "estimate": True,
        "key": recipe.key,
        "sampled": train["sampled"],
        "read": train["read"],
        "mask_method": chat.method,
        "max_length": data.max_length,
        "splits": {
            "train": {**_scaled(train, data.max_length), "dropped": train["dropped"]},
            "eval": {**_scaled(held_out, data.max_length), "dropped": {}},
        },
    }


def _sampled(source: Source, recipe: Recipe, chat: ChatFormat, sample: int) -> dict[str, Any]:
    """Lengths of the conversations in a sample, and how many the source is likely to hold."""
    spelling = spelling_of_source(source, recipe.data.columns)
    rows, total = sample_rows(source, sample, spelling)
    if recipe.data.max_conversations is not None and source is recipe.train:
        total = min(total, recipe.data.max_conversations)
    data = recipe.data
    report, _, _ = read_and_encode(rows, spelling, chat, data.max_length, data.seed)
    if len(report.kept.length) == 0:
        raise DataError(
            f"{source.name}: none of {report.rows} sampled conversations can be trained on "
            f"({dict(report.dropped)})"
        )
    return {
        "sampled": report.rows,
        "read": total,
        "conversations": max(1, round(total * len(report.kept.length) / report.rows)),
        "dropped": dict(report.dropped),
        "lengths": report.kept.length.astype(np.int64),
        "supervised": report.supervised / len(report.kept.length),
    }


def _scaled(sampled: dict[str, Any], max_length: int) -> dict[str, Any]:
    """Counts of a split of `conversations` whose lengths are distributed as in the sample."""
    lengths: NDArray[np.int64] = sampled["lengths"]
    number = int(sampled["conversations"])
    packed = np.resize(lengths, min(number, _PACKED))
    rows = len(pack(packed, max_length))
    return {
        "conversations": number,
        "rows": math.ceil(rows * number / len(packed)),
        "tokens": round(float(lengths.mean()) * number),
        "supervised_tokens": round(sampled["supervised"] * number),
        **padding_of(packed, rows, max_length),
    }
