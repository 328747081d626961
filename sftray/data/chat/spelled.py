"""Special tokens that the words of a conversation spell: text, not tokens.

Promise: such words become the tokens that they are in a tokenizer without special tokens, and what
the template writes around them is what it always writes; where the template changes them, the
conversation is dropped (`SPELLED`). A mark within each spelling goes through the template; two
renderings show that it changed nothing else. Price: 10 µs to look through a usual conversation, two
renderings more and a second tokenizer for one that spells a token.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.template_process import RefusedError, Span
from sftray.data.chat.tokenizer import backend, special_tokens
from sftray.data.source.conversations import Conversation
from sftray.data.source.turns import Message

SPELLED = "a special token in the text that cannot be tokenised as text"

MARK = "\ufdd0"
"""Stands behind the first character of a spelling: for use within a process, never for a text."""
_TOKEN = "\ufdd1"
"""Stands before a special token of the template's."""


def marked(chat: ChatFormat, turns: Conversation) -> Conversation:
    """A conversation with a MARK in each special token that its words spell; as it is without."""
    looked_for = _looked_for(chat)
    if turns.is_plain:
        words = "\0".join([turn["content"] for turn in turns])
    else:
        words = "\0".join(texts_of([*turns, *turns.tools]))
    if not looked_for.search(words):
        return turns
    spelled = frozenset(looked_for.findall(words))
    return _with(turns, lambda text: _marked_text(looked_for, text), spelled)


def unmarked(turns: Conversation) -> Conversation:
    """What `marked` was given."""
    return _with(turns, plain_text, ()) if turns.spelled else turns


def marked_text(chat: ChatFormat, text: str) -> str:
    """`marked` of a text by itself."""
    return _marked_text(_looked_for(chat), text)


def plain_text(text: str) -> str:
    """A text without MARKs."""
    return text.replace(MARK, "")


def refusal(chat: ChatFormat, turns: Conversation) -> str:
    """Why a `marked` conversation is dropped; empty where it is not."""
    if turns.spelled and (min(map(len, turns.spelled)) == 1 or not _is_same(chat, turns)):
        return SPELLED
    if chat.allow_special_tokens:  # but an answer ends where its end is
        answers = [turns[place]["content"].strip() for place in turns.answers]
        if any(one in chat.control_tokens or _has(one, chat.ends) for one in answers):
            return SPELLED
    return ""


def texts_of(value: object) -> Iterator[str]:
    """All texts in a value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from texts_of([*value.values()])
    elif isinstance(value, list):
        for held in value:
            yield from texts_of(held)


class AsText(NamedTuple):
    """A text with MARKs as a tokenizer takes it that knows the template's special tokens only."""

    tokenizer: str
    """As JSON."""
    text: str
    spans: list[Span]
    """Where the given ones lie in `text`."""
    numbers: NDArray[np.int32]
    """The id in the model's own tokenizer, of each of this one's."""
    special: NDArray[np.int32]
    """Its special tokens, but for the one that stands for what it does not know."""
    written: int
    """How many of them the template wrote."""
    moved: tuple[list[int], list[int]]
    """Places of `text` behind which those of the given text are so much lower or higher."""

    def ids(self, encoded: list[int]) -> NDArray[np.int32] | None:
        """The model's ids; None where a word became a special token in spite of all."""
        ids = self.numbers[encoded]
        return ids if np.count_nonzero(np.isin(ids, self.special)) == self.written else None

    def places(self, spans: Sequence[Span]) -> list[Span]:
        """Spans of `text` as those of the given one."""
        at, shifts = self.moved
        found = (place - shifts[bisect.bisect_left(at, place)] for span in spans for place in span)
        return [*zip(found, found, strict=True)]


def as_text(chat: ChatFormat, text: str, spans: list[Span]) -> AsText:
    """A text that has MARKs, and spans of it."""
    pieces: list[str] = []
    places: list[int] = []
    shifts = [0]
    last = 0
    for found in _spellings(chat.tokenizer, chat.variables).finditer(text):
        start, is_mark = found.start(), found[0] == MARK
        pieces += text[last:start], "" if is_mark else _TOKEN
        last = found.end() if is_mark else start
        places.append(start)
        shifts.append(-1 if is_mark else 1)
    pieces.append(text[last:])
    moved = [*itertools.accumulate(shifts)]

    def at(place: int) -> int:
        return place + moved[bisect.bisect_left(places, place)]

    spans = [(at(start), at(stop)) for start, stop in spans]
    other = _without_special_tokens(chat.tokenizer, chat.variables)
    behind = [place + shift for place, shift in zip(places, moved, strict=False)]
    return AsText(other[0], "".join(pieces), spans, *other[1:], shifts.count(1), (behind, moved))


