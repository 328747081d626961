"""One turn as a dataset has it → a Message: its words, its thought, its calls.

Promise: `reasoning_content` and all names of it, parts of the kind thinking, and <think> in an
answer's words are the same thing afterwards; so are `tool_calls`, `function_call` and ShareGPT's
turns of a call, whose arguments are an object; and so are all roles of a tool's result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NotRequired, TypedDict

from sftray.data.source.row_keys import (
    CALL_KEYS,
    REFUSED_KEYS,
    THOUGHT_KEYS,
    TOOL_KEYS,
    BadRowError,
    SourceRow,
    is_empty,
    refuse_keys,
    unsupported,
)

UNKNOWN_ROLE = "unknown role"
NOT_TEXT = "content not text"
MALFORMED = "turns not a list of role and content"
BAD_CALL = "tool call without a name and an object of arguments"
BAD_TOOLS = "tools not a list of objects"
TWO_THOUGHTS = "two different thoughts in one turn"
TOO_DEEP = "values nested too deep"

Tool = Mapping[str, object]
"""What a model may call: {"type": "function", "function": {name, description, parameters}}."""
_DEEPEST = 100


class Called(TypedDict):
    """A function's name and arguments."""

    name: str
    arguments: dict[str, object]


class ToolCall(TypedDict):
    """As transformers and OpenAI spell it."""

    type: str
    function: Called
    id: NotRequired[str]


class Message(TypedDict):
    """One turn."""

    role: str
    """system, user, assistant or tool."""
    content: str
    reasoning_content: NotRequired[str]
    """The thought before an answer."""
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    """Of the tool that a result is from."""


ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    **dict.fromkeys(("function_call", "tool_call"), "call"),
    **dict.fromkeys(
        ("tool", "tool_response", "tool_result", "function", "observation", "ipython"), "tool"
    ),
}
_SPEAKERS = ("system", "user", "assistant")
_THOUGHT = re.compile(r"\s*(?:<think>)?(.*?)</think>\s*(.*)", re.DOTALL)
_REFUSED_OF_A_TURN = REFUSED_KEYS.union(TOOL_KEYS)


def message(turn: object) -> Message:
    """A turn; role "call" where it is but a call, which belongs to the answer before it. Raises
    BadRowError."""
    if not isinstance(turn, dict):
        raise BadRowError(MALFORMED)
    keys = keys_of(turn)
    role, content = turn.get(keys[0]), turn.get(keys[1])
    known = ROLES.get(role) if isinstance(role, str) else None
    if len(turn) == 2 and known in _SPEAKERS and _is_words(content):  # nearly always
        return {"role": str(known), "content": str(content)}
    refuse_keys(turn, refused=_REFUSED_OF_A_TURN)
    if known is None:
        raise BadRowError(UNKNOWN_ROLE if keys[0] in turn else MALFORMED)
    if known == "call":
        return {"role": known, "content": "", "tool_calls": calls_of(content)}
    if known == "tool":
        return _result(turn, content)
    calls = _calls(turn)
    if keys[1] not in turn and not calls:
        raise BadRowError(MALFORMED)
    if content is None and calls:
        content = ""
    found: Message = {"role": known, "content": _text(content)}
    thought = _thought(turn, content)
    if known != "assistant":
        if calls or thought:
            raise BadRowError(unsupported(f"{_used(turn)} of a {known} turn"))
        return found
    return answer(found, thought, calls)


def answer(turn: Message, thought: str, calls: list[ToolCall]) -> Message:
    """An assistant's turn with its thought, perhaps in the words already, and its calls."""
    content = turn["content"]
    if "</think>" in content and (parts := _THOUGHT.fullmatch(content)):
        spelled = parts[1].strip()
        if thought and spelled and spelled != thought:
            raise BadRowError(TWO_THOUGHTS)
        thought, turn["content"] = thought or spelled, parts[2]
    if thought:
        if "reasoning_content" in turn:
            raise BadRowError(TWO_THOUGHTS)
        turn["reasoning_content"] = thought
    if calls:
        turn["tool_calls"] = calls
    return turn


def keys_of(turn: SourceRow) -> tuple[str, str]:
    """Those of role and content; in a table of both spellings one pair is null."""
    sharegpt = turn.get("role") is None and turn.get("from") is not None
    return ("from", "value") if sharegpt or "role" not in turn else ("role", "content")


def thought_of(held: SourceRow) -> str:
    """What THOUGHT_KEYS hold, empty where nothing. Raises BadRowError."""
    texts = set()
    for key in THOUGHT_KEYS:
        value = held.get(key)
        if value is None or is_empty(value):
            continue
        texts.add(_details(value, key) if isinstance(value, list) else value)
    if not all(isinstance(text, str) and is_unicode(text) for text in texts):
        raise BadRowError(NOT_TEXT)
    stripped = {str(text).strip() for text in texts}
    if len(stripped) > 1:
        raise BadRowError(TWO_THOUGHTS)
    return stripped.pop() if stripped else ""


