"""What a chat template makes of tools, calls and thoughts, and how it wants them.

Promise: a template is believed to write what stands in the text of a small conversation; object or
JSON, null or empty, this key or that are tried in turn. Price: half a dozen renderings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import product

from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.template_process import RefusedError
from sftray.data.chat.turn_shape import THOUGHTS_AS, TurnShape
from sftray.data.source.conversations import Conversation

_ID = "call12345"
CALLING = Conversation(
    [
        {"role": "user", "content": "Which birds are brown?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "type": "function",
                    "id": _ID,
                    "function": {"name": "look_up_birds", "arguments": {"colour": "brownish"}},
                }
            ],
        },
        {"role": "tool", "content": "Wrens.", "tool_call_id": _ID, "name": "look_up_birds"},
        {"role": "assistant", "content": "They are."},
    ],
    [
        {
            "type": "function",
            "function": {
                "name": "look_up_birds",
                "description": "Ornithology",
                "parameters": {
                    "type": "object",
                    "properties": {"colour": {"type": "string", "description": "Of feathers"}},
                    "required": ["colour"],
                },
            },
        }
    ],
)
_CALLED = ("look_up_birds", "brownish", "Wrens.", "They are.")
CALLING_TWICE = Conversation([*CALLING, *CALLING], CALLING.tools)
CALLING_TWICE[5] = {**CALLING[1], "content": "I look."}
_THOUGHT = "Feathers tell."
THINKING = Conversation(
    [CALLING[0], {"role": "assistant", "content": "Wrens.", "reasoning_content": _THOUGHT}]
)
_THINKING_CALL = Conversation(
    [CALLING[0], {**CALLING[1], "reasoning_content": _THOUGHT}], CALLING.tools
)


def with_shape(chat: ChatFormat, tokens: Sequence[str]) -> ChatFormat:
    """The format with the shape that its template wants, and with those special `tokens` of the
    tokenizer that calls and thoughts are built from."""
    shape, texts = _calls(chat)
    chat = dataclasses.replace(chat, shape=shape)
    for key in THOUGHTS_AS:
        thinking = dataclasses.replace(chat, shape=shape._replace(thoughts=key))
        text = _written(thinking, THINKING) + _written(thinking, _THINKING_CALL)
        if _THOUGHT in text:
            chat, texts = thinking, texts + text
            break
    used = tuple(t for t in tokens if t in chat.control_tokens or t in texts)
    differences = (*chat.differences, *_closed_thoughts(chat))
    return dataclasses.replace(chat, control_tokens=used, differences=differences)


def _closed_thoughts(chat: ChatFormat) -> Iterator[str]:
    """Where the model's own prompt leaves no room for a thought, though an answer may have one."""
    try:
        (whole, prompt), _ = chat.render([THINKING], own=True, cuts=[[(2, False), (1, True)]])
    except RefusedError:
        return
    if _THOUGHT in whole and not whole.startswith(prompt):
        yield (
            f"the generation prompt ends on {prompt[-30:]!r}, which leaves no room for a thought; "
            "where answers have thoughts, data.enable_thinking=True asks for them"
        )


def _calls(chat: ChatFormat) -> tuple[TurnShape, str]:
    for as_text, null in product((False, True), (False, True)):
        shape = chat.shape._replace(arguments_as_text=as_text, null_beside_calls=null)
        text = _written(dataclasses.replace(chat, shape=shape), CALLING)
        if all(words in text for words in _CALLED) and "{'" not in text and "None" not in text:
            return shape._replace(calls=True, tools="Ornithology" in text), text
    without = Conversation([CALLING[0], CALLING[3]], CALLING.tools)
    text = _written(chat, without)
    return chat.shape._replace(tools="Ornithology" in text), text


def _written(chat: ChatFormat, conversation: Conversation) -> str:
    try:
        (text,), _ = chat.render([conversation])
    except RefusedError:
        return ""
    return text
