"""Conversations → token ids with a loss mask, a batch at a time.

Promise: each conversation is tokenised on its own, an answer is trained on from the end of the
generation prompt through its end-of-turn token or not at all, and whatever does not fit loses whole
trailing exchanges. A conversation's work grows with its length, not with the square of it. Price:
see docs/performance.md.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from sftray.data.chat.answer_spans import UNCERTAIN, marked_spans, not_written, prefix_spans
from sftray.data.chat.chat_format import PREFIXES, ChatFormat
from sftray.data.chat.documents import (
    NOTHING,
    Document,
    Dropped,
    Tokens,
    Written,
    document_of,
    tokens_of,
)
from sftray.data.chat.format_probe import merged
from sftray.data.chat.served import (
    TOO_LONG,
    Served,
    left_out,
    served_answers,
    served_document,
    shared_text,
)
from sftray.data.chat.shape_probe import CALLING_TWICE
from sftray.data.chat.spelled import marked, refusal
from sftray.data.chat.template_process import OverLimitsError, RefusedError, Span
from sftray.data.chat.token_kinds import kinds_of
from sftray.data.chat.tokenizer import backend
from sftray.data.source.conversations import Conversation
from sftray.data.source.turns import Message

REFUSED = "refused by the chat template"
OVER_LIMITS = "the chat template takes too long or too much memory"
APART = "answers that cannot be distinguished, some of them not to be trained on"

ASKED = 4
"""Prompts of a conversation without markers that are rendered, at either end."""
MOST_TURNS = 1000
"""Where those differ, all are: half a second's work for so many turns, four minutes for 20,000."""
MOST_SERVED = 400
"""Turns of a conversation with calls or thoughts: each answer is rendered by itself."""
LONG = 500
"""Turns above which a conversation is looked through for how much of it may fit, before templates
see it, some of whose work grows with the square of it."""


class _Batch(NamedTuple):
    conversations: Sequence[list[Message]]
    ready: Sequence[Conversation]
    """As they are `prepared`."""


Rendering = Written | Served
"""A text with its spans; the answers of a conversation with calls or thoughts; or the reason why it
is dropped."""


def encode_ahead(
    chat: ChatFormat, batches: Iterable[Sequence[list[Message]]], max_length: int
) -> Iterator[list[Document | Dropped]]:
    """`encode` of each batch; the next is read and rendered while one is tokenised."""
    waiting: list[tuple[_Batch, Future[list[Rendering]]]] = []
    with ThreadPoolExecutor(1) as thread:
        for conversations in batches:
            ready = [prepared(chat, turns, max_length) for turns in conversations]
            batch = _Batch(conversations, ready)
            waiting.append((batch, thread.submit(written, chat, ready, ASKED)))
            if len(waiting) > 1:
                one, rendered = waiting.pop(0)
                yield encode_rendered(chat, one, rendered.result(), max_length, ASKED)
        for one, rendered in waiting:
            yield encode_rendered(chat, one, rendered.result(), max_length, ASKED)


def encode(
    chat: ChatFormat,
    conversations: Sequence[list[Message]],
    max_length: int,
    *,
    asked: int = ASKED,
) -> list[Document | Dropped]:
    """A Document for each conversation, or the reason why it is dropped.

    Without markers, `asked` prompts at either end are rendered. Raises TemplateError where the
    template turns out to rewrite earlier turns.
    """
    ready = [prepared(chat, turns, max_length) for turns in conversations]
    batch = _Batch(conversations, ready)
    return encode_rendered(chat, batch, written(chat, ready, asked), max_length, asked)


def encode_rendered(
    chat: ChatFormat,
    batch: _Batch,
    renderings: Sequence[Rendering],
    max_length: int,
    asked: int,
) -> list[Document | Dropped]:
    """A batch that is rendered."""
    plain = [one for one in renderings if isinstance(one, tuple)]
    tokenised = iter(zip(plain, tokens_of(chat, plain), strict=True))
    documents: list[Document | Dropped] = []
    for turns, whole, one in zip(batch.ready, batch.conversations, renderings, strict=True):
        document: Document | Dropped
        if isinstance(one, str):
            document = Dropped(one)
        elif isinstance(one, list):
            document = served_document(chat, turns, one, max_length)
        else:
            rendered, tokens = next(tokenised)
            document = _document(chat, turns, rendered, tokens)
            if isinstance(document, Document) and len(tokens.ids) > max_length:
                document = _shortened(chat, turns, document, tokens, max_length, asked)
        if isinstance(document, Document) and turns.spelled:
            document = document._replace(spelled=turns.spelled)
        documents.append(_of_whole(document, len(turns), whole))
    return documents


