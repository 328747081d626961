"""One row of a dataset → the turns of a conversation, or the reason why it is bad.

Promise: whatever is returned starts with at most one system turn, holds text only, never has two
turns of one role in a row but results of tools, and ends on an answer. Nothing is repaired but last
turns that nobody answered, which are taken off, and calls that are turns of their own, which join
the answer before them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property

from sftray.data.source.row_keys import (
    COLUMNS,
    MESSAGES,
    OPTIONAL,
    RESULT_KEYS,
    ROW_FLAGS,
    ROW_KEYS,
    THOUGHT_KEYS,
    TURN_KEYS,
    BadRowError,
    SourceRow,
    flag,
    is_empty,
    refuse_keys,
    unread,
    unsupported,
)
from sftray.data.source.turns import (
    MALFORMED,
    ROLES,
    Message,
    Tool,
    answer,
    keys_of,
    message,
    plain_turns,
    thought_of,
    tools_of,
)

NO_ASSISTANT = "no assistant turn"
NO_USER = "no user turn"
EMPTY_ANSWER = "empty answer"
EMPTY_USER = "empty user turn"
REPEATED_ROLE = "two turns of one role in a row"
LATE_SYSTEM = "system turn after the start"
EARLY_RESULT = "a tool's result that follows no answer"
NOT_TRAINED = "no answer that the row has trained on"
TOO_MANY_DIGITS = "number of thousands of digits"
TWICE = "one key twice"


class UnreadableRow(dict[str, object]):
    """A line that is JSON, but not a row that can be read, and why; it begins with `text`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text=text)
        self.reason = reason


class TableRow(dict[str, object]):
    """A row of a table, where every struct has the keys of all: those that are null are not its."""


class Conversation(list[Message]):
    """The turns, with what stands beside them."""

    def __init__(
        self,
        turns: Iterable[Message],
        tools: Sequence[Tool] = (),
        untrained: Iterable[int] = (),
        spelled: Iterable[str] = (),
    ) -> None:
        super().__init__(turns)
        self.tools = tools
        self.untrained = frozenset(untrained)
        """Places of answers that are not trained on."""
        self.spelled = frozenset(spelled)
        """Special tokens in its words, where these are marked as text (`spelled.marked`)."""

    @classmethod
    def of(cls, turns: list[Message]) -> Conversation:
        """Turns by themselves, or as they are."""
        return turns if isinstance(turns, Conversation) else cls(turns)

    @property
    def answers(self) -> list[int]:
        """Places of the assistant's turns."""
        return [k for k, turn in enumerate(self) if turn["role"] == "assistant"]

    @cached_property
    def is_plain(self) -> bool:
        """Whether it has neither tools nor calls nor thoughts."""
        return not self.tools and plain_turns(self)

    @property
    def has_thoughts(self) -> bool:
        return any("reasoning_content" in turn for turn in self)

    def through(self, place: int) -> Conversation:
        """Its turns through the one at `place`."""
        return Conversation(self[: place + 1], self.tools, self.untrained, self.spelled)

    def without_thoughts(self) -> Conversation:
        """The same, as if nobody had thought."""
        turns: list[Message] = [turn.copy() for turn in self]
        for turn in turns:
            turn.pop("reasoning_content", None)
        return Conversation(turns, self.tools, self.untrained, self.spelled)


def spelling_of(row: SourceRow) -> str | None:
    """Which of COLUMNS a row has, the first that is complete; None if none. A column that is null
    may be there for other rows of its table, and counts where no other spelling is complete."""
    for spelling, needed in COLUMNS.items():
        if all(row.get(name) is not None for name in needed):
            return spelling
    complete = (spelling for spelling, needed in COLUMNS.items() if row.keys() >= set(needed))
    return next(complete, None)


def conversation(row: SourceRow, spelling: str) -> tuple[Conversation, bool]:
    """The turns of a row, ending on an answer, and whether it lost last turns for that.

    The row has the columns of its spelling, or with "auto" those of any. Raises BadRowError with
    the reason where it cannot be trained on.
    """
    if isinstance(row, UnreadableRow):
        raise BadRowError(row.reason)
    spelling = _known(row, spelling)
    refuse_keys(row)
    if isinstance(row, TableRow):
        row = _without_nulls(row)
    turns, context, untrained = _read(row, spelling)
    _check_order(turns)
    number = len(turns)
    while turns and turns[-1]["role"] in ("user", "tool"):
        del turns[-1]
    _check_content(turns)
    talk = Conversation(turns)
    if len(row) > len(COLUMNS[spelling]):
        _add_columns(talk, row, context)
    if context or untrained:
        answers = talk.answers
        talk.untrained = frozenset(k for k in answers if k < context or k in untrained)
        if len(talk.untrained) == len(answers):
            raise BadRowError(NOT_TRAINED)
    return talk, len(turns) < number


def first_user_turn(turns: Sequence[Message]) -> str:
    """The text that decides whether a conversation is held out."""
    return next(turn["content"] for turn in turns if turn["role"] == "user")


def unread_keys(row: SourceRow, spelling: str) -> dict[str, object]:
    """Keys of a row, and of its turns, that have a value which nothing reads, with one such value;
    of a row that is a `conversation`."""
    spelling = _known(row, spelling)
    columns = frozenset((*COLUMNS[spelling], *OPTIONAL.get(spelling, ())))
    keys = unread(row, columns | ROW_KEYS) if len(row) > len(COLUMNS[spelling]) else {}
    for turn in _turns(row, spelling)[0]:
        if isinstance(turn, dict) and len(turn) > 2:
            is_result = ROLES.get(str(turn.get(keys_of(turn)[0]))) == "tool"
            read = TURN_KEYS.union(RESULT_KEYS) if is_result else TURN_KEYS
            keys |= unread(turn, read)
    return keys


