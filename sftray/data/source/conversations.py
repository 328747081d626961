"""One row of a dataset → the turns of a conversation, or the reason why it is bad.

Promise: whatever is returned starts with at most one system turn, holds text only, never has two
turns of one role in a row, and ends on an answer. Nothing is repaired but a last user turn that
nobody answered, which is taken off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypedDict

SourceRow = Mapping[str, object]
"""A row of a dataset: its columns."""


class Message(TypedDict):
    """One turn."""

    role: str
    """system, user or assistant."""
    content: str


NO_ASSISTANT = "no assistant turn"
NO_USER = "no user turn"
EMPTY_ANSWER = "empty answer"
EMPTY_USER = "empty user turn"
UNKNOWN_ROLE = "unknown role"
NOT_TEXT = "content not text"
REPEATED_ROLE = "two turns of one role in a row"
LATE_SYSTEM = "system turn after the start"
MALFORMED = "turns not a list of role and content"
TOO_DEEP = "values nested too deep"
TOO_MANY_DIGITS = "number of thousands of digits"
TWICE = "one key twice"

MESSAGES = "messages"
COLUMNS = {
    MESSAGES: (MESSAGES,),
    "conversations": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
}
"""The columns that each way of spelling a conversation needs; "system" and "input" are optional."""

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


REFUSED_KEYS = frozenset(
    ("tool_calls", "tools", "functions", "function_call", "thinking", "weight", "train")
)
"""Keys of a row or a turn that change what is trained on, and that nothing reads."""
REFUSED_PREFIX = "reasoning"
"""Likewise every key that begins so: reasoning, reasoning_content, reasoning_details …"""
REFUSED_ROLES = frozenset(
    ("tool", "tool_call", "tool_response", "function", "function_call", "observation", "ipython")
)
"""Roles of the turns around a tool's call."""
_READ_KEYS = frozenset(("role", "content", "from", "value", "system", "input")).union(
    *COLUMNS.values()
)
_EMPTY_JSON = ("", "[]", "{}", "null")
_HARMLESS_KEYS = frozenset(
    ("id", "idx", "index", "uuid", "prompt_id", "source", "dataset", "url", "category", "language")
)
"""Keys that say where a row or a turn is from: nothing is lost where they are not read."""


class BadRowError(Exception):
    """A row that cannot be trained on; the message is the reason it is counted under."""


class UnreadableRow(dict[str, object]):
    """A line that is JSON, but not a row that can be read, and why; it begins with `text`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text=text)
        self.reason = reason


def spelling_of(row: SourceRow) -> str | None:
    """Which of COLUMNS a row has, the first that is complete; None if none. A column that is null
    may be there for other rows of its table, and counts where no other spelling is complete."""
    for spelling, needed in COLUMNS.items():
        if all(row.get(name) is not None for name in needed):
            return spelling
    complete = (spelling for spelling, needed in COLUMNS.items() if row.keys() >= set(needed))
    return next(complete, None)


def conversation(row: SourceRow, spelling: str) -> tuple[list[Message], bool]:
    """The turns of a row, ending on an answer, and whether it lost a last user turn for that.

    The row has the columns of its spelling, or with "auto" those of any. Raises BadRowError with
    the reason where it cannot be trained on.
    """
    if isinstance(row, UnreadableRow):
        raise BadRowError(row.reason)
    _refuse_keys(row)
    turns = [_message(turn) for turn in _turns(row, spelling)]
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns.insert(0, {"role": "system", "content": system})
    if turns and turns[0]["role"] == "system" and not turns[0]["content"].strip():
        del turns[0]
    _check_order(turns)
    unanswered = turns[-1:] != [] and turns[-1]["role"] == "user"
    if unanswered:
        del turns[-1]
    _check_content(turns)
    return turns, unanswered


def first_user_turn(turns: Sequence[Message]) -> str:
    """The text that decides whether a conversation is held out."""
    return next(turn["content"] for turn in turns if turn["role"] == "user")


def unread_keys(row: SourceRow, spelling: str) -> set[str]:
    """Keys of a row, and of its turns, that have a value which nothing reads; of a row that is a
    `conversation`."""
    spelling = _known(row, spelling)
    optional = ("system", "input") if spelling == "instruction" else ("system",)
    keys = _unread(row, *COLUMNS[spelling], *optional)
    for turn in _turns(row, spelling):
        if isinstance(turn, dict) and len(turn) > 2:
            keys |= _unread(turn, *_keys_of(turn))
    return keys


def _known(row: SourceRow, spelling: str) -> str:
    return (spelling_of(row) or MESSAGES) if spelling == "auto" else spelling


def _keys_of(turn: SourceRow) -> tuple[str, str]:
    """Those of role and content; in a table of both spellings one pair is null."""
    sharegpt = turn.get("role") is None and turn.get("from") is not None
    return ("from", "value") if sharegpt or "role" not in turn else ("role", "content")


def _unread(held: SourceRow, *read: str) -> set[str]:
    return {key for key in held.keys() - read - _HARMLESS_KEYS if not _is_empty(held[key])}


def unsupported(what: str) -> str:
    """The reason under which rows with a key or a role that nothing reads are counted."""
    return f"{what} not supported"


def _refuse_keys(held: SourceRow) -> None:
    """Raise BadRowError where a row or a turn uses a key that nothing reads."""
    if held.keys() <= _READ_KEYS:  # nearly always
        return
    for key, value in held.items():
        if (key in REFUSED_KEYS or key.startswith(REFUSED_PREFIX)) and not _is_empty(value):
            raise BadRowError(unsupported(key))


def _is_empty(value: object) -> bool:
    """Whether a key is there for the table's sake only: null, or nothing in it at any depth."""
    values = [value]
    while values:  # no recursion: JSON may be nested deeper than functions
        match values.pop():
            case str(text) if text.strip() not in _EMPTY_JSON:
                return False
            case dict(held):
                values += held.values()
            case list(held):
                values += held
            case str() | None:
                pass
            case _:
                return False
    return True


