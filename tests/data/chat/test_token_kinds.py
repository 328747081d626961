"""Which trained tokens are an answer's words, its end, a thought, or a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data_templates import bundled, format_of, template_text
from test_served import CALLS, KNOW_THOUGHTS, NO_CALLS, THOUGHTS, TOOLS, WITH_TOOLS, documents

from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.documents import Document
from sftray.data.chat.token_kinds import END, KINDS, WORDS, with_ends
from sftray.data.chat.token_kinds import THOUGHTS as THOUGHT_KIND
from sftray.data.chat.tokenizer import backend
from sftray.data.packs.pack_pass import UNTRAINED
from sftray.data.packs.packs import Packs


def by_kind(chat: ChatFormat, document: Document) -> dict[str, str]:
    """The text of the trained tokens of each kind."""
    size = len(document.input_ids)
    kinds = np.zeros(size, np.int32) if document.kinds is None else document.kinds
    ends = backend(chat.tokenizer).encode(chat.ends[1], add_special_tokens=False)
    kinds = with_ends(kinds, document.trained, len(ends))
    decode = backend(chat.tokenizer).decode
    return {
        name: decode(
            document.input_ids[document.trained & (kinds == kind)].tolist(),
            skip_special_tokens=False,
        )
        for kind, name in enumerate(KINDS)
    }


@pytest.mark.parametrize("name", [name for name in WITH_TOOLS if name not in NO_CALLS])
def test_calls_are_apart_from_words(name: str) -> None:
    chat = format_of(template_text(name))
    (found,) = documents(chat, CALLS["one"], TOOLS)
    texts = by_kind(chat, found)
    assert "forecast" in texts["calls"]
    assert "Ulmtown" in texts["calls"]
    assert texts["words"].strip().endswith("Nowater.")
    assert "Ulmtown" not in texts["words"] + texts["end"]
    assert "forecast" not in texts["words"] + texts["end"]
    assert texts["thoughts"] == ""


@pytest.mark.parametrize("name", KNOW_THOUGHTS)
def test_thoughts_are_apart_from_words(name: str) -> None:
    chat = format_of(template_text(name))
    for found in documents(chat, THOUGHTS["one"]):
        texts = by_kind(chat, found)
        assert "Eighteach." in texts["thoughts"]
        assert "Makes136." not in texts["thoughts"]
        assert texts["words"].strip() == "Makes136."
        assert texts["calls"] == ""


@pytest.mark.parametrize("name", bundled())
def test_the_end_of_an_answer_is_its_last_token_and_all_else_of_a_plain_one_is_words(
    name: str,
) -> None:
    chat = format_of(template_text(name))
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "Which river?"},
        {"role": "assistant", "content": "The Danube."},
    ]
    (found,) = documents(chat, turns)
    texts = by_kind(chat, found)
    assert texts["end"].strip() == chat.ends[1]
    assert "The Danube." in texts["words"]
    assert not texts["thoughts"] + texts["calls"]


def test_an_end_of_several_tokens_is_whole_and_never_longer_than_its_answer() -> None:
    trained = np.array([0, 1, 1, 1, 1, 0, 1, 1, 0, 1], bool)
    kinds = with_ends(np.full(10, THOUGHT_KIND, np.int32), trained, 3)
    assert kinds.tolist() == [2, 2, END, END, END, 2, END, END, 2, END]


def test_eval_packs_keep_the_kinds_beside_the_labels(small_packs: Packs) -> None:
    ends = 0
    for row in small_packs.dataset("eval").with_format("numpy"):
        labels, kinds = row["labels"], row["kinds"]
        assert len(kinds) == len(labels)
        assert not kinds[labels == UNTRAINED].any()
        assert set(kinds.tolist()) <= {WORDS, END}
        assert (labels[kinds == END] == small_packs.end_of_turn).all()
        runs = np.diff(np.append((labels != UNTRAINED).astype(int), 0)) == -1
        assert (kinds[runs] == END).all()
        ends += int((kinds == END).sum())
    assert ends >= small_packs.manifest["splits"]["eval"]["conversations"]
    assert "kinds" not in small_packs.dataset("train").column_names
