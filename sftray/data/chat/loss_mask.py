"""Conversations → token ids with a loss mask, a batch at a time.

Promise: each conversation is tokenised on its own, an answer is trained on from the end of the
generation prompt through its end-of-turn token or not at all, and whatever does not fit loses whole
trailing exchanges. A conversation's work grows with its length, not with the square of it. Price:
see docs/performance.md.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from sftray.data.chat.chat_format import PREFIXES, ChatFormat
from sftray.data.chat.format_probe import merged
from sftray.data.chat.template_process import OverLimitsError, RefusedError, Span
from sftray.data.chat.tokenizer import backend
from sftray.data.source.conversations import Message
from sftray.errors import TemplateError

CONTROL_TOKEN = "control token in the text"
REFUSED = "refused by the chat template"
TOO_LONG = "first exchange longer than max_length"
NOTHING = "nothing to train on"
STRADDLES = "a token straddles the edge of an answer"
NO_END = "answer without an end-of-turn token"
OVER_LIMITS = "the chat template takes too long or too much memory"
UNCERTAIN = "too many exchanges for a chat template without {% generation %}"

ASKED = 4
"""Prompts of a conversation without markers that are rendered, at either end."""
FEW_SPANS = 16
"""Spans whose tokens are looked up one by one."""
MOST_TURNS = 1000
"""Where those differ, all are: half a second's work for so many turns, four minutes for 20,000."""

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


def encode_ahead(
    chat: ChatFormat, batches: Iterable[Sequence[list[Message]]], max_length: int
) -> Iterator[list[Document | Dropped]]:
    """`encode` of each batch; the next is read and rendered while one is tokenised."""
    waiting: list[tuple[Sequence[list[Message]], Future[list[Written]]]] = []
    with ThreadPoolExecutor(1) as thread:
        for conversations in batches:
            waiting.append((conversations, thread.submit(_render, chat, conversations, ASKED)))
            if len(waiting) > 1:
                one, rendered = waiting.pop(0)
                yield encode(chat, one, max_length, written=rendered.result())
        for one, rendered in waiting:
            yield encode(chat, one, max_length, written=rendered.result())


def encode(
    chat: ChatFormat,
    conversations: Sequence[list[Message]],
    max_length: int,
    *,
    asked: int = ASKED,
    written: Sequence[Written] | None = None,
) -> list[Document | Dropped]:
    """A Document for each conversation, or the reason why it is dropped.

    Without markers, `asked` prompts at either end are rendered; `written` is what was rendered
    already. Raises TemplateError where the template turns out to rewrite earlier turns.
    """
    written = written or _render(chat, conversations, asked)
    documents: list[Document | Dropped] = []
    tokenised = zip(conversations, written, _tokens(chat, written), strict=True)
    for turns, (_, spans), tokens in tokenised:
        document = _document(spans, tokens)
        if isinstance(document, Document) and len(tokens.ids) > max_length:
            document = _shortened(chat, turns, document, tokens, max_length, asked)
        documents.append(document)
    return documents


def _render(chat: ChatFormat, conversations: Sequence[list[Message]], asked: int) -> list[Written]:
    """`_write` of those without a control token."""
    clean = [not _has_control_token(chat, turns) for turns in conversations]
    written = iter(_write(chat, list(itertools.compress(conversations, clean)), asked))
    return [next(written) if is_clean else ("", CONTROL_TOKEN) for is_clean in clean]


def _has_control_token(chat: ChatFormat, turns: Sequence[Message]) -> bool:
    texts = "\0".join([turn["content"] for turn in turns])
    return any(token in texts for token in chat.control_tokens)


def _write(chat: ChatFormat, conversations: Sequence[list[Message]], asked: int) -> list[Written]:
    """Each conversation as text with the characters to train on; alone where one is refused."""
    try:
        texts, marked = chat.render(conversations)
        if chat.method != PREFIXES:
            return [
                (text, _marked_spans(chat, text, merged(spans)))
                for text, spans in zip(texts, marked, strict=True)
            ]
        stops = [_asked(turns, asked) for turns in conversations]
        prompts = iter(chat.render(conversations, prompt=True, stops=stops)[0])
    except RefusedError as error:
        if len(conversations) == 1:
            return [("", OVER_LIMITS if isinstance(error, OverLimitsError) else REFUSED)]
        return [_write(chat, [turns], asked)[0] for turns in conversations]
    written: list[Written] = []
    for text, turns, places in zip(texts, conversations, stops, strict=True):
        known = {place: next(prompts) for place in places}
        spans = _prefix_spans(chat, text, turns, known)
        if spans == UNCERTAIN and len(turns) <= MOST_TURNS:
            ((_, spans),) = _write(chat, [turns], len(turns))
        written.append((text, spans))
    return written


def _answers(turns: Sequence[Message]) -> list[int]:
    return [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]


