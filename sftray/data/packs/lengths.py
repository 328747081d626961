"""How long conversations are, counted chunk by chunk so that nobody keeps a number for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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


def lengths_of(counted: Iterable[Lengths]) -> dict[str, Any]:
    """The manifest's account: the mean and largest, a histogram, and what each of CUTS would do.

    The histogram is {"64": conversations of 33 … 64 tokens, …}, from the shortest there is.
    """
    total = Lengths()
    for part in counted:
        total.number += part.number
        total.tokens += part.tokens
        total.longest = max(total.longest, part.longest)
        total.powers.update(part.powers)
        total.whole.update(part.whole)
        total.shortened.update(part.shortened)
    if total.number == 0:
        return {}
    shortest, longest = min(total.powers), max(total.powers)
    return {
        "mean": round(total.tokens / total.number, 1),
        "max": total.longest,
        "histogram": {str(2**p): total.powers[p] for p in range(shortest, longest + 1)},
        "cuts": {
            str(cut): {
                "whole": total.whole[cut],
                "shortened": total.shortened[cut],
                "dropped": total.number - total.whole[cut] - total.shortened[cut],
            }
            for cut in CUTS
        },
    }