def _turns(row: SourceRow, spelling: str) -> list[object]:
    spelling = _known(row, spelling)
    if spelling == "prompt_completion":
        return _as_turns(row["prompt"], "user") + _as_turns(row["completion"], "assistant")
    if spelling == "instruction":
        question, context = row["instruction"], row.get("input")
        if isinstance(question, str) and isinstance(context, str) and context.strip():
            question = f"{question}\n\n{context}"
        return _as_turns(question, "user") + _as_turns(row["output"], "assistant")
    turns = row[spelling]
    if isinstance(turns, str):  # as a table without lists has them
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError) as error:
            raise BadRowError(MALFORMED) from error
    if not isinstance(turns, list):
        raise BadRowError(MALFORMED)
    return turns


def _as_turns(value: object, role: str) -> list[object]:
    """A string as one turn; a list of turns (a conversational prompt) as it is."""
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _message(turn: object) -> Message:
    if not isinstance(turn, dict):
        raise BadRowError(MALFORMED)
    _refuse_keys(turn)
    keys = _keys_of(turn)
    role = turn.get(keys[0])
    if isinstance(role, str) and role in REFUSED_ROLES:
        raise BadRowError(unsupported(f"role {role!r}"))
    if keys[0] not in turn or keys[1] not in turn:
        raise BadRowError(MALFORMED)
    content = turn[keys[1]]
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise BadRowError(UNKNOWN_ROLE)
    if isinstance(content, list) and content:
        content = "".join(map(_part, content))
    if not isinstance(content, str) or not _is_unicode(content):
        raise BadRowError(NOT_TEXT)
    return {"role": known, "content": content}


def _part(part: object) -> str:
    """The text of a part of a content; of other kinds of parts none is supported."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise BadRowError(NOT_TEXT)
    kind, text = part.get("type"), part.get("text")
    if kind != "text":
        raise BadRowError(unsupported(f"{kind} part") if isinstance(kind, str) else NOT_TEXT)
    used = [key for key in part.keys() - {"type", "text"} if not _is_empty(part[key])]
    if used:
        raise BadRowError(unsupported(f"{min(used)} of a part"))
    if not isinstance(text, str):
        raise BadRowError(NOT_TEXT)
    return text


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: half a surrogate pair, which JSON allows, cannot."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_order(turns: Sequence[Message]) -> None:
    previous = ""
    for number, turn in enumerate(turns):
        if turn["role"] == previous:
            raise BadRowError(REPEATED_ROLE)
        if turn["role"] == "system" and number > 0:
            raise BadRowError(LATE_SYSTEM)
        previous = turn["role"]


def _check_content(turns: Sequence[Message]) -> None:
    roles = {turn["role"] for turn in turns}
    if "assistant" not in roles:
        raise BadRowError(NO_ASSISTANT)
    if "user" not in roles:
        raise BadRowError(NO_USER)
    for turn in turns:
        if not turn["content"].strip():
            raise BadRowError(EMPTY_ANSWER if turn["role"] == "assistant" else EMPTY_USER)
