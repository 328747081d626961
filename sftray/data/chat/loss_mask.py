"""Conversations → token ids with a loss mask, a batch at a time.

Promise: each conversation is tokenised on its own, an answer is trained on from the end of the
generation prompt through its end-of-turn token or not at all, and whatever does not fit loses whole
trailing exchanges. Price: see docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from sftray.data.chat.chat_format import PREFIXES, ChatFormat, Span
from sftray.data.chat.format_probe import merged
from sftray.data.chat.tokenizer import backend
from sftray.data.source.conversations import Message
from sftray.errors import TemplateError

CONTROL_TOKEN = "control token in the text"
REFUSED = "refused by the chat template"
TOO_LONG = "first exchange longer than max_length"
NOTHING = "nothing to train on"
STRADDLES = "a token straddles the edge of an answer"
NO_END = "answer without an end-of-turn token"

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


class Tokens(NamedTuple):
    """A text in tokens."""

    ids: NDArray[np.int32]
    edges: list[Span | None]
    """The tokens of each span to train on; None where a token straddles its edge."""


class Dropped(NamedTuple):
    """A conversation that cannot be trained on."""

    reason: str
    full_length: int = 0
    """Tokens, where it was dropped for its length."""
    first_exchange: int = 0


def encode(
    chat: ChatFormat, conversations: Sequence[list[Message]], max_length: int
) -> list[Document | Dropped]:
    """A Document for each conversation, or the reason why it is dropped.

    Raises TemplateError where the template turns out to rewrite earlier turns.
    """
    clean = [not _has_control_token(chat, turns) for turns in conversations]
    kept = [turns for turns, is_clean in zip(conversations, clean, strict=True) if is_clean]
    written = _write(chat, kept)
    documents = (
        _fit(chat, turns, spans, tokens, max_length)
        for turns, (_, spans), tokens in zip(kept, written, _tokens(chat, written), strict=True)
    )
    return [next(documents) if is_clean else Dropped(CONTROL_TOKEN) for is_clean in clean]


def _has_control_token(chat: ChatFormat, turns: Sequence[Message]) -> bool:
    return any(token in turn["content"] for turn in turns for token in chat.control_tokens)


def _write(chat: ChatFormat, conversations: Sequence[list[Message]]) -> list[Written]:
    """Each conversation as text with the characters to train on; alone where one is refused."""
    write = _write_by_prefixes if chat.method == PREFIXES else _write_by_markers
    try:
        return write(chat, conversations)
    except jinja2.TemplateError:
        if len(conversations) == 1:
            return [("", REFUSED)]
        return [_write(chat, [turns])[0] for turns in conversations]


def _write_by_markers(chat: ChatFormat, conversations: Sequence[list[Message]]) -> list[Written]:
    texts, marked = chat.render(conversations, spans=True)
    return [
        (text, _marked_spans(chat, text, merged(spans)))
        for text, spans in zip(texts, marked, strict=True)
    ]


def _write_by_prefixes(chat: ChatFormat, conversations: Sequence[list[Message]]) -> list[Written]:
    texts, _ = chat.render(conversations)
    places = [_answers(turns) for turns in conversations]
    prefixes = [turns[:k] for turns, mine in zip(conversations, places, strict=True) for k in mine]
    prompts = iter(chat.render(prefixes, prompt=True)[0])
    written: list[Written] = []
    for text, turns, mine in zip(texts, conversations, places, strict=True):
        words = [turns[k]["content"] for k in mine]
        written.append((text, _prefix_spans(chat, text, words, [next(prompts) for _ in mine])))
    return written


def _answers(turns: Sequence[Message]) -> list[int]:
    return [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]


def _marked_spans(chat: ChatFormat, text: str, marked: list[Span]) -> list[Span] | str:
    """The markers' spans, from the end of the generation prompt through the end of turn."""
    spans: list[Span] = []
    for start, stop in marked:
        if spans and start < spans[-1][1]:
            continue
        if spans and text[start:stop].strip() in chat.control_tokens:
            continue  # the end of the whole text, which some templates mark too
        if chat.lead and text.startswith(chat.lead, start):
            start += len(chat.lead)
        elif chat.gap and text.endswith(chat.gap, 0, start):
            start -= len(chat.gap)
        places = [(text.find(end, start), len(end)) for end in chat.ends]
        at, length = min((place for place in places if place[0] >= 0), default=(-1, 0))
        if at < 0 or text[stop:at].strip():
            return NO_END
        spans.append((start, at + length))
    return spans


