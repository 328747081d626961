"""Which characters of a text the assistant wrote: by the template's markers, or by its prompts.

Promise: from the end of the generation prompt through the end-of-turn token, of every answer, in
one pass over the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.template_process import Span
from sftray.data.source.conversations import Conversation
from sftray.data.source.turns import Message
from sftray.errors import TemplateError

NO_END = "answer without an end-of-turn token"
UNCERTAIN = "too many exchanges for a chat template without {% generation %}"


def not_written(what: str) -> str:
    """The reason where a template leaves out what a conversation has."""
    return f"{what} not supported by the chat template"


def marked_spans(chat: ChatFormat, text: str, marked: list[Span]) -> list[Span] | str:
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
        at, end = _end_of(chat, text, start)
        if not end or text[stop:at].strip():
            inside = len(text[start:stop].rstrip())  # a call may end otherwise than an answer
            if not text.endswith(chat.control_tokens, start, start + inside):
                return NO_END
            end = start + inside
        spans.append((start, end))
    return spans


def prefix_spans(
    chat: ChatFormat, text: str, turns: Conversation, prompts: Mapping[int, str]
) -> list[Span] | str:
    """From the end of each answer's prompt, which must begin the text, through the end of turn.

    `prompts` are rendered, by the place of their answers. Another answer's prompt ends as they all
    do; UNCERTAIN where they differ.
    """
    answers, header = turns.answers, ""
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
        at, stop = _end_of(chat, text, start)
        if not stop:
            return NO_END
        if not text[start:at].rstrip().endswith(answer):
            raise TemplateError(
                f"the chat template rewrites earlier answers: {answer[:80]!r} became "
                f"{text[start : start + 80]!r}; give data.chat_template with "
                "{% generation %} markers"
            )
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


def _end_of(chat: ChatFormat, text: str, start: int) -> Span:
    """Where the first end of a turn lies; stops at 0 where there is none."""
    span = (len(text), 0)
    for end in dict.fromkeys(chat.ends):
        at = text.find(end, start, span[0])
        span = span if at < 0 else (at, at + len(end))
    return span


def closed(text: str, position: int, end: str) -> int | None:
    """One past the end-of-turn token, if nothing but spaces lies before it."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position + len(end) if text.startswith(end, position) else None
