"""What a sweep's names stand for is compared with what they stood for at its first start."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fake_trials import make_sweep
from safetensors.torch import load_file, save_file

from sftray.config import DataConfig
from sftray.config.config_json import to_json
from sftray.config.resume_check import refuse_other_config
from sftray.data.recipe import Recipe, make_recipe
from sftray.demo import FOLDER
from sftray.errors import ConfigError
from sftray.plan.identities import Identities, changes, identities, refuse_other_identities
from sftray.storage.paths import SweepPaths


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return shutil.copytree(FOLDER, tmp_path / "base")


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    lines = (FOLDER / "chats.jsonl").read_text().splitlines(keepends=True)
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(lines[:50]))
    return file


@pytest.fixture
def recipe(base: Path, chats: Path) -> Recipe:
    return make_recipe(DataConfig(str(chats)), str(base))


def again(recipe: Recipe) -> Recipe:
    return make_recipe(recipe.data, recipe.model)


def what_changed(then: Identities, recipe: Recipe) -> str:
    return changes(then, identities(again(recipe)))


def test_nothing_has_changed_where_files_only_moved_or_have_another_time(
    recipe: Recipe, base: Path, chats: Path, tmp_path: Path
) -> None:
    then = identities(recipe)
    for path in (chats, *base.iterdir()):
        os.utime(path, (1, 1))
    assert what_changed(then, recipe) == ""
    elsewhere = shutil.copytree(base, tmp_path / "elsewhere")
    data = replace(recipe.data, source=str(shutil.copy(chats, tmp_path / "moved.jsonl")))
    assert changes(then, identities(make_recipe(data, str(elsewhere)))) == ""


def test_appended_rows_are_named_with_old_and_new(recipe: Recipe, chats: Path) -> None:
    then, size = identities(recipe), chats.stat().st_size
    with open(chats, "a") as file:
        file.write(chats.read_text().partition("\n")[0] + "\n")
    change = what_changed(then, recipe)
    assert change.startswith("data.source was ")
    assert f"({size:,} bytes), is " in change
    assert change.endswith(f"({chats.stat().st_size:,} bytes)")


def test_replaced_weights_are_named(recipe: Recipe, base: Path) -> None:
    then = identities(recipe)
    tensors = load_file(base / "model.safetensors")
    next(iter(tensors.values())).view(-1)[-1] += 1
    save_file(tensors, base / "model.safetensors")
    assert what_changed(then, recipe).startswith("trial.model was ")


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json", "config.json"])
def test_an_edited_file_of_the_base_is_named(recipe: Recipe, base: Path, name: str) -> None:
    then = identities(recipe)
    with open(base / name, "a") as file:
        file.write("\n")
    assert what_changed(then, recipe).startswith(f"trial.model's {name} was ")


def test_an_edited_chat_template_is_named(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    template = shutil.copy(base / "chat_template.jinja", tmp_path / "own.jinja")
    recipe = make_recipe(replace(recipe.data, chat_template=str(template)), recipe.model)
    then = identities(recipe)
    template.write_text(template.read_text() + " ")
    assert what_changed(then, recipe).startswith("data.chat_template was ")


def large(path: Path, **changed: float) -> None:
    """Weights of 160 MiB with few bytes on the disk: two tensors of zeros, but for a byte each."""
    half = 80 * 2**20
    names = ("model.a", "model.b")
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": [half // 4], "data_offsets": [n * half, (n + 1) * half]}
            for n, name in enumerate(names)
        }
    ).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * half)
        for number, place in enumerate((changed.get("a"), changed.get("b"))):
            if place is not None:
                file.seek(8 + len(header) + int((number + place) * half))
                file.write(b"x")


@pytest.mark.parametrize("where", [{"a": 0.0}, {"b": 0.5}, {"b": 0.99999}])
def test_another_tensor_in_large_weights_is_noticed(
    recipe: Recipe, base: Path, where: dict[str, float]
) -> None:
    large(base / "model.safetensors")
    then = identities(recipe)
    large(base / "model.safetensors", **where)
    assert "trial.model was " in what_changed(then, recipe)
    large(base / "model.safetensors")
    assert what_changed(then, recipe) == ""


def test_what_comes_from_the_hub_is_its_commit_and_the_fix_pins_it(
    recipe: Recipe, tmp_path: Path
) -> None:
    source = replace(recipe.train[0], revision="c0ffee", fingerprint="train c0ffee", size=50)
    hub = replace(recipe, train=(source,), model="org/base", model_revision="abc123")
    sweep = make_sweep(data=hub.data, trial=replace(make_sweep().trial, model="org/base"))
    paths = record(tmp_path, hub)
    refuse_other_identities(identities(hub), paths)
    moved = replace(hub, train=(replace(source, revision="f00d", fingerprint="train f00d"),))
    with pytest.raises(ConfigError) as error:
        refuse_other_identities(identities(moved), paths)
    assert "(commit c0ffee, 50 rows), is " in error.value.message
    assert "--set data.revision=c0ffee" in error.value.hint
    with pytest.raises(ConfigError, match=r"trial\.model was abc123 .* is def456") as error:
        refuse_other_identities(identities(replace(hub, model_revision="def456")), paths)
    assert "--set trial.model_revision=abc123" in error.value.hint
    pinned = replace(sweep, trial=replace(sweep.trial, model_revision="abc123"))
    (tmp_path / "sweep.json").write_text(json.dumps({"config": to_json(sweep)}))
    refuse_other_config(pinned, paths)  # the fix is no other configuration


def test_another_version_of_a_package_that_makes_packs_is_named(
    recipe: Recipe, tmp_path: Path
) -> None:
    libraries = {**recipe.inputs["libraries"], "numpy": "0.1"}  # type: ignore[dict-item]
    older = replace(recipe, inputs={**recipe.inputs, "libraries": libraries})
    with pytest.raises(ConfigError, match=r"package numpy was 0\.1, is") as error:
        refuse_other_identities(identities(recipe), record(tmp_path, older))
    assert "pip install numpy==0.1" in error.value.hint


def test_a_record_without_identities_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"data\.source was not recorded"):
        refuse_other_identities(identities(recipe), SweepPaths(str(tmp_path)))


def record(folder: Path, recipe: Recipe) -> SweepPaths:
    (folder / "sweep.json").write_text(json.dumps({"identities": identities(recipe)}))
    return SweepPaths(str(folder))
