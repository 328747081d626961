"""Which conversations are evaluated on: a choice by content, not by place.

Promise: conversations whose first user turns are the same, or nearly, are all held out or all
trained on, unless there are more of them than are evaluated on; and the
choice does not depend on the order of the files nor on the number of workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sftray.data.source.near_duplicates import Bands, Hashes, grouped
from sftray.data.source.turns import Message
from sftray.errors import DataError

Ints = NDArray[np.int64]
TESTED_FROM = 400
"""Conversations; of fewer a test set would say too little, and take too much."""


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


def kept_together(
    hashes: Sequence[Hashes], bands: Sequence[Bands], fraction: float, most: int
) -> tuple[list[Hashes], int]:
    """The hashes of the conversations of each source, one for those that begin nearly alike, where
    all of them may be held out at once; and how many begin like too many for that."""
    room = int(min(_room([len(one) for one in hashes], fraction, most)))
    together, apart = grouped(np.concatenate(hashes), np.concatenate(bands), room)
    return np.split(together, np.cumsum([len(one) for one in hashes])[:-1]), apart


def apart_text(conversations: int) -> str:
    """What is not kept together; nothing where there is nothing."""
    if not conversations:
        return ""
    return (
        f"near-duplicates: {conversations:,} conversations begin nearly like more others than may "
        "be held out at once, so of them only equal questions are on one side"
    )


def held_out(hashes: Sequence[Hashes], fraction: float, most: int) -> list[NDArray[np.bool_]]:
    """True for the conversations of each source to evaluate on: of each at most `fraction` and at
    most `most`.

    Whole groups of one hash are taken, of all sources that have it, smallest hash first; a group
    too large for the room left is passed over. Raises DataError where no group of a source fits.
    """
    wholes = np.array([len(one) for one in hashes])
    room = _room(wholes, fraction, most)
    of_source = np.repeat(np.arange(len(hashes)), wholes)
    _, group = np.unique(np.concatenate(hashes), return_inverse=True)
    sizes = np.zeros((group.max() + 1, len(hashes)), int)
    np.add.at(sizes, (group, of_source), 1)
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    left = room.copy()
    for number in np.flatnonzero((sizes <= room).all(1) & (sizes < wholes).all(1)):
        if not left.any():
            break
        if (sizes[number] <= left).all():
            chosen[number] = True
            left -= sizes[number]
    for most_of_it, unused, whole in zip(room, left, wholes, strict=True):
        if unused == most_of_it:
            raise DataError(
                f"data: no evaluation or test set of at most {most_of_it:,} conversations can be "
                f"held out of {whole:,}, because each first user turn begins more than that, as "
                "where all are alike",
                "give data.eval_source, or move what all begin with into a system turn",
            )
    return np.split(chosen[group], np.cumsum(wholes)[:-1])


def tested(
    hashes: Sequence[Hashes], taken: Sequence[NDArray[np.bool_]], fraction: float, most: int
) -> list[NDArray[np.bool_]] | None:
    """True for the conversations of each source that no decision may see, chosen as those to
    evaluate on are (`taken`), from the other end: whole groups, so that what is there twice is on
    one side. None where there are none."""
    try:
        chosen = held_out([~one for one in hashes], fraction, most)
    except DataError:  # each first user turn begins more than there is room for
        return None
    free = [one & ~other for one, other in zip(chosen, taken, strict=True)]
    return free if all(one.any() for one in free) else None


def no_test_set(conversations: int, fraction: float) -> str:
    """Why none can be held out; nothing where one can."""
    if fraction and conversations < TESTED_FROM:
        return f"test: none, because {conversations:,} conversations are fewer than {TESTED_FROM}"
    return ""


def _room(wholes: Sequence[int] | Ints, fraction: float, most: int) -> Ints:
    """How many of each source may be held out."""
    room: Ints = np.maximum(1, np.ceil(fraction * np.array(wholes)).astype(int))
    return np.minimum(room, most)


def limited(hashes: Hashes, most: int) -> NDArray[np.bool_]:
    """True for at most `most` conversations of a given evaluation set, smallest hash first."""
    chosen = np.zeros(len(hashes), dtype=np.bool_)
    chosen[np.argsort(hashes, kind="stable")[:most]] = True
    return chosen
