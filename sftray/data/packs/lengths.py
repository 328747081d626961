"""How long conversations are, counted chunk by chunk so that no process keeps a number for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

CUTS = (64, 128, 256, 512, 1024, 2048, 4096)
"""Values of max_length whose effect a pack's report shows; powers of two."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lengths:
    """Conversations by the smallest power of two that holds so many tokens."""

    tokens: int = 0
    longest: int = 0
    whole: Counter[int] = field(default_factory=Counter)
    """By all their tokens."""
    first: Counter[int] = field(default_factory=Counter)
    """By those through their first exchange."""


class Cut(TypedDict):
    """Conversations by what a max_length does to them."""

    whole: int
    shortened: int
    dropped: int


class LengthTable(TypedDict):
    """A manifest's account of how long conversations are; zeros where there are none."""

    mean: float
    max: int
    histogram: dict[str, int]
    """{"64": conversations of 33 … 64 tokens, …}, from the shortest there is."""
    cuts: dict[str, Cut]
    """By max_length, each of CUTS."""


def count_lengths(full: Ints, first: Ints) -> Lengths:
    """`full` are tokens of whole conversations, `first` those through their first exchanges."""
    powers = (np.ceil(np.log2(np.maximum(tokens, 1))).astype(int) for tokens in (full, first))
    return Lengths(
        int(full.sum()), int(full.max(initial=0)), *(Counter((2**p).tolist()) for p in powers)
    )


def lengths_of(parts: Sequence[Lengths]) -> LengthTable:
    """The table of all that was counted."""
    whole = sum((part.whole for part in parts), Counter[int]())
    first = sum((part.first for part in parts), Counter[int]())
    powers = range(min(whole, default=1).bit_length() - 1, max(whole, default=0).bit_length())
    return {
        "mean": round(sum(part.tokens for part in parts) / max(whole.total(), 1), 1),
        "max": max((part.longest for part in parts), default=0),
        "histogram": {str(2**power): whole[2**power] for power in powers},
        "cuts": {str(cut): _cut(cut, whole, first) for cut in CUTS},
    }


def _cut(cut: int, whole: Counter[int], first: Counter[int]) -> Cut:
    fit, kept = (sum(n for bound, n in c.items() if bound <= cut) for c in (whole, first))
    return {"whole": fit, "shortened": kept - fit, "dropped": whole.total() - kept}
