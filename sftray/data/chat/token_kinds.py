"""What each trained token is of: an answer's words, its end, a thought, or a call.

Promise: an answer's end is found in every row, thoughts and calls where the row has them as such;
a token that straddles two of them counts as the first. Price: rows without thoughts and calls cost
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sftray.data.chat.template_process import Span
from sftray.data.source.turns import Message

KINDS = ("words", "end", "thoughts", "calls")
"""By their number in packs."""
WORDS, END, THOUGHTS, CALLS = range(len(KINDS))

Kinds = NDArray[np.int32]

_CLOSES = re.compile(r"\s*(?:</[^<>]*>|\[/[^\[\]]*\]|<\|[^<>|]*\|>)?\s*")
"""What a template writes behind a thought."""


def kinds_of(text: str, offsets: Sequence[Span], answers: Sequence[tuple[Span, Message]]) -> Kinds:
    """The kind of each token of a text, ends left out; `offsets` are the tokens' characters,
    `answers` the characters of each answer and its turn."""
    starts = np.array([start for start, _ in offsets], dtype=np.int64)
    kinds = np.zeros(len(starts), np.int32)
    for (start, stop), turn in answers:
        for kind, span in _parts(turn, text[start:stop]):
            first, last = np.searchsorted(starts, [start + span[0], start + span[1]])
            kinds[first:last] = kind
    return kinds


def _parts(turn: Message, answer: str) -> Iterator[tuple[int, Span]]:
    """Where an answer as it is written has its thought and its calls."""
    thought, words = turn.get("reasoning_content", ""), turn["content"].strip()
    names = [call["function"]["name"] for call in turn.get("tool_calls", [])]
    at = 0
    if thought:
        at = answer.find(thought) + len(thought)
        at += len(_CLOSES.match(answer, at)[0])  # type: ignore[index]  # it matches nothing, too
        if words:
            at = max(answer.find(words, at), at)
        yield THOUGHTS, (0, at)
    if names:
        called, spoken = answer.find(names[0], at), answer.find(words, at) if words else at
        if called < spoken:  # words behind the calls
            yield CALLS, (at, spoken)
        else:
            yield CALLS, (spoken + len(words), len(answer))


def with_ends(kinds: Kinds, trained: NDArray[np.bool_], end_tokens: int) -> Kinds:
    """The same with the last `end_tokens` of each run of trained tokens as its end."""
    last = trained & ~np.append(trained[1:], False)
    is_end = last.copy()
    for number in range(1, min(end_tokens, len(last))):
        is_end[:-number] |= last[number:]
    return np.where(is_end & trained, np.int32(END), kinds)
