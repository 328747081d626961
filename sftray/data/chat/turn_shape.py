"""How a chat template wants a conversation: its content, its calls, its thoughts.

Promise: learned once, from small conversations that the template writes (`format_probe`); where a
template has no place for a thought, <think> in the words is its place.
"""

from __future__ import annotations

import json
from typing import NamedTuple, cast

from sftray.data.chat.template_process import TemplateTurns
from sftray.data.source.conversations import Conversation
from sftray.data.source.turns import Message, ToolCall

IN_THE_WORDS = "<think>"
THOUGHTS_AS = ("reasoning_content", "thinking", "reasoning", IN_THE_WORDS)
"""Where templates look for a thought: a key of the turn, or its words."""


class TurnShape(NamedTuple):
    """What a template takes."""

    as_parts: bool = False
    """Content is a list of text parts."""
    tools: bool = False
    """It writes a list of tools."""
    calls: bool = False
    """It writes calls and results."""
    arguments_as_text: bool = False
    """A call's arguments are JSON, not an object."""
    null_beside_calls: bool = False
    """The content of a call without words is null, not an empty text."""
    thoughts: str = IN_THE_WORDS
    """One of THOUGHTS_AS."""

    def turns(self, conversation: list[Message]) -> TemplateTurns:
        """A conversation for the template."""
        if not self.as_parts and Conversation.of(conversation).is_plain:
            return cast("TemplateTurns", [*conversation])  # a plain list is handed over faster
        return [self._turn(turn) for turn in conversation]

    def _turn(self, turn: Message) -> dict[str, object]:
        shaped: dict[str, object] = {**turn}
        content = turn["content"]
        if thought := turn.get("reasoning_content"):
            del shaped["reasoning_content"]
            if self.thoughts == IN_THE_WORDS:
                content = "\n\n".join(filter(None, (f"<think>\n{thought}\n</think>", content)))
            else:
                shaped[self.thoughts] = thought
        shaped["content"] = [{"type": "text", "text": content}] if self.as_parts else content
        if calls := turn.get("tool_calls"):
            if not content and self.null_beside_calls:
                shaped["content"] = None
            if self.arguments_as_text:
                shaped["tool_calls"] = [{**call, "function": _as_text(call)} for call in calls]
        return shaped


def _as_text(call: ToolCall) -> dict[str, str]:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    return {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
