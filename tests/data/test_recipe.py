"""What the packs are made from is compared with what they were made from, and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from packs_here import build_packs_here

from sftray.config import DataConfig
from sftray.data.packs.packs import open_packs
from sftray.data.recipe import changed_inputs, make_recipe
from sftray.demo import FOLDER


def talk(number: int) -> str:
    turns = [{"role": "user", "content": f"Say {number}."}, {"role": "assistant", "content": "It."}]
    return json.dumps({"messages": turns}) + "\n"


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(map(talk, range(200))))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The demo's base without its weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    for file in (*FOLDER.glob("*.json"), FOLDER / "chat_template.jinja"):
        shutil.copy(file, folder)
    return folder


def inputs(chats: Path, base: Path, **changes: Any) -> dict[str, object]:
    return make_recipe(DataConfig(str(chats), **changes), str(base)).inputs


def test_rows_that_were_appended_change_the_key_and_are_named(chats: Path, base: Path) -> None:
    data = DataConfig(str(chats), max_length=64)
    built = build_packs_here(data, str(base), storage=str(chats.parent))
    with chats.open("a") as file:
        file.writelines(map(talk, range(1000, 1150)))
    now = make_recipe(data, str(base))
    assert now.key != built.key
    (line,) = changed_inputs(open_packs(built.root).manifest["inputs"], now.inputs)
    assert line.startswith("the content of data.source: ")
    assert changed_inputs(now.inputs, make_recipe(data, str(base)).inputs) == []


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "config.json"])
def test_a_file_of_the_tokenizer_that_was_edited_is_named(
    chats: Path, base: Path, name: str
) -> None:
    before = inputs(chats, base)
    (base / name).write_text((base / name).read_text() + " ")
    (line,) = changed_inputs(before, inputs(chats, base))
    assert line.startswith("the base's tokenizer, chat template or config.json: ")


def test_a_template_a_setting_and_a_library_are_named(chats: Path, base: Path) -> None:
    template = chats.with_name("mine.jinja")
    template.write_text("{{ messages[0].content }} and more than twenty characters")
    old = inputs(chats, base, chat_template=str(template))
    template.write_text("{{ messages[0].content }} and a few more than twenty characters")
    new = inputs(chats, base, chat_template=str(template), max_length=64)
    assert isinstance(new["libraries"], dict)
    new["libraries"] |= {"numpy": "9.9"}
    lines = changed_inputs(json.loads(json.dumps(old)), new)
    assert [line.partition(":")[0] for line in lines] == [
        "data.max_length",
        "the text of data.chat_template",
        "the version of numpy",
    ]
    assert lines[0] == "data.max_length: 2048 → 64"
    assert lines[2].endswith(" → 9.9")
    assert all(len(line) < 80 for line in lines)


def test_whole_packs_are_found_without_a_lock(chats: Path, base: Path) -> None:
    data = DataConfig(str(chats), max_length=64)
    built = build_packs_here(data, str(base), storage=str(chats.parent))
    lock = Path(f"{built.root}.lock")
    lock.unlink()
    assert build_packs_here(data, str(base), storage=str(chats.parent)).manifest == built.manifest
    assert not lock.exists()
