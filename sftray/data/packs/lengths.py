"""How long conversations are, counted chunk by chunk so that nobody keeps a number for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

CUTS = (64, 128, 256, 512, 1024, 2048, 4096)
"""Values of max_length whose effect a pack's report shows."""

Ints = NDArray[np.int64]


@dataclass
class Lengths:
    """Counts of conversations by their tokens; plain values."""

    number: int = 0
    tokens: int = 0
    longest: int = 0
    powers: Counter[int] = field(default_factory=Counter)
    """Conversations by the smallest power of two that holds them."""
    whole: Counter[int] = field(default_factory=Counter)
    """By cut: conversations that fit."""
    shortened: Counter[int] = field(default_factory=Counter)
    """By cut: those of which trailing exchanges would be taken off."""


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
    powers = np.ceil(np.log2(np.maximum(full, 1))).astype(int)
    return Lengths(
        number=len(full),
        tokens=int(full.sum()),
        longest=int(full.max(initial=0)),
        powers=Counter(powers.tolist()),
        whole=Counter({cut: int((full <= cut).sum()) for cut in CUTS}),
        shortened=Counter({cut: int(((full > cut) & (first <= cut)).sum()) for cut in CUTS}),
    )


def lengths_of(counted: Iterable[Lengths]) -> LengthTable:
    """The table of all that was counted."""
    total = Lengths()
    for part in counted:
        total.number += part.number
        total.tokens += part.tokens
        total.longest = max(total.longest, part.longest)
        total.powers.update(part.powers)
        total.whole.update(part.whole)
        total.shortened.update(part.shortened)
    powers = range(min(total.powers, default=0), max(total.powers, default=-1) + 1)
    return {
        "mean": round(total.tokens / max(total.number, 1), 1),
        "max": total.longest,
        "histogram": {str(2**power): total.powers[power] for power in powers},
        "cuts": {
            str(cut): {
                "whole": total.whole[cut],
                "shortened": total.shortened[cut],
                "dropped": total.number - total.whole[cut] - total.shortened[cut],
            }
            for cut in CUTS
        },
    }
