"""A start on other rows, weights or templates than the sweep began with is refused before Ray."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sftray.cli.launch import launch
from sftray.config import SweepConfig
from sftray.config.config_json import to_json
from sftray.data.recipe import make_recipe
from sftray.demo import FOLDER
from sftray.plan.identities import Identities, changes, identities
from sftray.storage import files
from sftray.storage.paths import SweepPaths
from sftray.sweep.run import _at_one_commit


@pytest.fixture
def sweep(small_sweep_config: SweepConfig, tmp_path: Path) -> SweepConfig:
    """A sweep that began with its own copies of the demo's chats and base."""
    small = small_sweep_config
    base = shutil.copytree(FOLDER, tmp_path / "base")
    chats = shutil.copy(FOLDER / "chats.jsonl", tmp_path)
    sweep = replace(
        small,
        data=replace(small.data, source=str(chats)),
        trial=replace(small.trial, model=str(base)),
        storage=str(tmp_path / "storage"),
    )
    record = {
        "config": to_json(sweep),
        "identities": identities(make_recipe(sweep.data, sweep.trial.model)),
    }
    files.write_text(SweepPaths.of(sweep.storage, sweep.name).sweep, json.dumps(record))
    return sweep


def append_rows(folder: Path) -> None:
    with open(folder / "chats.jsonl", "a") as file:
        file.writelines((FOLDER / "chats.jsonl").read_text().splitlines(keepends=True)[:150])


def replace_weights(folder: Path) -> None:
    weights = bytearray((folder / "base" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "base" / "model.safetensors").write_bytes(weights)


def edit_the_template(folder: Path) -> None:
    with open(folder / "base" / "chat_template.jinja", "a") as file:
        file.write("{# edited #}")


CHANGES = {
    append_rows: "data.source was",
    replace_weights: "trial.model was",
    edit_the_template: "trial.model's chat_template.jinja was",
}


def test_every_source_of_a_mixture_and_its_weight_is_what_a_sweep_began_with(
    sweep: SweepConfig, tmp_path: Path
) -> None:
    chats, more = tmp_path / "chats.jsonl", tmp_path / "more.jsonl"
    more.write_text("".join(chats.read_text().splitlines(keepends=True)[:40]))

    def known(*weights: float) -> Identities:
        sources = [*zip((str(chats), str(more)), weights, strict=True)]
        data = replace(sweep.data, source=None, sources=sources)
        return identities(make_recipe(data, sweep.trial.model))

    then = known(0.7, 0.3)
    assert changes(then, known(7, 3)) == ""
    assert changes(then, known(0.6, 0.4)) == "data.sources' weights was 0.7,0.3, is 0.6,0.4"
    with open(more, "a") as file:
        file.write(more.read_text().partition("\n")[0] + "\n")
    assert changes(then, known(0.7, 0.3)).startswith(f"data.sources {more} was ")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("command", [[], ["--num-trials", "5"], ["--local"]])
def test_a_start_on_what_has_changed_is_refused(
    sweep: SweepConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: object,
    command: list[str],
) -> None:
    change(tmp_path)  # type: ignore[operator]
    with pytest.raises(SystemExit, match=r"^2$"):
        launch(sweep, command)
    error, hint = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/storage/small: what this sweep began with has changed" in error
    assert CHANGES[change] in error  # type: ignore[index]
    assert hint == "hint: put back what it was, or use --name for a new sweep"
    assert files.list_names(str(tmp_path / "storage" / "small")) == ["sweep.json"]


def test_the_plan_says_that_such_a_start_would_be_refused(
    sweep: SweepConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(sweep, ["--plan"])
    assert "has changed under its name" not in capsys.readouterr().out
    replace_weights(tmp_path)
    with pytest.raises(SystemExit, match=r"^2$"):
        launch(sweep, ["--plan"])
    assert "has changed under its name" in " ".join(capsys.readouterr().out.split())


def test_all_workers_load_a_base_of_the_hub_at_the_commit_of_the_start(sweep: SweepConfig) -> None:
    recipe = replace(make_recipe(sweep.data, sweep.trial.model), model_revision="abc123")
    assert _at_one_commit(sweep, recipe) == sweep  # a folder has none
    hub = replace(sweep, trial=replace(sweep.trial, model="org/base"))
    assert _at_one_commit(hub, recipe).trial.model_revision == "abc123"
