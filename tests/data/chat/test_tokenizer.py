"""A tokenizer whose files are absurd is one plain error, with or without transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sftray.data.chat.tokenizer import backend, load_tokenizer, read_tokenizer
from sftray.demo import FOLDER
from sftray.errors import DataError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The demo's base without its weights."""
    for file in FOLDER.glob("*.json"):
        shutil.copy(file, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eos_token", 5),
        ("bos_token", ["<s>"]),
        ("pad_token", {"content": 7}),
        ("chat_template", 5),
        ("chat_template", {"default": "x"}),
        ("chat_template", [{"name": "default"}]),
        ("chat_template", ["default"]),
    ],
)
def test_a_setting_of_another_type_is_refused_by_its_name(base: Path, key: str, value: Any) -> None:
    file = base / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    for read in (read_tokenizer, load_tokenizer):
        with pytest.raises(DataError, match=rf"tokenizer_config\.json: {key}: got "):
            read(str(base))


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"a": ' + "9" * 6000 + "}"])
def test_settings_that_are_no_object_are_refused(base: Path, text: str) -> None:
    (base / "tokenizer_config.json").write_text(text)
    for read in (read_tokenizer, load_tokenizer):
        with pytest.raises(DataError, match=r"tokenizer_config\.json: (not JSON|got \[\])"):
            read(str(base))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": {"type": "BPE", "vocab": -1}}'])
def test_a_tokenizer_that_is_none_is_refused(base: Path, text: str) -> None:
    (base / "tokenizer.json").write_text(text)
    with pytest.raises(DataError, match=r"its tokenizer\.json is no fast tokenizer"):
        backend(read_tokenizer(str(base)).json)
    with pytest.raises(DataError, match=r"cannot be loaded|no fast tokenizer"):
        load_tokenizer(str(base))


def test_a_template_in_another_encoding_is_refused(base: Path) -> None:
    (base / "chat_template.jinja").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match=r"chat_template\.jinja: cannot be read as UTF-8"):
        read_tokenizer(str(base))