def tools_of(held: SourceRow) -> list[Tool]:
    """The tools of a row: a list, or JSON of one. Raises BadRowError."""
    tools: list[Tool] = []
    for key in TOOL_KEYS:
        value = held.get(key)
        if value is None or is_empty(value):
            continue
        value = _parsed(value, BAD_TOOLS)
        for tool in value if isinstance(value, list) else [value]:
            tool = _parsed(tool, BAD_TOOLS)
            if not isinstance(tool, dict) or not tool:
                raise BadRowError(BAD_TOOLS)
            is_bare = "function" not in tool and "name" in tool
            tools.append({"type": "function", "function": tool} if is_bare else tool)
    return tools


def calls_of(value: object) -> list[ToolCall]:
    """Calls as `tool_calls`, `function_call` or a ShareGPT turn has them. Raises BadRowError."""
    value = _parsed(value, BAD_CALL)
    calls: list[ToolCall] = []
    for call in value if isinstance(value, list) else [value]:
        call = _parsed(call, BAD_CALL)
        if not isinstance(call, dict):
            raise BadRowError(BAD_CALL)
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRowError(BAD_CALL)
        arguments = _parsed(function.get("arguments") or {}, BAD_CALL)
        if not isinstance(arguments, dict):
            raise BadRowError(BAD_CALL)
        called: Called = {"name": function["name"], "arguments": arguments}
        calls.append({"type": "function", "function": called})
        if isinstance(call.get("id"), str) and call["id"]:
            calls[-1]["id"] = call["id"]
    return calls


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: half a surrogate pair, which JSON allows, cannot."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_words(content: object) -> bool:
    """Whether content is text without a thought."""
    return isinstance(content, str) and "</think>" not in content and is_unicode(content)


def _used(turn: SourceRow) -> str:
    """The first key of a call or a thought that a turn has a value of."""
    return next((k for k in (*CALL_KEYS, *THOUGHT_KEYS) if not is_empty(turn.get(k))), "thinking")


def _calls(turn: SourceRow) -> list[ToolCall]:
    values = (turn.get(key) for key in CALL_KEYS)
    return [call for value in values if not is_empty(value) for call in calls_of(value)]


def _result(turn: SourceRow, content: object) -> Message:
    """What a tool gave: text, or an object, which is shown as JSON."""
    is_parts = isinstance(content, list) and all(_is_part(part) for part in content)
    if content is None:
        content = ""
    elif not isinstance(content, str) and not is_parts:
        content = json.dumps(_bounded(content), ensure_ascii=False)
    found: Message = {"role": "tool", "content": _text(content)}
    if isinstance(turn.get("name"), str) and turn["name"]:
        found["name"] = str(turn["name"])
    if isinstance(turn.get("tool_call_id"), str) and turn["tool_call_id"]:
        found["tool_call_id"] = str(turn["tool_call_id"])
    return found


def _thought(turn: SourceRow, content: object) -> str:
    """The thought of a turn's keys, or of its content's parts."""
    thought = thought_of(turn) if len(turn) > 2 else ""
    if isinstance(content, list):
        parts = [_thought_part(part) for part in content if isinstance(part, dict)]
        if spelled := "\n\n".join(filter(None, parts)):
            if thought and thought != spelled:
                raise BadRowError(TWO_THOUGHTS)
            return spelled
    return thought


def _thought_part(part: SourceRow) -> str:
    """The thought that a part of a content is; empty where it is another."""
    if part.get("type") not in ("thinking", "reasoning"):
        return ""
    text = part.get("text")
    return thought_of(part) or (text.strip() if isinstance(text, str) else "")


def _details(value: list[object], key: str) -> str:
    """`reasoning_details`: parts with a text or a summary each."""
    texts = []
    for part in value:
        text = (part.get("text") or part.get("summary")) if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise BadRowError(unsupported(f"{key} without text"))
        texts.append(text)
    return "\n\n".join(texts)


def _text(content: object) -> str:
    if isinstance(content, list) and content:
        content = "".join(map(_part, content))
    if not isinstance(content, str) or not is_unicode(content):
        raise BadRowError(NOT_TEXT)
    return content


def _part(part: object) -> str:
    """The text of a part of a content; a thought has none, other kinds are not supported."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise BadRowError(NOT_TEXT)
    kind, text = part.get("type"), part.get("text")
    if _thought_part(part):
        return ""
    if kind != "text":
        raise BadRowError(unsupported(f"{kind} part") if isinstance(kind, str) else NOT_TEXT)
    used = [key for key in part.keys() - {"type", "text"} if not is_empty(part[key])]
    if used:
        raise BadRowError(unsupported(f"{min(used)} of a part"))
    if not isinstance(text, str):
        raise BadRowError(NOT_TEXT)
    return text


def _is_part(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("type"), str))


def _parsed(value: object, reason: str) -> object:
    """A value, or what its JSON says, not nested too deep. Raises BadRowError."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRowError(reason) from error
    return _bounded(value)


def _bounded(value: object) -> object:
    """The value, unless it is nested deeper than templates and processes can take it."""
    level = [value]
    for _ in range(_DEEPEST):
        if not level:
            return value
        held = [v for v in level if isinstance(v, dict | list)]
        level = [inner for v in held for inner in (v.values() if isinstance(v, dict) else v)]
    raise BadRowError(TOO_DEEP)


def plain_turns(turns: list[Message]) -> bool:
    """Whether turns have neither calls nor thoughts nor results of tools."""
    return all(len(turn) == 2 and turn["role"] != "tool" for turn in turns)
