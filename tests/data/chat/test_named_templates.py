"""Named templates for a tokenizer that has none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.named_templates import OWN, costs_text, named_template, template_names
from sftray.data.chat.tokenizer import ModelTokenizer, read_tokenizer
from sftray.data.recipe import _read_template
from sftray.demo import FOLDER
from sftray.errors import DataError, TemplateError

DATE = "2025-01-01"
TURNS = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    """The demo's tokenizer, whose markers are ChatML's, without its template."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(FOLDER / name, folder)
    return read_tokenizer(str(folder))


def test_every_template_of_trl_has_a_name() -> None:
    assert {"chatml", "plain", "gemma", "llama3", "qwen3"} <= set(template_names())
    assert not any(name.endswith("_training") for name in template_names())
    assert all(named_template(name) for name in template_names())
    assert named_template("nonsense") is None
    assert named_template("../__init__") is None


@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_our_templates_write_what_transformers_writes_with_them(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    theirs = tokenizer.apply_chat_template(TURNS, chat_template=OWN[name], tokenize=False)
    chat = choose_format(read_tokenizer(str(FOLDER)), template=OWN[name], date=DATE, samples=[])
    texts, spans = chat.render([TURNS])  # type: ignore[list-item]
    assert texts == [theirs]
    end = {"chatml": "<|im_end|>", "plain": tokenizer.eos_token}[name]
    assert [theirs[a:b] for a, b in spans[0]] == ["Yes." + end]


def test_a_base_without_a_template_is_told_the_names_and_what_they_cost(
    bare: ModelTokenizer,
) -> None:
    with pytest.raises(TemplateError, match="has no chat template") as error:
        choose_format(bare, template=None, date=DATE, samples=[])
    assert error.value.hint is not None
    assert "chatml (10 tokens an exchange), plain (13)" in error.value.hint
    assert "gemma" not in error.value.hint  # its end of turn is no token here


def test_a_cost_is_the_tokens_that_the_turns_take_besides_their_words(bare: ModelTokenizer) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    known = replace(bare, special_tokens=bare.special_tokens)
    twice = tokenizer.apply_chat_template([*TURNS, *TURNS], chat_template=OWN["chatml"])
    once = tokenizer.apply_chat_template(TURNS, chat_template=OWN["chatml"])
    words = sum(len(tokenizer.encode(turn["content"])) for turn in TURNS)
    cost = len(twice["input_ids"]) - len(once["input_ids"]) - words
    assert f"chatml ({cost} tokens" in costs_text(known, DATE)


def test_a_template_is_a_file_or_a_name(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    assert _read_template(str(tmp_path / "own.jinja")) == "{{ messages }}"
    assert _read_template("plain") == OWN["plain"]
    with pytest.raises(DataError, match="got 'chatlm', must be the path") as error:
        _read_template("chatlm")
    assert error.value.hint is not None
    assert "chatml, plain" in error.value.hint
