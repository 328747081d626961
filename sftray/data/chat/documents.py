"""A text with the characters to train on → tokens with a loss mask, or the reason why not.

Promise: a token is trained on or not as a whole; where one straddles the edge of an answer there is
no document. A special token that swallows the white space beside it (rstrip, lstrip) is no such
token: it is the same with the space as without.
"""

from __future__ import annotations

import bisect
import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.spelled import MARK, SPELLED, AsText, as_text
from sftray.data.chat.template_process import Span
from sftray.data.chat.token_kinds import Kinds
from sftray.data.chat.tokenizer import backend, swallowing_tokens

NOTHING = "nothing to train on"
STRADDLES = "a token straddles the edge of an answer"
FEW_SPANS = 16
"""Spans whose tokens are looked up one by one."""

Written = tuple[str, list[Span] | str]
"""A text, and the characters to train on or the reason why there are none."""


class Document(NamedTuple):
    """A tokenised conversation."""

    input_ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    full_length: int
    """Tokens before trailing exchanges were taken off."""
    first_exchange: int
    """Tokens through the first trained answer."""
    lost_exchanges: int
    kinds: Kinds | None = None
    """Of its tokens (`token_kinds`), ends left out; None where all are words."""
    spelled: frozenset[str] = frozenset()
    """Special tokens in its words, tokenised as text."""
    more: tuple[Document, ...] = ()
    """Of the same conversation, where its answers are not all seen in one text."""


class Tokens(NamedTuple):
    """A text in tokens."""

    ids: NDArray[np.int32]
    edges: list[Span | None]
    """The tokens of each span to train on; None where a token straddles its edge."""
    encoding: Encoding
    as_text: AsText | None = None
    """Where words spell special tokens."""
    reason: str = ""
    """Why it cannot be trained on."""

    @property
    def offsets(self) -> Sequence[Span]:
        """The characters of each token."""
        found = self.encoding.offsets
        return found if self.as_text is None else self.as_text.places(found)


class Dropped(NamedTuple):
    """A conversation that cannot be trained on."""

    reason: str
    full_length: int = 0
    """Tokens, where it was dropped for its length."""
    first_exchange: int = 0


def tokens_of(chat: ChatFormat, written: Sequence[Written]) -> list[Tokens]:
    """Each text in tokens."""
    plain = iter(_tokens_of(chat, [one for one in written if MARK not in one[0]]))
    return [_marked_tokens(chat, *one) if MARK in one[0] else next(plain) for one in written]


def _tokens_of(chat: ChatFormat, written: Sequence[Written]) -> list[Tokens]:
    swallowing = swallowing_tokens(chat.tokenizer)
    texts = [text for text, _ in written]
    encodings = backend(chat.tokenizer).encode_batch(texts, add_special_tokens=False)
    return [
        Tokens(
            np.array(encoding.ids, np.int32),
            _token_edges(encoding, text, spans, swallowing),
            encoding,
        )
        for (text, spans), encoding in zip(written, encodings, strict=True)
    ]


def _marked_tokens(chat: ChatFormat, text: str, spans: list[Span] | str) -> Tokens:
    """Of a text whose words spell special tokens."""
    one = as_text(chat, text, [] if isinstance(spans, str) else spans)
    encoding = backend(one.tokenizer).encode(one.text, add_special_tokens=False)
    ids = one.ids(encoding.ids)
    if ids is None:
        return Tokens(np.empty(0, np.int32), [], encoding, one, SPELLED)
    swallowing = swallowing_tokens(one.tokenizer)
    return Tokens(ids, _token_edges(encoding, one.text, one.spans, swallowing), encoding, one)


def _token_edges(
    encoding: Encoding, text: str, spans: list[Span] | str, swallowing: frozenset[int]
) -> list[Span | None]:
    """The tokens of spans of characters; None where a token straddles an edge."""
    if isinstance(spans, str):
        return []
    if swallowing:
        return [_swallowed(encoding, text, span, swallowing) for span in spans]
    if len(spans) <= FEW_SPANS:
        find = functools.partial(_token_at, encoding, len(text))
    else:
        find = functools.partial(_token_among, encoding.offsets)
    edges = ((find(start), find(stop)) for start, stop in spans)
    return [None if first is None or last is None else (first, last) for first, last in edges]


def _swallowed(
    encoding: Encoding, text: str, span: Span, swallowing: frozenset[int]
) -> Span | None:
    """A span where tokens may have taken the white space beside them."""
    ids, offsets = encoding.ids, encoding.offsets
    edges: list[int] = []
    for position in span:
        at = bisect.bisect_right(offsets, position, key=operator.itemgetter(1))
        while at < len(offsets) and offsets[at][0] == offsets[at][1]:
            at += 1  # a token of no character
        start, stop = offsets[at] if at < len(offsets) else (position, position)
        if start < position:
            is_space = [not text[a:b].strip() for a, b in ((start, position), (position, stop))]
            if ids[at] not in swallowing or not any(is_space):
                return None
            at += is_space[1]  # the space behind an edge goes with what stands before it
        edges.append(at)
    return edges[0], edges[1]


def _token_at(encoding: Encoding, length: int, position: int) -> int | None:
    """The first token at or after a character; None if one covers it and the character before."""
    while position < length:
        token = encoding.char_to_token(position)  # looks from the first token on
        if token is not None:
            start, _ = encoding.token_to_chars(token) or (0, 0)
            return token if start >= position else None
        position += 1  # a character that the tokenizer's normaliser takes away
    return len(encoding)


def _token_among(offsets: list[Span], position: int) -> int | None:
    """`_token_at` for many positions: `offsets` are those of all tokens, 0.1 µs each to make."""
    at = bisect.bisect_right(offsets, position, key=operator.itemgetter(1))
    while at < len(offsets) and offsets[at][0] == offsets[at][1]:
        at += 1  # a token of no character
    return None if at < len(offsets) and offsets[at][0] < position else at


def document_of(spans: list[Span] | str, tokens: Tokens) -> Document | Dropped:
    """The conversation as tokens, however long."""
    if isinstance(spans, str) or tokens.reason:
        return Dropped(spans if isinstance(spans, str) else tokens.reason)
    edges = [edge for edge in tokens.edges if edge is not None]
    if len(edges) < len(tokens.edges):
        return Dropped(STRADDLES)
    if not any(stop > 1 and start < stop for start, stop in edges):
        return Dropped(NOTHING)
    trained = np.zeros(len(tokens.ids), dtype=np.bool_)
    for start, stop in edges:
        trained[start:stop] = True
    trained[0] = False  # nothing of its own document comes before it
    return Document(tokens.ids, trained, len(tokens.ids), edges[0][1], 0)
