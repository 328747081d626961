"""How many positions a dataset takes packed, and how many if each conversation were padded instead.

Promise: functions of the lengths alone; what batches of random conversations would hold is an
expectation, not a draw, so the same lengths give the same numbers. Price: one sort.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES = (8, 16)
"""Batch sizes of a trainer that pads a batch to its longest conversation."""


def padding_of(lengths: NDArray[np.integer[Any]], rows: int, max_length: int) -> dict[str, Any]:
    """Shares of the positions that are padding, as a manifest has them.

    "waste" in `rows` packed rows of `max_length`; "waste_padded" with a conversation a row, padded
    to `max_length`; "waste_longest" padded to the longest of a batch, by the batch's size.
    """
    tokens, number = int(lengths.sum(dtype=np.int64)), len(lengths)
    return {
        "waste": 1 - tokens / (rows * max_length),
        "waste_padded": 1 - tokens / (number * max_length),
        "waste_longest": {
            str(size): 1 - tokens / (number * expected_longest(lengths, size)) for size in BATCHES
        },
    }


def expected_longest(lengths: NDArray[np.integer[Any]], size: int) -> float:
    """The mean length of the longest of `size` conversations drawn at random.

    With replacement: the k-th shortest of n is the longest with probability (k/n)^size -
    ((k-1)/n)^size.
    """
    shares = np.arange(len(lengths) + 1) / len(lengths)
    return float(np.sort(lengths) @ np.diff(shares**size))


def padding_text(facts: Mapping[str, Any], max_length: int) -> str:
    """What packing is worth, in one line: padding, and how many times the packed positions."""
    packed = facts["waste"]

    def shown(waste: float) -> str:
        return f"{100 * waste:.1f} % ({(1 - packed) / (1 - waste):.1f} × the positions)"

    longest = [f"of {size}: {shown(waste)}" for size, waste in facts["waste_longest"].items()]
    return (
        f"packing: {100 * packed:.2f} % padding; one conversation a row, padded to {max_length:,}: "
        f"{shown(facts['waste_padded'])}; to the longest {', '.join(longest)}"
    )
