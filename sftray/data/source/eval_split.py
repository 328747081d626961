"""Which conversations are evaluated on: a choice by content, not by place.

Promise: conversations with the same first user turn are all held out or all trained on, and the
choice does not depend on the order of the files nor on the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sftray.data.source.turns import Message
from sftray.errors import DataError

Hashes = NDArray[np.uint64]


def turn_hash(text: str, seed: int) -> int:
    """64 bits of the first user turn under the seed; spaces around it do not count."""
    digest = hashlib.blake2b(text.strip().encode(), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest(), "big")


def conversation_hash(turns: Sequence[Message]) -> int:
    """64 bits of all turns; spaces around them do not count."""
    text = "\0".join([f"{turn['role']}\0{turn['content'].strip()}" for turn in turns])
    if more := [turn for turn in turns if len(turn) > 2]:  # thoughts and calls
        text += json.dumps(more, sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def held_out(hashes: Hashes, fraction: float, most: int) -> NDArray[np.bool_]:
    """True for the conversations to evaluate on: at most `fraction` of them and at most `most`.

    Whole groups of one hash are taken, smallest hash first; a group too large for the room left is
    passed over. Raises DataError where no group fits.
    """
    room = min(max(1, math.ceil(fraction * len(hashes))), most)
    _, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    for number, size in enumerate(sizes):
        if room == 0:
            break
        if size <= room and size < len(hashes):
            chosen[number] = True
            room -= int(size)
    if not chosen.any():
        raise DataError(
            f"data.eval_fraction: no evaluation set of at most {room} conversations can be held "
            f"out of {len(hashes)}, because each first user turn begins more than that; give "
            "data.eval_source"
        )
    return chosen[group]


def limited(hashes: Hashes, most: int) -> NDArray[np.bool_]:
    """True for at most `most` conversations of a given evaluation set, smallest hash first."""
    chosen = np.zeros(len(hashes), dtype=np.bool_)
    chosen[np.argsort(hashes, kind="stable")[:most]] = True
    return chosen
