"""Conversations with calls or thoughts: each answer behind what a served model sees before it.

Promise: what stands before an answer is what the model's own template gives it as a prompt, earlier
thoughts stripped where the template strips them; answers share a document as far as one text shows
each of them so, and a conversation becomes as many documents as that needs. All that an answer says
(its words, its thought, the names of its calls) is in what is trained on, or the row is dropped.
Price: two or three renderings an answer.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sftray.data.chat.answer_spans import NO_END, closed, not_written
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.documents import Document, Dropped, Written, document_of, tokens_of
from sftray.data.chat.format_probe import shared
from sftray.data.chat.shape_probe import THINKING
from sftray.data.chat.template_process import Cut, RefusedError, Span
from sftray.data.chat.token_kinds import kinds_of
from sftray.data.source.conversations import Conversation
from sftray.data.source.turns import Message

REWRITTEN = "the chat template rewrites earlier turns"
TOO_LONG = "first exchange longer than max_length"
_AT_ONCE = 20_000
"""Turns rendered in one request: a second at most."""


class ServedAnswer(NamedTuple):
    """An answer as a served model writes it."""

    place: int
    before: str
    """What the model sees."""
    words: str
    """What it writes, without what ends it."""
    end: str
    rest: str
    """What the template writes behind it."""

    @property
    def text(self) -> str:
        return f"{self.before}{self.words}{self.end}{self.rest}"


Served = list[ServedAnswer] | str
"""The answers of a conversation, or the reason why it is dropped."""


def served_answers(chat: ChatFormat, conversations: Sequence[Conversation]) -> list[Served]:
    """Of each conversation. Raises RefusedError where the template refuses one of them."""
    is_stripped = [one.has_thoughts and chat.template != chat.own_template for one in conversations]
    calls = [one for one, stripped in zip(conversations, is_stripped, strict=True) if not stripped]
    thoughts = [one for one, stripped in zip(conversations, is_stripped, strict=True) if stripped]
    own = dataclasses.replace(chat, template=chat.own_template)
    by_own = bool(thoughts) and _serves(own)
    served = iter(_served(own if by_own else chat, thoughts, own_prompts=not by_own))
    others = iter(_served(chat, calls))
    return [next(served) if stripped else next(others) for stripped in is_stripped]


def shared_text(chat: ChatFormat, answers: Sequence[ServedAnswer]) -> Written:
    """The last answer's text, and where it shows answers as a served model sees them."""
    last = answers[-1]
    seen = [span for one in answers[:-1] if (span := _seen(chat, one, last.text))]
    return last.text, [*seen, (len(last.before), len(last.text) - len(last.rest))]


def left_out(turn: Message, words: str) -> str:
    """The reason where an answer's text lacks what its turn has; empty where it has all."""
    if turn["content"].strip() not in words:
        return not_written("words beside a call")
    if turn.get("reasoning_content", "") not in words:
        return not_written("reasoning")
    names = [call["function"]["name"] for call in turn.get("tool_calls", [])]
    if any(words.count(name) < names.count(name) for name in names):
        return not_written("several calls in a turn")
    if names and words.find(turn.get("reasoning_content", "")) > words.find(names[0]):
        return not_written("reasoning beside a call")
    return ""


def served_document(
    chat: ChatFormat, turns: Conversation, answers: Sequence[ServedAnswer], max_length: int
) -> Document | Dropped:
    """The documents of a conversation that fit, the one with most exchanges first."""
    pending = [one for one in answers if one.place not in turns.untrained]
    if chat.train_on == "last":
        pending = [one for one in pending if one.place == answers[-1].place]
    documents: list[Document] = []
    full = first = lost = 0
    while pending:
        last = pending.pop()
        seen = {one.place: span for one in pending if (span := _seen(chat, one, last.text))}
        spans = [*seen.values(), (len(last.before), len(last.text) - len(last.rest))]
        (tokens,) = tokens_of(chat, [(last.text, spans)])
        document = document_of(spans, tokens)
        if isinstance(document, Dropped):
            return document
        shown = [turns[place] for place in (*seen, last.place)]
        kinds = kinds_of(last.text, tokens.offsets, [*zip(spans, shown, strict=True)])
        document = document._replace(kinds=kinds)
        full, first = max(full, document.full_length), document.first_exchange
        if document.full_length > max_length:
            ends = dict(zip(seen, (edge[1] for edge in tokens.edges if edge), strict=False))
            fit = [one for one in pending if ends.get(one.place, 0) <= max_length]
            lost, pending = lost + 1 + len(pending) - len(fit), fit
            continue
        documents.append(document)
        pending = [one for one in pending if one.place not in seen]
        if chat.thinking == "last":
            break
    if not documents:
        return Dropped(TOO_LONG, full, first)
    main, *more = documents
    return main._replace(full_length=full, lost_exchanges=lost, more=tuple(more))


