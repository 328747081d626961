"""The key of packs follows all that they are made from; whole ones are read without writing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from packs_here import build_packs_here

from sftray.config import DataConfig
from sftray.data.recipe import make_recipe
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


def test_rows_that_were_appended_change_the_key(chats: Path, base: Path) -> None:
    data = DataConfig(str(chats))
    before = make_recipe(data, str(base)).key
    assert make_recipe(data, str(base)).key == before
    with chats.open("a") as file:
        file.writelines(map(talk, range(1000, 1150)))
    assert make_recipe(data, str(base)).key != before


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "config.json"])
def test_a_file_of_the_tokenizer_that_was_edited_changes_the_key(
    chats: Path, base: Path, name: str
) -> None:
    before = make_recipe(DataConfig(str(chats)), str(base)).key
    (base / name).write_text((base / name).read_text() + " ")
    assert make_recipe(DataConfig(str(chats)), str(base)).key != before


def test_whole_packs_are_found_without_a_lock(chats: Path, base: Path) -> None:
    data = DataConfig(str(chats), max_length=64)
    built = build_packs_here(data, str(base), storage=str(chats.parent))
    lock = Path(f"{built.root}.lock")
    lock.unlink()
    assert build_packs_here(data, str(base), storage=str(chats.parent)).manifest == built.manifest
    assert not lock.exists()