def _looked_for(chat: ChatFormat) -> re.Pattern[str]:
    if chat.allow_special_tokens:
        return _spellings(chat.tokenizer, (), allowed=True)
    return _spellings(chat.tokenizer, chat.variables)


def _has(text: str, tokens: tuple[str, ...]) -> bool:
    return any(token in text for token in tokens)


def _marked_text(looked_for: re.Pattern[str], text: str) -> str:
    """With a MARK behind the first character of each token, of those that overlap, too."""
    at = 0
    while found := looked_for.search(text, at):
        at = found.start() + 2
        text = f"{text[: at - 1]}{MARK}{text[at - 1 :]}"
    return text


def _with(
    turns: Conversation, change: Callable[[str], str], spelled: frozenset[str] | tuple[()]
) -> Conversation:
    """A conversation whose texts are changed, but for its roles."""
    return Conversation(
        [cast("Message", {**_changed({**turn}, change), "role": turn["role"]}) for turn in turns],
        [_changed(tool, change) for tool in turns.tools],
        turns.untrained,
        spelled,
    )


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _changed(held, change) for key, held in value.items()}
    if isinstance(value, list):
        return [_changed(held, change) for held in value]
    return value


def _is_same(chat: ChatFormat, turns: Conversation) -> bool:
    """Whether templates write a conversation with MARKs as they do without."""
    for own in {False, chat.template != chat.own_template}:
        try:
            ((with_marks,), _), ((without,), _) = (
                chat.render([one], own=own) for one in (turns, unmarked(turns))
            )
        except RefusedError:
            return True  # which is another reason
        if plain_text(with_marks) != without:
            return False
    return True


@functools.lru_cache(maxsize=4)
def _spellings(
    tokenizer: str, named: tuple[tuple[str, str], ...], *, allowed: bool = False
) -> re.Pattern[str]:
    """Finds the special tokens in a text, the longest at each place, and the two characters above.
    Tokens that begin alike are looked at together: some tokenizers have a thousand."""
    tokens = [*([] if allowed else special_tokens(tokenizer, named)), MARK, _TOKEN]
    alike: dict[str, list[str]] = {}
    for token in tokens:
        alike.setdefault(token[:2], []).append(re.escape(token[2:]))
    begins = sorted(alike, key=len, reverse=True)
    return re.compile("|".join(f"{re.escape(one)}(?:{'|'.join(alike[one])})" for one in begins))


@functools.lru_cache(maxsize=4)
def _without_special_tokens(
    tokenizer: str, named: tuple[tuple[str, str], ...]
) -> tuple[str, NDArray[np.int32], NDArray[np.int32]]:
    """A tokenizer whose special tokens are written with _TOKEN before them, the ids of all its
    tokens in the one that is given, and those that are special there."""
    values = json.loads(backend(tokenizer).to_str())
    added = sorted(backend(tokenizer).get_added_tokens_decoder().items())
    other = Tokenizer.from_str(json.dumps({**values, "added_tokens": []}))
    special = {*special_tokens(tokenizer, named)}
    contents = {
        number: _TOKEN * (token.content in special) + token.content for number, token in added
    }
    other.add_tokens(
        [
            AddedToken(
                contents[number],
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=token.normalized,
                special=token.special,
            )
            for number, token in added
        ]
    )
    numbers = np.arange(other.get_vocab_size(with_added_tokens=True), dtype=np.int32)
    for number, content in contents.items():
        numbers[other.token_to_id(content)] = number
    unknown = values["model"].get("unk_id")  # Unigram's; others name it
    if unknown is None:
        unknown = other.token_to_id(values["model"].get("unk_token") or "")
    ids = [number for number, token in added if token.content in special and number != unknown]
    return other.to_str(), numbers, np.array(ids, np.int32)
