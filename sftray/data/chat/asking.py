"""Questions as text and tokens: what stands before an answer in a row that is trained on.

Promise: a prompt is the beginning of the row that its conversation becomes, token for token,
because the same renderer writes both; a question by itself gets an answer to be cut off again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.documents import tokens_of
from sftray.data.chat.loss_mask import prepared, written
from sftray.data.chat.spelled import marked_text, plain_text, unmarked
from sftray.data.chat.tokenizer import backend
from sftray.data.source.conversations import Conversation
from sftray.data.source.turns import Message, Tool
from sftray.errors import TemplateError

_ANSWER: Message = {"role": "assistant", "content": "Apple it is."}
_THOUGHT = "Fruit grows on trees."


class Asked(NamedTuple):
    """The last answer of a conversation that is trained on, and what it answers."""

    turns: list[Message]
    """Before it."""
    prompt: str
    """For `prompt_ids`: special tokens that its words spell are marked as text."""
    reference: str


def asked_of(chat: ChatFormat, conversations: Sequence[list[Message]]) -> list[Asked]:
    """Of each conversation that can be trained on; where it has calls or thoughts, the reference is
    all that the answer writes."""
    found: list[Asked] = []
    ready = [prepared(chat, turns) for turns in conversations]
    for talk, one in zip(ready, written(chat, ready), strict=True):
        place = max(k for k in talk.answers if k not in talk.untrained)
        plain = unmarked(talk)
        if isinstance(one, list):
            served = next(answer for answer in one if answer.place == place)
            words = prompt_ids(chat, served.words)
            reference = backend(chat.tokenizer).decode(words, skip_special_tokens=True)
            found.append(Asked([*plain[:place]], served.before, reference.strip()))
        elif isinstance(one, tuple) and not isinstance(one[1], str):
            start, _ = one[1][-1]
            found.append(Asked([*plain[:place]], one[0][:start], plain[place]["content"]))
    return found


def prompt_text(chat: ChatFormat, turns: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
    """The question that some turns are. Raises TemplateError where the template refuses them."""
    answer = _ANSWER.copy()
    if chat.asks_thoughts:
        answer["reasoning_content"] = _THOUGHT
    asked = asked_of(chat, [Conversation([*turns, answer], tools)])
    if not asked:
        raise TemplateError(
            f"the chat template refuses to ask {turns[-1]['content'][:80]!r}, must write it as a "
            "user's words"
        )
    return asked[0].prompt


def prompt_ids(chat: ChatFormat, text: str) -> list[int]:
    """The tokens of a prompt. Raises TemplateError where it spells a special token that cannot be
    tokenised as text."""
    (tokens,) = tokens_of(chat, [(text, [])])
    if tokens.reason:
        raise TemplateError(f"{plain_text(text)[-80:]!r}: has {tokens.reason}")
    return [*tokens.ids.tolist()]


def number_of_tokens(chat: ChatFormat, words: str) -> int:
    """Of an answer, for example."""
    return len(prompt_ids(chat, marked_text(chat, words)))
