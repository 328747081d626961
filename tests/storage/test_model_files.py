"""A base whose files are absurd is one plain error, before anything is computed from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftray.demo import FOLDER
from sftray.errors import DataError
from sftray.storage.model_files import model_config

DEMO = json.loads((FOLDER / "config.json").read_text())


def base(tmp_path: Path, text: str) -> str:
    (tmp_path / "config.json").write_text(text)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("hidden_size", -1, "must be 1 … 16,777,216"),
        ("hidden_size", 10**12, "must be 1 … 16,777,216"),
        ("hidden_size", "64", "must be 1"),
        ("num_hidden_layers", 2.5, "must be 1 … 10,000"),
        ("num_attention_heads", 0, "must be 1"),
        ("vocab_size", True, "got True, must be 1"),
        ("model_type", ["llama"], "must be text"),
        ("layer_types", "full", "must be a list or null"),
        ("attention_dropout", "none", "must be a whole number or a number"),
        ("quantization_config", 4, "must be an object or null"),
        ("text_config", {"vocab_size": -5}, "vocab_size: got -5, must be 1"),
        ("text_config", [], "must be an object"),
    ],
)
def test_a_value_that_no_model_has_is_refused_by_its_name(
    tmp_path: Path, key: str, value: Any, must: str
) -> None:
    with pytest.raises(
        DataError, match=rf"config\.json: {key if key != 'text_config' else ''}"
    ) as e:
        model_config(base(tmp_path, json.dumps({**DEMO, key: value})))
    assert must in str(e.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", r"got \[\], must be a JSON object"),
        ('{"hidden_size": ' + "9" * 6000 + "}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "has no model_type"),
        ("\x00", "not JSON"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        model_config(base(tmp_path, text))
    assert len(str(caught.value)) < 500


def test_nulls_and_sizes_by_layer_are_a_model_s(tmp_path: Path) -> None:
    usual = {"head_dim": None, "sliding_window": None, "intermediate_size": [64, 128]}
    config = {**DEMO, **usual, "attention_dropout": 0, "text_config": {"vocab_size": 5}}
    read = model_config(base(tmp_path, json.dumps(config)))
    assert read == {**config, "vocab_size": 5}  # of the language model
