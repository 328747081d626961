"""Words give the tokens and edges that the tokenizers library gives, or no answer."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from data_templates import CONVERSATIONS, DEMO
from hypothesis import given, settings
from hypothesis import strategies as st

from sftray.data.chat.loss_mask import _token_edges
from sftray.data.chat.tokenizer import backend, read_tokenizer
from sftray.data.chat.word_tokenizer import PATTERNS, Words, words_of

DEMO_JSON = read_tokenizer(str(DEMO)).json
GPT2, LLAMA3, QWEN = PATTERNS
PIECES = [
    *(chr(code) for code in range(128)),
    *("<|im_end|>", "<|im_start|>", "<|im_", "user\n", "  ", "\n\n", "'ll", "'S", "12345", "word"),
    *("é", "e\u0301", "你好", "🙂", "ſ", "½", "\u0085", "\u00a0", "\u2028", "\u3000", "\u0301"),
    *("ＡＢ", "١٢", "\u200b", "\ufeff", " ’s"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


def tokenizer_json(pattern: str, **changes: object) -> str:
    """The demo's tokenizer, cutting words by another pattern."""
    values = json.loads(DEMO_JSON)
    if pattern != GPT2:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
        level = {**values["pre_tokenizer"], "use_regex": False}
        parts = [{**split, "invert": False}, level]
        values["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    return json.dumps({**values, **changes})


def words_for(json_text: str) -> Words:
    words = words_of(json_text)
    assert words is not None
    return words


@functools.cache  # reading a tokenizer takes longer than all that is done with it
def both(pattern: str, normalizer: str | None) -> tuple[Words, Any]:
    """Words and the library's own, of one tokenizer."""
    json_text = tokenizer_json(pattern, normalizer={"type": normalizer} if normalizer else None)
    return words_for(json_text), backend(json_text)


@pytest.mark.parametrize("normalizer", [None, "NFC"], ids=["as it is", "NFC"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=["GPT-2", "Llama 3", "Qwen"])
@settings(deadline=None, max_examples=400)
@given(text=TEXTS, data=st.data())
def test_words_give_the_ids_and_edges_of_the_library(
    pattern: str, normalizer: str | None, text: str, data: st.DataObject
) -> None:
    words, library = both(pattern, normalizer)
    places = st.integers(0, len(text))
    span = tuple(sorted((data.draw(places), data.draw(places))))
    (found,) = words.encode([text], [[span]])
    (ids_alone,) = words.encode([text], [[]])
    encoding = library.encode(text, add_special_tokens=False)
    if ids_alone is not None:
        assert ids_alone[0].tolist() == encoding.ids
    if found is not None:
        assert found[0].tolist() == encoding.ids
        assert found[1] == [_token_edges(encoding, *span, len(text))]


@pytest.mark.parametrize("pattern", PATTERNS, ids=["GPT-2", "Llama 3", "Qwen"])
def test_words_answer_for_what_people_write(pattern: str) -> None:
    words = words_for(tokenizer_json(pattern))
    texts = [turn["content"] for turns in CONVERSATIONS.values() for turn in turns]
    assert None not in words.encode(texts, [[(0, len(text))] for text in texts])


def test_a_dictionary_that_is_full_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftray.data.chat.word_tokenizer._MOST_WORDS", 20)
    words = replace(words_for(DEMO_JSON), known={})
    rng = random.Random(0)
    for _ in range(30):
        text = " ".join(f"word{rng.randint(0, 99)}" for _ in range(10))
        (found,) = words.encode([text], [[]])
        assert found is not None
        assert found[0].tolist() == backend(DEMO_JSON).encode(text).ids
        assert len(words.known) < 60


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {**json.loads(DEMO_JSON)["pre_tokenizer"], "add_prefix_space": True}},
        {"model": {**json.loads(DEMO_JSON)["model"], "dropout": 0.1}},
        {"added_tokens": []},
        {"added_tokens": [{**json.loads(DEMO_JSON)["added_tokens"][0], "lstrip": True}]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_tokenizers_have_no_dictionary(changes: dict[str, object]) -> None:
    assert words_of(tokenizer_json(GPT2, **changes)) is None


def test_a_text_with_an_added_token_of_later_is_left_to_the_library() -> None:
    added = json.loads(DEMO_JSON)["added_tokens"]
    later = {**added[0], "id": 8192, "content": "think", "normalized": True, "special": False}
    words = words_for(tokenizer_json(GPT2, added_tokens=[*added, later]))
    found = words.encode(["I think so", "I know"], [[], []])
    assert found[0] is None
    assert found[1] is not None
