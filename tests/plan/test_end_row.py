"""A base that was never trained on the end of an answer is warned of, with what to do; others are
not."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from sftray.demo import CHATS, FOLDER
from sftray.plan.end_row import Rows, embedding, row_warning
from sftray.storage.model_files import model_config

SHARED = Path(__file__).parents[3] / "shared"
BASES = [str(FOLDER), str(SHARED / "models" / "base16m")]
END, PAD, TEXT_END = 2, 3, 0
"""Tokens of the bundled base, of which it knows the first alone."""


@pytest.fixture(params=BASES, ids=["demo", "base16m"])
def base(request: pytest.FixtureRequest) -> Path:
    if not Path(request.param).is_dir():
        pytest.skip("needs ../shared")
    return Path(request.param)


def rows_of(folder: Path) -> tuple[Rows, Tokenizer]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    weights = embedding(folder)
    assert weights is not None
    return Rows.of(weights, [*tokenizer.get_added_tokens_decoder()]), tokenizer


def test_a_base_that_does_not_know_the_end_of_an_answer_is_warned_of() -> None:
    base = Path(BASES[1])
    if not base.is_dir():
        pytest.skip("needs ../shared")
    _, tokenizer = rows_of(base)
    (warning,) = row_warning(str(base), None, tokenizer.token_to_id("<|im_end|>"))
    assert "the base has never been trained on <|im_end|>, which ends an answer" in warning
    assert "let data.chat_template end answers on <|endoftext|>, which it knows" in warning
    assert list(row_warning(str(base), None, tokenizer.token_to_id("<|endoftext|>"))) == []


def test_the_bundled_base_knows_the_end_of_an_answer_and_not_its_padding() -> None:
    assert list(row_warning(str(FOLDER), None, END)) == []
    (warning,) = row_warning(str(FOLDER), None, PAD)
    assert "the base has never been trained on <|pad|>" in warning


def test_words_that_a_base_knows_raise_no_alarm(base: Path) -> None:
    rows, tokenizer = rows_of(base)
    page = Path(__file__).parents[2] / "docs/choosing_a_space.md"
    texts, often = re.findall(r"\b[A-Za-z]+\b", page.read_text(encoding="utf-8")), 1
    if base == FOLDER:  # its vocabulary is that of its chats
        talks = [json.loads(line)["messages"] for line in CHATS.read_text().splitlines()]
        texts, often = [turn["content"] for talk in talks for turn in talk], 20
    ids = Counter(k for text in texts for k in tokenizer.encode(f" {text}").ids)
    words = [k for k, times in ids.items() if times >= often]
    alarms = [k for k in words if rows.of_token(k).is_untrained]
    assert len(words) > 250
    assert len(alarms) <= len(words) / 200, [tokenizer.id_to_token(k) for k in alarms]


@pytest.mark.parametrize("how", ["zeros", "the mean", "drawn"])
def test_rows_that_were_put_in_later_are_not_taken_for_known(base: Path, how: str) -> None:
    rows, _ = rows_of(base)
    drawn = np.random.default_rng(0).normal(0, 0.02, rows.centre.shape).astype(np.float32)
    row = {"zeros": np.zeros_like(rows.centre), "the mean": rows.centre * 1.001, "drawn": drawn}
    assert rows.beside(row[how]).is_untrained


def copy_of_the_demo(folder: Path, **changes: np.ndarray) -> Path:
    """As far as it is looked at, in float32."""
    for file in FOLDER.iterdir():
        if file.suffix in (".json", ".jinja"):
            (folder / file.name).write_bytes(file.read_bytes())
    tensors = {"model.embed_tokens.weight": rows_in_float32(), **changes}
    save_file(tensors, folder / "model.safetensors")
    return folder


def rows_in_float32() -> np.ndarray:
    weights = embedding(FOLDER)
    assert weights is not None
    return (np.array(weights).astype(np.uint32) << 16).view(np.float32)


def test_a_base_that_knows_its_end_of_text_is_offered_plain(tmp_path: Path) -> None:
    rows = rows_in_float32()
    rows[[END, TEXT_END]] = rows[[PAD, END]]
    folder = copy_of_the_demo(tmp_path, **{"model.embed_tokens.weight": rows})
    file = folder / "tokenizer_config.json"
    file.write_text(
        file.read_text().replace('"eos_token": "<|im_end|>"', '"eos_token": "<|endoftext|>"')
    )
    (warning,) = row_warning(str(folder), None, END)
    assert "data.chat_template='plain' ends answers on <|endoftext|>, which it knows" in warning


def test_an_untied_head_is_looked_at_by_itself(tmp_path: Path) -> None:
    head, rows = rows_in_float32(), rows_in_float32()
    rows[END] = rows[PAD]
    tensors = {"lm_head.weight": head, "model.embed_tokens.weight": rows}
    folder = copy_of_the_demo(tmp_path, **tensors)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')
    )
    assert not model_config(str(folder))["tie_word_embeddings"]
    (warning,) = row_warning(str(folder), None, END)
    assert "its row in the embedding points where" in warning
    assert "row in the head" not in warning


def test_a_base_of_random_weights_raises_no_alarm(tmp_path: Path) -> None:
    rows, tokenizer = rows_of(FOLDER)
    drawn = np.random.default_rng(0).normal(0, 0.02, rows.weights.shape).astype(np.float16)
    folder = copy_of_the_demo(tmp_path, **{"model.embed_tokens.weight": drawn})
    assert list(row_warning(str(folder), None, tokenizer.token_to_id("<|im_end|>"))) == []


def test_a_base_whose_weights_are_not_here_is_said_not_to_be_looked_at(tmp_path: Path) -> None:
    folder = copy_of_the_demo(tmp_path)
    (folder / "model.safetensors").unlink()
    (line,) = row_warning(str(folder), None, 2)
    assert "was not looked at" in line