def _known(row: SourceRow, spelling: str) -> str:
    return (spelling_of(row) or MESSAGES) if spelling == "auto" else spelling


def _read(row: SourceRow, spelling: str) -> tuple[list[Message], int, set[int]]:
    """The turns, how many of them are but context, and those that flags say are not trained on."""
    raw, context = _turns(row, spelling)
    turns: list[Message] = []
    untrained: set[int] = set()
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns.append({"role": "system", "content": system})
    before = 0
    for number, one in enumerate(raw):
        turn = message(one)
        if turn["role"] == "call":
            turn["role"] = "assistant"
            if turns and turns[-1]["role"] == "assistant":
                turns[-1].setdefault("tool_calls", []).extend(turn.get("tool_calls", []))
                continue
        if turn["role"] == "system" and not turns and not turn["content"].strip():
            continue
        turns.append(turn)
        if number < context:
            before = len(turns)
        if isinstance(one, dict) and len(one) > 2 and (said := flag(one)) is not None:
            if said and turn["role"] != "assistant":
                raise BadRowError(unsupported(f"training on a {turn['role']} turn"))
            if not said:
                untrained.add(len(turns) - 1)
    if not plain_turns(turns):
        _name_results(turns)
    return turns, before, untrained


def _name_results(turns: list[Message]) -> None:
    """Results that say neither their call nor their tool follow the calls in their order."""
    names: list[str] = []
    for turn in turns:
        if turn["role"] == "tool":
            name = names.pop(0) if names else ""
            if name and "name" not in turn and "tool_call_id" not in turn:
                turn["name"] = name
        elif len(turn) > 2 or names:
            names = [call["function"]["name"] for call in turn.get("tool_calls", [])]


def _add_columns(talk: Conversation, row: SourceRow, context: int) -> None:
    """Tools, a thought and a flag that are columns of the row."""
    talk.tools = tools_of(row)
    if flag(row, ROW_FLAGS) is False:
        raise BadRowError(NOT_TRAINED)
    if thought := thought_of(row):
        places = [k for k in talk.answers if k >= context]
        if len(places) != 1:
            key = next(key for key in THOUGHT_KEYS if not is_empty(row.get(key)))
            raise BadRowError(unsupported(f"{key} of a row with several answers"))
        answer(talk[places[0]], thought, [])


def _turns(row: SourceRow, spelling: str) -> tuple[list[object], int]:
    """The turns as the row has them, and how many of them are but context."""
    if spelling == "prompt_completion":
        prompt = _as_turns(row["prompt"], "user")
        return prompt + _as_turns(row["completion"], "assistant"), len(prompt)
    if spelling == "instruction":
        question, context = row["instruction"], row.get("input")
        if isinstance(question, str) and isinstance(context, str) and context.strip():
            question = f"{question}\n\n{context}"
        exchange = _as_turns(question, "user") + _as_turns(row["output"], "assistant")
        return (_history(row["history"]) if "history" in row else []) + exchange, 0
    turns = row[spelling]
    if isinstance(turns, str):  # as a table without lists has them
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError) as error:
            raise BadRowError(MALFORMED) from error
    if not isinstance(turns, list):
        raise BadRowError(MALFORMED)
    return turns, 0


def _history(value: object) -> list[object]:
    """Earlier exchanges: a list of questions with their answers, or of turns."""
    if isinstance(value, str) and not is_empty(value):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRowError(MALFORMED) from error
    turns: list[object] = []
    for exchange in value if isinstance(value, list) else []:
        if isinstance(exchange, list) and len(exchange) == 2:
            turns += _as_turns(exchange[0], "user") + _as_turns(exchange[1], "assistant")
        elif isinstance(exchange, dict):
            turns.append(exchange)
        else:
            raise BadRowError(MALFORMED)
    return turns


def _as_turns(value: object, role: str) -> list[object]:
    """A string as one turn; a list of turns (a conversational prompt) as it is."""
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _without_nulls(row: TableRow) -> SourceRow:
    """A table's row whose nested values have no nulls: they are other rows' keys."""
    return {key: _filled(value) if isinstance(value, list | dict) else value
            for key, value in row.items()}  # fmt: skip


def _filled(value: object) -> object:
    if isinstance(value, dict):
        return {key: _filled(held) for key, held in value.items() if held is not None}
    if isinstance(value, list):
        return [_filled(held) for held in value]
    return value


def _check_order(turns: Sequence[Message]) -> None:
    previous = ""
    for number, turn in enumerate(turns):
        role = turn["role"]
        if role == previous and role != "tool":
            raise BadRowError(REPEATED_ROLE)
        if role == "system" and number > 0:
            raise BadRowError(LATE_SYSTEM)
        if role == "tool" and previous not in ("assistant", "tool"):
            raise BadRowError(EARLY_RESULT)
        previous = role


def _check_content(turns: Sequence[Message]) -> None:
    roles = {turn["role"] for turn in turns}
    if "assistant" not in roles:
        raise BadRowError(NO_ASSISTANT)
    if "user" not in roles:
        raise BadRowError(NO_USER)
    for turn in turns:
        if not turn["content"].strip() and turn["role"] != "tool" and "tool_calls" not in turn:
            raise BadRowError(EMPTY_ANSWER if turn["role"] == "assistant" else EMPTY_USER)