@functools.lru_cache(maxsize=8)
def _serves(chat: ChatFormat) -> bool:
    """Whether a template writes a thought, and the end of its turn."""
    try:
        (answers,) = _served(chat, [THINKING])
    except RefusedError:
        return False
    return not isinstance(answers, str)


def _served(
    chat: ChatFormat, conversations: Sequence[Conversation], *, own_prompts: bool = False
) -> Iterator[Served]:
    """`own_prompts`: what is seen before an answer is written by the model's own template."""
    cuts = [[cut for a in one.answers for cut in _cuts(a)] for one in conversations]
    texts = iter(list(_rendered(chat, conversations, cuts)))
    prompts = [[(a, True) for a in one.answers] for one in conversations] if own_prompts else []
    own = iter(list(_rendered(chat, conversations, prompts, own=True)) if own_prompts else [])
    for one in conversations:
        answers: list[ServedAnswer] = []
        reason = ""
        for place in one.answers:
            prompt, whole = next(texts), next(texts)
            answer = _answer(
                chat, one[place], place, prompt, whole, next(own) if own_prompts else prompt
            )
            if isinstance(answer, str):
                reason = reason or answer
            else:
                answers.append(answer)
        yield reason or answers


def _cuts(place: int) -> list[Cut]:
    return [(place, True), (place + 1, False)]


def _rendered(
    chat: ChatFormat,
    conversations: Sequence[Conversation],
    cuts: Sequence[Sequence[Cut]],
    *,
    own: bool = False,
) -> Iterator[str]:
    """A text for each cut of each conversation, so many at once as take a second."""
    piece: list[Conversation] = []
    asked: list[list[Cut]] = []
    work = 0
    for one, places in zip(conversations, cuts, strict=True):
        for place in places:
            if not piece or piece[-1] is not one:
                piece.append(one)
                asked.append([])
            asked[-1].append(place)
            work += place[0]
            if work > _AT_ONCE:
                yield from chat.render(piece, own=own, cuts=asked)[0]
                piece, asked, work = [], [], 0
    if piece:
        yield from chat.render(piece, own=own, cuts=asked)[0]


def _answer(
    chat: ChatFormat, turn: Message, place: int, prompt: str, whole: str, seen: str
) -> ServedAnswer | str:
    """An answer of a conversation that ends on it: `whole` is its text, `prompt` how the template
    asks for it, and `seen` how the model's own does."""
    start, asked = _place(chat, prompt, whole)
    if not asked:
        return REWRITTEN
    unasked = prompt[asked:]  # is not what the answer is trained behind
    before = seen.removesuffix(unasked) if seen.endswith(unasked) else whole[:start]
    words, end, rest = _ended(chat, whole[start:])
    if not end:
        return NO_END
    if reason := left_out(turn, words):
        return reason
    return ServedAnswer(place, before, words, end, rest)


def _place(chat: ChatFormat, prompt: str, whole: str) -> Span:
    """Where an answer begins in its text, and how much of the prompt stands before it there: all,
    or as much as they share where the template asks otherwise than it writes. Templates may rewrite
    earlier turns as soon as there is an answer: then the end of the prompt is looked for. The
    second is 0 where the place is not certain."""
    if whole.startswith(prompt):
        return len(prompt), len(prompt)
    start = shared(chat.tokenizer, prompt, whole)
    if len(prompt) - start <= len(chat.header):
        return start, start
    length = bisect.bisect_left(range(1, len(prompt)), True, key=lambda k: prompt[-k:] not in whole)
    at = whole.find(prompt[len(prompt) - length :])
    return (at + length, len(prompt)) if length > len(chat.header) else (0, 0)


def _ended(chat: ChatFormat, written: str) -> tuple[str, str, str]:
    """What an answer is without its end, the end (special tokens behind the last word), and what
    the template writes behind it."""
    at = edge = len(written.rstrip())
    while token := next((t for t in chat.control_tokens if written.endswith(t, 0, at)), ""):
        edge = at - len(token)
        at = len(written[:edge].rstrip())
    tail = written[at:].rstrip()
    stops = [tail.find(end) + len(end) for end in chat.ends if end in tail]
    stop = at + min(stops, default=len(tail))
    return written[:at], written[at:stop], written[stop:]


def _seen(chat: ChatFormat, answer: ServedAnswer, text: str) -> Span | None:
    """Where a text shows an earlier answer behind what the model sees, perhaps ended otherwise."""
    if not text.startswith(answer.before + answer.words):
        return None
    start = len(answer.before)
    ends = (answer.end.strip(), *chat.ends)
    at = start + len(answer.words)
    stop = next((stop for end in ends if (stop := closed(text, at, end))), None)
    return None if stop is None else (start, stop)