def _prefix_spans(
    chat: ChatFormat, text: str, answers: list[str], prompts: list[str]
) -> list[Span] | str:
    """From the end of each prompt, which must begin the text, through the end of turn."""
    spans: list[Span] = []
    for answer, prompt in zip(answers, prompts, strict=True):
        if not text.startswith(prompt):
            raise TemplateError(
                f"the chat template rewrites earlier turns: the conversation begins with "
                f"{text[:200]!r}, but its prompt was {prompt[-200:]!r}; give data.chat_template "
                "with {% generation %} markers"
            )
        at = text.find(answer.strip(), len(prompt))
        closing = at + len(answer.strip())
        stop = next((e for e in (_closed(text, closing, end) for end in chat.ends) if e), None)
        if at < 0 or (stop is None and any(end in text[len(prompt) :] for end in chat.ends)):
            raise TemplateError(
                f"the chat template rewrites earlier answers: {answer[:80]!r} became "
                f"{text[len(prompt) :][:80]!r}; give data.chat_template with "
                "{% generation %} markers"
            )
        if stop is None:
            return NO_END
        spans.append((len(prompt), stop))
    return spans


def _closed(text: str, position: int, end: str) -> int | None:
    """One past the end-of-turn token, if nothing but spaces lies before it."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position + len(end) if text.startswith(end, position) else None


def _tokens(chat: ChatFormat, written: Sequence[Written]) -> list[Tokens]:
    """Each text in tokens."""
    texts = [text for text, _ in written]
    encodings = backend(chat.tokenizer).encode_batch(texts, add_special_tokens=False)
    tokens = []
    for (text, spans), encoding in zip(written, encodings, strict=True):
        places = [] if isinstance(spans, str) else spans
        edges = [_token_edges(encoding, start, stop, len(text)) for start, stop in places]
        tokens.append(Tokens(np.array(encoding.ids, np.int32), edges))
    return tokens


def _token_edges(encoding: Encoding, start: int, stop: int, length: int) -> Span | None:
    """The tokens of characters [start, stop) of a text of `length`; None if a token straddles."""
    first = _token_at(encoding, start, length)
    last = _token_at(encoding, stop, length)
    return None if first is None or last is None else (first, last)


def _token_at(encoding: Encoding, position: int, length: int) -> int | None:
    """The first token at or after a character; None if one covers it and the character before."""
    while position < length:
        token = encoding.char_to_token(position)
        if token is not None:
            start, _ = encoding.token_to_chars(token) or (0, 0)
            return token if start >= position else None
        position += 1  # a character that the tokenizer's normaliser takes away
    return len(encoding)


def _fit(
    chat: ChatFormat,
    turns: list[Message],
    spans: list[Span] | str,
    tokens: Tokens,
    max_length: int,
) -> Document | Dropped:
    """The conversation as tokens, without the trailing exchanges that do not fit."""
    if isinstance(spans, str):
        return Dropped(spans)
    edges = [edge for edge in tokens.edges if edge is not None]
    if len(edges) < len(tokens.edges):
        return Dropped(STRADDLES)
    if not any(stop > 1 and start < stop for start, stop in edges):
        return Dropped(NOTHING)
    length = len(tokens.ids)
    if length <= max_length:
        return _document(tokens.ids, edges)
    answers = _answers(turns)
    asked = next(k for k, turn in enumerate(turns) if turn["role"] == "user")
    for lost, last in enumerate(reversed(answers[:-1]), start=1):
        kept = len(answers) - lost
        if last < asked:
            break
        if len(edges) == len(answers) and edges[kept - 1][1] > max_length:
            continue  # too long before it is rendered again
        (shorter,) = encode(chat, [turns[: last + 1]], max_length)
        if isinstance(shorter, Document) and shorter.lost_exchanges == 0:
            return shorter._replace(full_length=length, lost_exchanges=lost)
    return Dropped(TOO_LONG, length, edges[0][1])


def _document(ids: NDArray[np.int32], edges: list[Span]) -> Document:
    trained = np.zeros(len(ids), dtype=np.bool_)
    for start, stop in edges:
        trained[start:stop] = True
    trained[0] = False  # nothing of its own document comes before it
    return Document(ids, trained, len(ids), edges[0][1], 0)