def _asked(turns: Sequence[Message], number: int) -> list[int]:
    """The answers whose prompts are rendered: of a long conversation the first few and the last,
    or its work would grow with the square of its length."""
    answers = _answers(turns)
    return answers if len(answers) <= 2 * number else answers[:number] + answers[-number:]


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
    chat: ChatFormat, text: str, turns: Sequence[Message], prompts: Mapping[int, str]
) -> list[Span] | str:
    """From the end of each answer's prompt, which must begin the text, through the end of turn.

    `prompts` are rendered, by the place of their answers. Another answer's prompt ends as they all
    do; UNCERTAIN where they differ.
    """
    answers, header = _answers(turns), ""
    if len(prompts) < len(answers):
        header = _header(chat, turns, prompts)
        if not header:
            return UNCERTAIN
    spans: list[Span] = []
    for place in answers:
        answer, prompt = turns[place]["content"].strip(), prompts.get(place)
        start, before = -1 if prompt is None else len(prompt), spans[-1][1] if spans else 0
        if prompt is not None and not text.startswith(prompt):
            raise TemplateError(
                f"the chat template rewrites earlier turns: the conversation begins with "
                f"{text[:200]!r}, but its prompt was {prompt[-200:]!r}; give data.chat_template "
                "with {% generation %} markers"
            )
        if header:
            found = text.find(header, before) + len(header)
            if found < len(header) or start not in (-1, found):
                return UNCERTAIN
            start = found
        at = text.find(answer, start)
        closing = at + len(answer)
        stop = next((e for e in (_closed(text, closing, end) for end in chat.ends) if e), None)
        if at < 0 or (stop is None and any(end in text[start:] for end in chat.ends)):
            raise TemplateError(
                f"the chat template rewrites earlier answers: {answer[:80]!r} became "
                f"{text[start : start + 80]!r}; give data.chat_template with "
                "{% generation %} markers"
            )
        if stop is None:
            return NO_END
        spans.append((start, stop))
    return spans


def _header(chat: ChatFormat, turns: Sequence[Message], prompts: Mapping[int, str]) -> str:
    """What all prompts have behind the user's words; empty if it differs or a text may hold it."""
    headers = {
        prompt.rpartition(turns[place - 1]["content"].strip())[2]
        for place, prompt in prompts.items()
    }
    header = headers.pop()
    core = header.strip()
    certain = not headers and core and not any(core in turn["content"] for turn in turns)
    return header if certain else ""


def _closed(text: str, position: int, end: str) -> int | None:
    """One past the end-of-turn token, if nothing but spaces lies before it."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position + len(end) if text.startswith(end, position) else None


def _tokens(chat: ChatFormat, written: Sequence[Written]) -> list[Tokens]:
    """Each text in tokens."""
    texts = [text for text, _ in written]
    encodings = backend(chat.tokenizer).encode_batch(texts, add_special_tokens=False)
    return [
        Tokens(np.array(encoding.ids, np.int32), _token_edges(encoding, text, spans))
        for (text, spans), encoding in zip(written, encodings, strict=True)
    ]


def _token_edges(encoding: Encoding, text: str, spans: list[Span] | str) -> list[Span | None]:
    """The tokens of spans of characters; None where a token straddles an edge."""
    if isinstance(spans, str):
        return []
    if len(spans) <= FEW_SPANS:
        find = functools.partial(_token_at, encoding, len(text))
    else:
        find = functools.partial(_token_among, encoding.offsets)
    edges = ((find(start), find(stop)) for start, stop in spans)
    return [None if first is None or last is None else (first, last) for first, last in edges]


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


def _document(spans: list[Span] | str, tokens: Tokens) -> Document | Dropped:
    """The conversation as tokens, however long."""
    if isinstance(spans, str):
        return Dropped(spans)
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


def _shortened(
    chat: ChatFormat,
    turns: list[Message],
    whole: Document,
    tokens: Tokens,
    max_length: int,
    asked: int,
) -> Document | Dropped:
    """The most exchanges that fit, found by halving, since a text only grows with each."""
    answers = _answers(turns)
    first = next(k for k, turn in enumerate(turns) if turn["role"] == "user")
    least, most = sum(k < first for k in answers) + 1, len(answers) - 1
    if len(tokens.edges) == len(answers):  # as many as end in time, of which nearly always all fit
        most = min(most, sum(edge is not None and edge[1] <= max_length for edge in tokens.edges))
    fit, number = None, most
    while least <= most:
        ((_, spans),) = written = _write(chat, [turns[: answers[number - 1] + 1]], asked)
        shorter = _document(spans, *_tokens(chat, written))
        if isinstance(shorter, Document) and len(shorter.input_ids) <= max_length:
            lost = len(answers) - number
            fit = shorter._replace(full_length=whole.full_length, lost_exchanges=lost)
            least = number + 1
        else:
            most = number - 1
        number = (least + most + 1) // 2
    return fit or Dropped(TOO_LONG, whole.full_length, whole.first_exchange)