def prepared(chat: ChatFormat, turns: list[Message], max_length: int | None = None) -> Conversation:
    """A conversation as it is written: what spells special tokens marked as text, without thoughts,
    where they are dropped, and no longer than what can be rendered answer by answer, or than what
    may fit."""
    one = marked(chat, Conversation.of(turns))
    if one.is_plain and len(one) <= LONG:  # nearly always
        return one
    if not one.is_plain and chat.thinking == "drop" and one.has_thoughts:
        one = one.without_thoughts()
    most = MOST_SERVED if not one.is_plain and _is_served(chat, one) else len(one)
    if len(one) > LONG and max_length is not None:
        words = [chat.header, *(turn["content"] for turn in one)]
        header, *rest = backend(chat.tokenizer).encode_batch(words, add_special_tokens=False)
        tokens = itertools.accumulate(max(1, len(header) // 2) + len(turn) for turn in rest)
        most = min(most, sum(1 for number in tokens if number <= max_length) + 2)
    if most >= len(one):
        return one
    start = one.through(max((k for k in one.answers if k < most), default=one.answers[0]))
    if chat.train_on == "last":
        start.untrained = frozenset(start.answers)
    return start


def _of_whole(
    document: Document | Dropped, written: int, turns: list[Message]
) -> Document | Dropped:
    """A document of a conversation's first turns as one of all, whose length is estimated."""
    if written == len(turns):
        return document
    full = round(document.full_length * len(turns) / written)
    if isinstance(document, Dropped):
        return document._replace(full_length=full)
    rest = sum(turn["role"] == "assistant" for turn in turns[written:])
    return document._replace(full_length=full, lost_exchanges=document.lost_exchanges + rest)


def written(chat: ChatFormat, ready: Sequence[Conversation], asked: int = ASKED) -> list[Rendering]:
    """Each prepared conversation as text with the characters to train on, or its answers one by
    one."""
    found: list[Rendering] = [_refusal(chat, one) for one in ready]
    plain = [k for k, one in enumerate(ready) if not found[k] and not _is_served(chat, one)]
    for k, text in zip(plain, _write(chat, [ready[k] for k in plain], asked), strict=True):
        found[k] = text
    served = [k for k, one in enumerate(found) if not one]
    for k, answers in zip(served, _serve(chat, [ready[k] for k in served]), strict=True):
        found[k] = answers
    return found


def _is_served(chat: ChatFormat, turns: Conversation) -> bool:
    """Whether each answer is rendered by itself: for thoughts, and for calls that markers do not
    tell, unless there are too many."""
    if turns.is_plain:
        return False
    if turns.has_thoughts or chat.method == PREFIXES:
        return True
    return len(turns) <= MOST_SERVED and not _marks_calls(chat)


@functools.lru_cache(maxsize=8)
def _marks_calls(chat: ChatFormat) -> bool:
    """Whether markers tell answers with calls as single renderings do."""
    chat = dataclasses.replace(chat, train_on="assistant")
    try:
        ((text, spans),) = _write(chat, [CALLING_TWICE], ASKED)
        (answers,) = served_answers(chat, [CALLING_TWICE])
    except RefusedError:
        return False
    return not isinstance(answers, str) and shared_text(chat, answers) == (text, spans)


def _refusal(chat: ChatFormat, turns: Conversation) -> str:
    """Why a conversation is dropped before it is rendered; empty where it is not."""
    if not turns.is_plain:
        if turns.tools and not chat.shape.tools:
            return not_written("tools")
        if not chat.shape.calls and any("tool_calls" in t or t["role"] == "tool" for t in turns):
            return not_written("tool_calls")
    return refusal(chat, turns)


def _serve(chat: ChatFormat, conversations: Sequence[Conversation]) -> list[Served]:
    """`served_answers`, each conversation alone where one is refused."""
    try:
        return served_answers(chat, conversations)
    except RefusedError as error:
        if len(conversations) == 1:
            return [OVER_LIMITS if isinstance(error, OverLimitsError) else REFUSED]
        return [_serve(chat, [one])[0] for one in conversations]


def _write(chat: ChatFormat, conversations: Sequence[Conversation], asked: int) -> list[Written]:
    """Each conversation as text with the characters to train on; alone where one is refused."""
    try:
        texts, marked = chat.render(conversations)
        if chat.method != PREFIXES:
            return [
                (text, _wanted(chat, turns, text, marked_spans(chat, text, merged(spans))))
                for text, spans, turns in zip(texts, marked, conversations, strict=True)
            ]
        stops = [_asked(turns, asked) for turns in conversations]
        cuts = [[(place, True) for place in places] for places in stops]
        prompts = iter(chat.render(conversations, cuts=cuts)[0])
    except RefusedError as error:
        if len(conversations) == 1:
            return [("", OVER_LIMITS if isinstance(error, OverLimitsError) else REFUSED)]
        return [_write(chat, [turns], asked)[0] for turns in conversations]
    found: list[Written] = []
    for text, turns, places in zip(texts, conversations, stops, strict=True):
        known = {place: next(prompts) for place in places}
        spans = prefix_spans(chat, text, turns, known)
        if spans == UNCERTAIN and len(turns) <= MOST_TURNS:
            ((_, spans),) = _write(chat, [turns], len(turns))
        else:
            spans = _wanted(chat, turns, text, spans)
        found.append((text, spans))
    return found


def _asked(turns: Conversation, number: int) -> list[int]:
    """The answers whose prompts are rendered: of a long conversation the first few and the last,
    or its work would grow with the square of its length."""
    answers = turns.answers
    return answers if len(answers) <= 2 * number else answers[:number] + answers[-number:]


def _wanted(
    chat: ChatFormat, turns: Conversation, text: str, spans: list[Span] | str
) -> list[Span] | str:
    """The spans of the answers that are trained on, or the reason why there are none."""
    is_all = turns.is_plain and not turns.untrained and chat.train_on == "assistant"
    if isinstance(spans, str) or is_all:
        return spans
    answers = turns.answers
    if len(spans) != len(answers):
        return APART
    if not turns.is_plain:
        shown = zip(answers, spans, strict=True)
        reasons = (left_out(turns[a], text[slice(*span)]) for a, span in shown)
        if reason := next(filter(None, reasons), ""):
            return reason
    wanted = [span for a, span in zip(answers, spans, strict=True) if a not in turns.untrained]
    if len(turns.untrained) == len(answers):
        return TOO_LONG  # rows keep one: what is trained on is beyond what is written
    return [span for span in wanted if chat.train_on != "last" or span == spans[-1]] or NOTHING


def _document(
    chat: ChatFormat, turns: Conversation, rendered: Written, tokens: Tokens
) -> Document | Dropped:
    """A conversation whose answers all stand in one text."""
    text, spans = rendered
    document = document_of(spans, tokens)
    if turns.is_plain or isinstance(document, Dropped) or isinstance(spans, str):
        return document
    places = [place for place in turns.answers if place not in turns.untrained]
    shown = [turns[place] for place in (places[-1:] if chat.train_on == "last" else places)]
    answers = [*zip(spans, shown, strict=True)]
    return document._replace(kinds=kinds_of(text, tokens.offsets, answers))


def _shortened(
    chat: ChatFormat,
    turns: Conversation,
    whole: Document,
    tokens: Tokens,
    max_length: int,
    asked: int,
) -> Document | Dropped:
    """The most exchanges that fit, found by halving, since a text only grows with each."""
    answers, fit = turns.answers, None
    first = next(k for k, turn in enumerate(turns) if turn["role"] == "user")
    least, most = sum(k < first for k in answers) + 1, len(answers) - 1
    if chat.train_on == "last":
        most = 0
    if len(tokens.edges) == len(answers):  # as many as end in time, of which nearly always all fit
        most = min(most, sum(edge is not None and edge[1] <= max_length for edge in tokens.edges))
    number = most
    while least <= most:
        start = turns.through(answers[number - 1])
        (rendered,) = _write(chat, [start], asked)
        shorter = _document(chat, start, rendered, *tokens_of(chat, [rendered]))
        if isinstance(shorter, Document) and len(shorter.input_ids) <= max_length:
            lost = len(answers) - number
            fit = shorter._replace(full_length=whole.full_length, lost_exchanges=lost)
            least = number + 1
        elif (
            isinstance(shorter, Dropped) and shorter.reason == NOTHING
        ):  # what is trained on comes later
            least = number + 1
        else:
            most = number - 1
        number = (least + most + 1) // 2
    return fit or Dropped(TOO_LONG, whole.full_length, whole.first_exchange)
