"""What works from every folder: the bundled base by its name, data beside a sweep file, results by
name, and commands that are printed to be copied."""

from __future__ import annotations

import csv
import io
import json
import runpy
import shlex
import shutil
import sys
import types
from pathlib import Path

import pytest
from fake_folder import RECORDED

from sftray.cli.launch import launch
from sftray.cli.main import main
from sftray.config import DataConfig, TrialConfig
from sftray.demo import FOLDER
from sftray.storage.paths import BUNDLED, with_bundled


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two sweeps in results/; the Hub is not asked."""
    for name in ("first", "the second"):
        shutil.copytree(RECORDED, tmp_path / "results" / name)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("Hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(arguments)
    return capsys.readouterr().out


def test_the_bundled_base_and_chats_have_a_name_everywhere(elsewhere: Path) -> None:
    assert TrialConfig(BUNDLED).model == str(FOLDER)
    assert DataConfig(f"{BUNDLED}/chats.jsonl").source == str(FOLDER / "chats.jsonl")
    assert with_bundled("sftray/demos") == "sftray/demos"
    (elsewhere / BUNDLED).mkdir(parents=True)
    assert TrialConfig(BUNDLED).model == BUNDLED  # a folder of one's own goes first


def test_demo_is_a_sweep_whose_flags_follow(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = json.loads(said(capsys, "demo", "--plan", "--json", "--name", "mine"))
    assert planned["sweep"] == "mine"
    assert planned["config"]["trial"]["model"] == str(FOLDER)
    assert said(capsys, "demo", "--help").startswith("usage: ")
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["results", "first", "--nosuch"])


def test_a_path_in_a_sweep_file_is_one_from_the_file(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = elsewhere / "sweeps"
    home.mkdir()
    shutil.copy(FOLDER / "chats.jsonl", home)
    said(capsys, "init", "sweeps/own.py", "--data", "sweeps/chats.jsonl", "--model", BUNDLED)
    text = (home / "own.py").read_text()
    assert 'source="chats.jsonl"' in text
    assert f'model="{BUNDLED}"' in text
    monkeypatch.chdir("/")
    sweep = runpy.run_path(str(home / "own.py"))["sweep"]
    started = types.SimpleNamespace(__file__=str(home / "own.py"))
    monkeypatch.setitem(sys.modules, "__main__", started)
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(sweep, ["--plan", "--json", "--storage", str(elsewhere / "x")])
    planned = json.loads(capsys.readouterr().out)
    assert planned["config"]["data"]["source"] == str(home / "chats.jsonl")


def test_sweeps_are_listed_and_read_by_name(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "results" / "broken").mkdir()
    (elsewhere / "results" / "broken" / "sweep.json").write_text("{")
    head, broken, *lines = said(capsys, "list").splitlines()
    assert head.split()[:3] == ["sweep", "state", "trials"]
    assert broken.startswith("broken      unreadable: ")
    assert [line.split("  ")[0] for line in lines] == ["first", "the second"]
    assert "  ended " in lines[0]
    by_name = said(capsys, "results", "first")
    assert by_name == said(capsys, "results", "results/first")
    both = said(capsys, "results", "first", "the second")
    assert both.startswith("results/first\n")
    assert "\nresults/the second\n" in both
    assert both.rstrip().splitlines()[-3].split()[0] == "sweep"
    assert "sftray results 'results/the second' -v" in both


def test_results_as_csv_have_a_row_a_trial(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = json.loads(said(capsys, "results", "first", "--json"))
    rows = list(csv.DictReader(io.StringIO(said(capsys, "results", "first", "--csv"))))
    of_both = list(csv.DictReader(io.StringIO(said(capsys, "results", "first", "first", "--csv"))))
    assert len(of_both) == 2 * len(rows) == 2 * len(board["trials"])
    losses = {row["trial"]: row["eval_loss"] for row in board["trials"]}
    assert {row["trial"]: float(row["eval_loss"]) for row in rows} == pytest.approx(losses)


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version").startswith("sftray ")


def test_what_init_prints_can_be_copied(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"{BUNDLED}/chats.jsonl"
    text = said(capsys, "init", "my sweep.py", "--data", data, "--model", BUNDLED)
    command = text.splitlines()[-1].partition(": ")[2]
    assert shlex.split(command) == ["python", "my sweep.py", "--plan"]
