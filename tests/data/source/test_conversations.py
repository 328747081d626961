"""A row of a dataset is turned into turns, or dropped for one named reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sftray.data.source import conversations, row_keys, turns
from sftray.data.source.conversations import (
    TableRow,
    conversation,
    first_user_turn,
    spelling_of,
    unread_keys,
)
from sftray.data.source.row_keys import BadRowError

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
    ("talk", "reason"),
    [
        ([], conversations.NO_ASSISTANT),
        ([USER], conversations.NO_ASSISTANT),
        ([ANSWER], conversations.NO_USER),
        ([ANSWER, USER], conversations.NO_USER),
        ([USER, {"role": "assistant", "content": " \n"}], conversations.EMPTY_ANSWER),
        ([{"role": "user", "content": ""}, ANSWER], conversations.EMPTY_USER),
        ([USER, ANSWER, {"role": "narrator", "content": "3"}], turns.UNKNOWN_ROLE),
        ([{"role": None, "content": "?"}, ANSWER], turns.UNKNOWN_ROLE),
        ([USER, {"role": "assistant", "content": None}], turns.NOT_TEXT),
        ([USER, {"role": "assistant", "content": [5]}], turns.NOT_TEXT),
        ([USER, {"role": "assistant", "content": [{"text": "x"}]}], turns.NOT_TEXT),
        ([USER, {"role": "assistant", "content": [{"type": "text"}]}], turns.NOT_TEXT),
        ([USER, {"role": "assistant", "content": [{"type": "image"}]}], "image part not supported"),
        ([USER, {"role": "assistant", "content": json.loads('"\\ud800"')}], turns.NOT_TEXT),
        ([USER, USER, ANSWER], conversations.REPEATED_ROLE),
        ([USER, ANSWER, ANSWER], conversations.REPEATED_ROLE),
        ([USER, {"role": "system", "content": "x"}, ANSWER], conversations.LATE_SYSTEM),
        ([USER, {"role": "tool", "content": "3"}, ANSWER], conversations.EARLY_RESULT),
        ([USER, {**ANSWER, "tool_calls": [{"function": {"name": 5}}]}], turns.BAD_CALL),
        ([USER, {**ANSWER, "tool_calls": [{"name": "f", "arguments": "[1]"}]}], turns.BAD_CALL),
        ([USER, {**ANSWER, "tool_calls": "f(1)"}], turns.BAD_CALL),
        ([USER, {"from": "function_call", "value": "f(1)"}], turns.BAD_CALL),
        ([{**USER, "thinking": "Hm."}, ANSWER], "thinking of a user turn not supported"),
        ([{**USER, "weight": 1}, ANSWER], "training on a user turn not supported"),
        ([USER, {**ANSWER, "weight": 0.5}], "weight other than 0 and 1 not supported"),
        ([USER, {**ANSWER, "train": "no"}], "train other than 0 and 1 not supported"),
        ([USER, {**ANSWER, "train": False}], conversations.NOT_TRAINED),
        ([USER, {**ANSWER, "thinking": "A.", "reasoning": "B."}], turns.TWO_THOUGHTS),
        ([USER, {**ANSWER, "thinking": ["A.", 5]}], "thinking without text not supported"),
        ([USER, {**ANSWER, "thinking": 5}], turns.NOT_TEXT),
        ([USER, "Because."], turns.MALFORMED),
        ([USER, {"role": "assistant"}], turns.MALFORMED),
        ("Why?", turns.MALFORMED),
        (None, turns.MALFORMED),
    ],
)
def test_a_bad_row_is_dropped_for_its_reason(talk: Any, reason: str) -> None:
    with pytest.raises(BadRowError) as caught:
        conversation({"messages": talk}, "messages")
    assert str(caught.value) == reason


CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
SPELLED_CALLS = {
    "an object": {"role": "assistant", "content": None, "tool_calls": [CALL]},
    "no content": {"role": "assistant", "tool_calls": [CALL]},
    "a string": {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}],
    },
    "JSON": {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])},
    "bare": {"role": "assistant", "content": "", "tool_calls": [CALL["function"]]},
    "legacy": {"role": "assistant", "content": None, "function_call": CALL["function"]},
    "ShareGPT": {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
    "a turn of its own": {"role": "tool_call", "content": json.dumps(CALL["function"])},
}


@pytest.mark.parametrize("spelling", SPELLED_CALLS)
def test_all_spellings_of_a_call_are_one(spelling: str) -> None:
    (_, answer), _ = conversation({"messages": [USER, SPELLED_CALLS[spelling]]}, "messages")
    assert answer == {"role": "assistant", "content": "", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    "role", ["tool", "tool_response", "tool_result", "function", "observation", "ipython"]
)
def test_all_roles_of_a_result_are_one_and_several_follow_their_calls(role: str) -> None:
    results = [{"from": role, "value": "3"}, {"role": role, "content": {"b": [4]}}]
    asks = {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
    talk, lost = conversation({"messages": [USER, asks, *results, ANSWER]}, "messages")
    assert talk[2:4] == [
        {"role": "tool", "content": "3", "name": "f"},
        {"role": "tool", "content": '{"b": [4]}', "name": "f"},
    ]
    assert not lost
    named = {"role": role, "content": None, "name": "g", "tool_call_id": "c1"}
    talk, _ = conversation({"messages": [USER, asks, named, ANSWER]}, "messages")
    assert talk[2] == {"role": "tool", "content": "", "name": "g", "tool_call_id": "c1"}


def test_calls_that_are_turns_join_the_answer_before_them() -> None:
    call = {"from": "function_call", "value": json.dumps(CALL["function"])}
    talk, _ = conversation({"conversations": [USER, ANSWER, call, call]}, "conversations")
    assert talk == [USER, {**ANSWER, "tool_calls": [CALL, CALL]}]


def test_results_that_nobody_answered_are_taken_off() -> None:
    asks = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    talk, lost = conversation(
        {"messages": [USER, asks, {"role": "tool", "content": "3"}]}, "messages"
    )
    assert lost
    assert talk == [USER, asks]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "column",
    [
        {"tools": [TOOL]},
        {"tools": json.dumps([TOOL])},
        {"tools": [json.dumps(TOOL)]},
        {"tools": [TOOL["function"]]},
        {"functions": [TOOL["function"]]},
        {"tools": TOOL},
    ],
)
def test_tools_are_a_list_or_json_of_one(column: dict[str, Any]) -> None:
    talk, _ = conversation({"messages": [USER, ANSWER], **column}, "messages")
    assert talk.tools == [TOOL]
    assert not talk.is_plain
    for bad in ("f()", [5], ["f()"]):
        with pytest.raises(BadRowError, match=turns.BAD_TOOLS):
            conversation({"messages": [USER, ANSWER], "tools": bad}, "messages")


@pytest.mark.parametrize(
    "turn",
    [
        *({**ANSWER, key: "Hm."} for key in row_keys.THOUGHT_KEYS),
        {**ANSWER, "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"from": "gpt", "value": "<think>\nHm.\n</think>\n\nBecause."},
        {"role": "assistant", "content": "Hm.</think>Because."},
        {**ANSWER, "content": "<think>Hm.</think>Because.", "reasoning": " Hm. "},
        {**ANSWER, "content": [
            {"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Because."}]},
        {**ANSWER, "content": [
            {"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Because."}]},
    ],
)  # fmt: skip
def test_all_spellings_of_a_thought_are_one(turn: dict[str, Any]) -> None:
    talk, _ = conversation({"messages": [USER, turn]}, "messages")
    assert talk == [USER, {**ANSWER, "reasoning_content": "Hm."}]
    assert talk.has_thoughts


def test_a_thought_may_be_a_column_where_one_answer_is_its() -> None:
    row = {"prompt": "Why?", "completion": "Because.", "reasoning": "Hm."}
    assert conversation(row, "auto")[0] == [USER, {**ANSWER, "reasoning_content": "Hm."}]
    with pytest.raises(BadRowError, match="reasoning of a row with several answers not supported"):
        conversation({"messages": [USER, ANSWER, USER, ANSWER], "reasoning": "Hm."}, "messages")


@pytest.mark.parametrize("key", row_keys.FLAGS)
def test_a_flag_of_a_turn_says_whether_it_is_trained_on(key: str) -> None:
    talk, _ = conversation(
        {"messages": [{**USER, key: 0}, {**ANSWER, key: 0}, USER, {**ANSWER, key: True}]}, "auto"
    )
    assert talk.untrained == {1}
    row = {"messages": [USER, ANSWER], key: False}
    if key not in row_keys.ROW_FLAGS:  # a number of the row's own, perhaps
        assert unread_keys(row, "messages") == {key: False}
        return
    with pytest.raises(BadRowError, match=conversations.NOT_TRAINED):
        conversation(row, "messages")


def test_answers_of_a_prompt_are_context_and_those_of_a_history_are_not() -> None:
    talk, _ = conversation({"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}, "auto")
    assert (talk, talk.untrained) == ([USER, ANSWER, USER, ANSWER], {1})
    row = {"instruction": "Why?", "output": "Because.", "history": [["Why?", "Because."]]}
    for history in (row["history"], json.dumps(row["history"])):
        talk, _ = conversation({**row, "history": history, "system": "Be kind."}, "auto")
        assert talk[1:] == [USER, ANSWER, USER, ANSWER]
        assert talk.untrained == set()
    assert conversation({**row, "history": []}, "auto")[0] == [USER, ANSWER]
    with pytest.raises(BadRowError, match=turns.MALFORMED):
        conversation({**row, "history": ["Why?"]}, "auto")


def test_a_table_s_nulls_are_no_arguments() -> None:
    call = {"id": None, "function": {"name": "f", "arguments": {"a": 1, "b": None}}}
    asks = {"role": "assistant", "content": None, "tool_calls": [call]}
    tool = {"type": "function", "function": {"name": "f", "description": None}}
    row = {"messages": [USER, asks], "tools": [tool]}
    assert conversation(TableRow(row), "auto")[0][1]["tool_calls"] == [CALL]
    assert "description" not in conversation(TableRow(row), "auto")[0].tools[0]["function"]
    assert conversation(row, "auto")[0][1]["tool_calls"][0]["function"]["arguments"]["b"] is None


FORMATS = {
    "OpenAI's fine-tuning": {
        "row": ("messages", "tools", "functions", "parallel_tool_calls"),
        "turn": ("role", "content", "name", "weight", "tool_calls", "function_call", "refusal",
                 "audio", "tool_call_id"),
    },
    "TRL's": {
        "row": ("messages", "prompt", "completion", "tools", "images", "image",
                "chat_template_kwargs"),
        "turn": ("role", "content", "tool_calls", "thinking", "reasoning_content"),
    },
    "ShareGPT's, as LLaMA-Factory and axolotl read it": {
        "row": ("conversations", "system", "tools", "images", "videos", "audios", "id", "source",
                "chosen", "rejected", "kto_tag"),
        "turn": ("from", "value", "weight", "train", "training", "train_detail", "name"),
    },
    "Alpaca's": {"row": ("instruction", "input", "output", "system", "history", "id")},
    "ms-swift's": {
        "row": ("messages", "tools", "images", "videos", "audios", "rejected_response", "label"),
        "turn": ("role", "content", "loss", "loss_scale"),
    },
    "Harmony's, OpenRouter's, vLLM's": {
        "row": ("messages", "reasoning_effort", "documents", "chat_template", "enable_thinking"),
        "turn": ("role", "content", "channel", "recipient", "reasoning", "reasoning_details",
                 "thinking", "end_turn"),
    },
}  # fmt: skip
COUNTED = {
    *("parallel_tool_calls", "chosen", "rejected", "kto_tag", "rejected_response", "label"),
    *("end_turn", "input", "tool_call_id", "prompt", "completion", "conversations"),
    *("instruction", "output", "history"),
}
"""Keys of other kinds of training, of the API, or of other spellings: shown, and what is trained is
the same."""


@pytest.mark.parametrize("name", FORMATS)
def test_no_key_of_a_known_format_is_swallowed(name: str) -> None:
    for key in FORMATS[name]["row"]:
        if key != "messages":
            assert fate({"messages": [USER, ANSWER], key: "[[5]]"}, key)
    for key in FORMATS[name].get("turn", ()):
        if key not in ("role", "content", "from", "value"):
            assert fate({"messages": [USER, {**ANSWER, key: "[[5]]"}]}, key)


def fate(row: dict[str, Any], key: str) -> str:
    """How a key is not swallowed: it is counted, harmless, refused, or changes what is trained."""
    plain, _ = conversation({"messages": [USER, ANSWER]}, "auto")
    try:
        talk, _ = conversation(row, "messages")
    except BadRowError:
        return "refused"
    if key in unread_keys(row, "messages"):
        return "counted" if key in COUNTED else ""
    if key in row_keys.HARMLESS_KEYS:
        return "harmless"
    return "used" if talk != plain or talk.tools else ""


def test_a_key_that_would_be_swallowed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_keys, "REFUSED_KEYS", frozenset())
    monkeypatch.setattr(turns, "_REFUSED_OF_A_TURN", frozenset())
    assert fate({"messages": [USER, {**ANSWER, "loss_scale": 5}]}, "loss_scale") == ""


@pytest.mark.parametrize("empty", [None, "", " ", [], {}, "[]", "null", {"name": None}, [None]])
def test_an_empty_value_of_such_a_key_is_no_use_of_it(empty: Any) -> None:
    turn = {**ANSWER, "tool_calls": empty, "reasoning_content": empty, "loss_scale": empty}
    row = {"messages": [USER, turn], "tools": empty, "documents": empty}
    assert conversation(row, "messages") == ([USER, ANSWER], False)


def test_an_empty_value_may_be_nested_deeper_than_functions() -> None:
    value: Any = None
    for _ in range(100_000):
        value = [value]
    row = {"messages": [USER, ANSWER], "tools": value}
    assert conversation(row, "messages") == ([USER, ANSWER], False)


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
    assert not unread_keys(row, spelling)


@pytest.mark.parametrize("text", ["Why?", "[", "[" * 100_000, "{}"])
def test_a_text_that_is_no_list_of_turns_is_malformed(text: str) -> None:
    with pytest.raises(BadRowError, match=turns.MALFORMED):
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
        ({"messages": [{"role": "user", "content": "?", "end_turn": 0}]}, "messages", {"end_turn"}),
        ({"messages": [{"role": "user", "content": "?", "end_turn": None}]}, "messages", set()),
        ({"conversations": [{"from": "human", "value": "?", "name": "A"}], "id": 1},
         "conversations", set()),
        ({"prompt": "?", "completion": "!", "system": "Be kind."}, "prompt_completion", set()),
        ({"instruction": "?", "input": "a", "output": "!", "text": "?!"}, "instruction", {"text"}),
        ({"prompt": "?", "completion": "!", "input": "a"}, "prompt_completion", {"input"}),
    ],
)  # fmt: skip
def test_keys_with_a_value_that_nothing_reads_are_named(
    row: dict[str, Any], spelling: str, keys: set[str]
) -> None:
    assert unread_keys(row, spelling).keys() == keys
