"""A row of a dataset is turned into turns, or dropped for one named reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sftray.data.source import conversations
from sftray.data.source.conversations import (
    BadRowError,
    conversation,
    first_user_turn,
    spelling_of,
    unread_keys,
)

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}


def roles(row: dict[str, Any], spelling: str = "messages") -> list[str]:
    return [turn["role"] for turn in conversation(row, spelling)[0]]


@pytest.mark.parametrize(
    ("row", "spelling"),
    [
        ({"messages": [USER, ANSWER]}, "messages"),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Why?"},
                    {"from": "gpt", "value": "Be."},
                ]
            },
            "conversations",
        ),
        ({"conversations": [USER, ANSWER]}, "conversations"),
        ({"prompt": "Why?", "completion": "Because."}, "prompt_completion"),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt_completion"),
        ({"instruction": "Why?", "output": "Because."}, "instruction"),
    ],
)
def test_every_spelling_is_told_by_its_columns_and_read(row: dict[str, Any], spelling: str) -> None:
    assert spelling_of(row) == spelling
    assert roles(row, spelling) == ["user", "assistant"]


def test_the_input_of_an_instruction_stands_beneath_it() -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert conversation(row, "instruction")[0][0]["content"] == "Add.\n\n1 2"


def test_a_system_column_or_turn_comes_first_and_an_empty_one_is_left_out() -> None:
    assert roles({"system": "Be brief.", "messages": [USER, ANSWER]})[0] == "system"
    assert roles({"messages": [{"role": "developer", "content": "x"}, USER, ANSWER]})[0] == "system"
    assert roles({"messages": [{"role": "system", "content": " "}, USER, ANSWER]})[0] == "user"


def test_unknown_columns_have_no_spelling() -> None:
    assert spelling_of({"text": "a", "label": 1}) is None


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], conversations.NO_ASSISTANT),
        ([USER], conversations.NO_ASSISTANT),
        ([ANSWER], conversations.NO_USER),
        ([ANSWER, USER], conversations.NO_USER),
        ([USER, {"role": "assistant", "content": " \n"}], conversations.EMPTY_ANSWER),
        ([{"role": "user", "content": ""}, ANSWER], conversations.EMPTY_USER),
        ([USER, ANSWER, {"role": "narrator", "content": "3"}], conversations.UNKNOWN_ROLE),
        ([{"role": None, "content": "?"}, ANSWER], conversations.UNKNOWN_ROLE),
        ([USER, {"role": "assistant", "content": None}], conversations.NOT_TEXT),
        ([USER, {"role": "assistant", "content": [5]}], conversations.NOT_TEXT),
        ([USER, {"role": "assistant", "content": [{"text": "x"}]}], conversations.NOT_TEXT),
        ([USER, {"role": "assistant", "content": [{"type": "text"}]}], conversations.NOT_TEXT),
        ([USER, {"role": "assistant", "content": [{"type": "image"}]}], "image part not supported"),
        ([USER, {"role": "assistant", "content": json.loads('"\\ud800"')}], conversations.NOT_TEXT),
        ([USER, USER, ANSWER], conversations.REPEATED_ROLE),
        ([USER, ANSWER, ANSWER], conversations.REPEATED_ROLE),
        ([USER, {"role": "system", "content": "x"}, ANSWER], conversations.LATE_SYSTEM),
        ([USER, "Because."], conversations.MALFORMED),
        ([USER, {"role": "assistant"}], conversations.MALFORMED),
        ("Why?", conversations.MALFORMED),
        (None, conversations.MALFORMED),
    ],
)
def test_a_bad_row_is_dropped_for_its_reason(turns: Any, reason: str) -> None:
    with pytest.raises(BadRowError) as caught:
        conversation({"messages": turns}, "messages")
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tool_calls", [{"function": {"name": "f", "arguments": "{}"}}]),
        ("tools", [{"type": "function"}]),
        ("tools", '[{"type": "function"}]'),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("reasoning", "One and one."),
        ("reasoning_content", "One and one."),
        ("reasoning_details", [{"text": "One and one."}]),
        ("thinking", "One and one."),
        ("weight", 0),
        ("weight", 1.0),
        ("train", False),
        ("train", True),
    ],
)
def test_a_row_or_turn_with_a_key_that_nothing_reads_is_dropped_for_that_key(
    key: str, value: Any
) -> None:
    turn = {**ANSWER, key: value}
    silent = {"role": "assistant", "content": None, key: value}
    told = {"from": "gpt", "value": "Because.", key: value}
    for row, spelling in (
        ({"messages": [USER, turn]}, "messages"),
        ({"messages": [USER, silent]}, "messages"),
        ({"messages": [USER, {"role": "assistant", key: value}]}, "messages"),
        ({"messages": [USER, ANSWER], key: value}, "messages"),
        ({"conversations": [{"from": "human", "value": "Why?"}, told]}, "conversations"),
        ({"prompt": [USER], "completion": [turn]}, "prompt_completion"),
        ({"instruction": "Why?", "output": "Because.", key: value}, "instruction"),
    ):
        with pytest.raises(BadRowError, match=f"^{key} not supported$"):
            conversation(row, spelling)


@pytest.mark.parametrize("empty", [None, "", " ", [], {}, "[]", "null", {"name": None}, [None]])
def test_an_empty_value_of_such_a_key_is_no_use_of_it(empty: Any) -> None:
    turn = {**ANSWER, "tool_calls": empty, "reasoning_content": empty, "weight": empty}
    row = {"messages": [USER, turn], "tools": empty, "train": empty}
    assert conversation(row, "messages") == ([USER, ANSWER], False)


def test_an_empty_value_may_be_nested_deeper_than_functions() -> None:
    value: Any = None
    for _ in range(100_000):
        value = [value]
    row = {"messages": [USER, ANSWER], "tools": value}
    assert conversation(row, "messages") == ([USER, ANSWER], False)


@pytest.mark.parametrize("role", sorted(conversations.REFUSED_ROLES))
def test_a_turn_around_a_tool_call_drops_the_row_for_its_role(role: str) -> None:
    for turn in ({"role": role, "content": None}, {"from": role, "value": "3"}, {"role": role}):
        with pytest.raises(BadRowError, match=f"^role '{role}' not supported$"):
            conversation({"messages": [USER, ANSWER, turn]}, "messages")


@pytest.mark.parametrize(
    ("row", "spelling"),
    [
        ({"messages": json.dumps([USER, ANSWER])}, "messages"),
        ({"conversations": json.dumps([USER, ANSWER])}, "auto"),
        ({"messages": [USER, {"role": "assistant", "content": ["Be", "cause."]}]}, "auto"),
        ({"messages": [USER, {"role": "assistant", "content": [
            {"type": "text", "text": "Be", "image": None}, {"type": "text", "text": "cause."}]}]},
         "messages"),
        ({"messages": None, "prompt": "Why?", "completion": "Because."}, "auto"),
        ({"prompt": None, "completion": None, "messages": [USER, ANSWER]}, "auto"),
        ({"conversations": [
            {"role": None, "content": None, "from": "human", "value": "Why?"},
            {"role": None, "content": None, "from": "gpt", "value": "Because."}]}, "auto"),
        ({"conversations": [{**USER, "from": None, "value": None}, ANSWER]}, "conversations"),
    ],
)  # fmt: skip
def test_what_tables_make_of_conversations_is_read(row: dict[str, Any], spelling: str) -> None:
    assert conversation(row, spelling) == ([USER, ANSWER], False)
    assert unread_keys(row, spelling) == set()


@pytest.mark.parametrize("text", ["Why?", "[", "[" * 100_000, "{}"])
def test_a_text_that_is_no_list_of_turns_is_malformed(text: str) -> None:
    with pytest.raises(BadRowError, match=conversations.MALFORMED):
        conversation({"messages": text}, "messages")


def test_a_part_with_a_key_that_nothing_reads_is_dropped_for_it() -> None:
    part = {"type": "text", "text": "Because.", "weight": 0}
    with pytest.raises(BadRowError, match=r"^weight of a part not supported$"):
        conversation({"messages": [USER, {"role": "assistant", "content": [part]}]}, "messages")


def test_a_conversation_that_ends_on_the_user_loses_that_turn_and_is_kept() -> None:
    turns, unanswered = conversation({"messages": [USER, ANSWER, USER]}, "messages")
    assert unanswered
    assert turns == [USER, ANSWER]
    assert conversation({"messages": [USER, ANSWER]}, "messages") == ([USER, ANSWER], False)


def test_the_first_user_turn_decides_what_is_held_out() -> None:
    assert first_user_turn([{"role": "system", "content": "s"}, USER, ANSWER]) == "Why?"


@pytest.mark.parametrize(
    ("row", "spelling", "keys"),
    [
        ({"messages": [{"role": "user", "content": "?", "loss": 0}]}, "messages", {"loss"}),
        ({"messages": [{"role": "user", "content": "?", "loss": None}]}, "messages", set()),
        ({"conversations": [{"from": "human", "value": "?", "name": "A"}], "id": 1},
         "conversations", {"name"}),
        ({"prompt": "?", "completion": "!", "system": "Be kind."}, "prompt_completion", set()),
        ({"instruction": "?", "input": "a", "output": "!", "text": "?!"}, "instruction", {"text"}),
        ({"prompt": "?", "completion": "!", "input": "a"}, "prompt_completion", {"input"}),
    ],
)  # fmt: skip
def test_keys_with_a_value_that_nothing_reads_are_named(
    row: dict[str, Any], spelling: str, keys: set[str]
) -> None:
    assert unread_keys(row, spelling) == keys
