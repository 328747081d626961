"""The keys of a row and of its turns: which are read, which say only where a row is from, and which
change what is trained on in a way that nothing here can do.

Promise: a key of none of these kinds is counted and shown (`conversations.unread_keys`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SourceRow = Mapping[str, object]
"""A row of a dataset: its columns."""

MESSAGES = "messages"
COLUMNS = {
    MESSAGES: (MESSAGES,),
    "conversations": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
}
"""The columns that each way of spelling a conversation needs; those of OPTIONAL may be there."""
OPTIONAL = {"instruction": ("input", "history")}

THOUGHT_KEYS = (
    *("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_content"),
    *("thought", "thoughts", "think", "chain_of_thought", "cot"),
)
"""What an answer's thought is called."""
FLAGS = ("weight", "train", "training", "trainable", "loss")
"""Whether an answer is trained on: true or 1, false or 0."""
ROW_FLAGS = ("weight", "train", "training")
"""Those that a whole row may have."""
CALL_KEYS = ("tool_calls", "function_call")
TOOL_KEYS = ("tools", "functions")
ROLE_KEYS = ("role", "from")
TURN_KEYS = frozenset((*ROLE_KEYS, "content", "value", *CALL_KEYS, *THOUGHT_KEYS, *FLAGS))
"""What is read of a turn."""
RESULT_KEYS = ("name", "tool_call_id")
"""And of a tool's result."""
ROW_KEYS = frozenset(("system", *TOOL_KEYS, *THOUGHT_KEYS, *ROW_FLAGS))
"""What is read of a row, whatever its spelling."""

HARMLESS_KEYS = frozenset(
    (
        *("id", "idx", "index", "uuid", "prompt_id", "conversation_id", "message_id", "turn_id"),
        *("source", "dataset", "url", "category", "language", "lang", "name", "title", "model"),
        *("created_at", "timestamp", "date", "hash", "license"),
    )
)
"""Keys that say where a row or a turn is from: nothing is lost where they are not read."""

REFUSED_KEYS = frozenset(
    (
        *("documents", "images", "image", "videos", "video", "audios", "audio", "refusal"),
        *("chat_template", "chat_template_kwargs", "enable_thinking", "channel", "recipient"),
        *("loss_scale", "loss_mask", "loss_weight", "train_detail", "training_detail"),
    )
)
"""Keys of a row or a turn that change what is trained on, and that nothing reads."""
REFUSED_PREFIX = "reasoning"
"""Likewise every other key that begins so: reasoning_effort, …"""
_KNOWN = frozenset().union(*COLUMNS.values(), *OPTIONAL.values(), TURN_KEYS, ROW_KEYS)
_EMPTY_JSON = ("", "[]", "{}", "null")


class BadRowError(Exception):
    """A row that cannot be trained on; the message is the reason it is counted under."""


def unsupported(what: str) -> str:
    """The reason under which rows with something that nothing reads are counted."""
    return f"{what} not supported"


def refuse_keys(held: SourceRow, *, refused: frozenset[str] = REFUSED_KEYS) -> None:
    """Raise BadRowError where a row or a turn uses a key that nothing can honour."""
    if held.keys() <= _KNOWN:  # nearly always
        return
    for key, value in held.items():
        is_refused = key in refused or (key.startswith(REFUSED_PREFIX) and key not in _KNOWN)
        if is_refused and not is_empty(value):
            raise BadRowError(unsupported(key))


def unread(held: SourceRow, read: frozenset[str]) -> dict[str, object]:
    """Keys with a value that are neither read nor harmless."""
    keys = held.keys() - read - HARMLESS_KEYS
    return {key: held[key] for key in keys if not is_empty(held[key])}


def flag(held: SourceRow, keys: Sequence[str] = FLAGS) -> bool | None:
    """Whether flags say that something is trained on; None where none of them is there."""
    said = None
    for key in keys:
        value = held.get(key)
        if value is None or (isinstance(value, str) and is_empty(value)):
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise BadRowError(unsupported(f"{key} other than 0 and 1"))
        said = bool(value) and said is not False
    return said


def is_empty(value: object) -> bool:
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
