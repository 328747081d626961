"""best/ is read as it was written: whole, restored from the checkpoint, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_bundle import CONFIRMED, facts_of

from sftray.cli.main import main
from sftray.config import TrialConfig
from sftray.config.config_json import to_json
from sftray.errors import SftrayError
from sftray.results.confirmation import half_width
from sftray.storage import files
from sftray.storage.checksums import MANIFEST
from sftray.storage.paths import SweepPaths
from sftray.winner.bundle import CARD, FACTS, REPEAT, BundleFacts, open_bundle, seal
from sftray.winner.collect import _texts

TRIAL = TrialConfig("base", learning_rate=5e-3, lora_r=12)


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    facts = facts_of(TRIAL, confirmed=CONFIRMED)
    (tmp_path / FACTS).write_text(json.dumps(to_json(facts)), encoding="utf-8")
    again = BundleFacts.read(str(tmp_path))
    assert to_json(again) == to_json(facts)
    assert (again.config, again.data) == (facts.config, facts.data)
    assert again.confirmed is not None
    assert half_width(again.confirmed) == half_width(CONFIRMED) == 0.25


@pytest.mark.parametrize("name", ["leaderboard", "evals_per_trial"])
def test_facts_of_another_version_are_refused(name: str, tmp_path: Path) -> None:
    values = to_json(facts_of(TRIAL))
    del values[name]
    (tmp_path / FACTS).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(SftrayError, match=f"{name}.*must be written by this version"):
        BundleFacts.read(str(tmp_path))


# its files


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep's folder with best/ and the checkpoint that it is of; weights are a few bytes."""
    weights = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}"}
    facts = facts_of(TRIAL)
    best, checkpoint = (
        tmp_path / "best",
        Path(SweepPaths(str(tmp_path)).trial(facts.trial).checkpoint(facts.step)),
    )
    for folder in (best, checkpoint):
        folder.mkdir(parents=True)
        for name, content in weights.items():
            (folder / name).write_bytes(content)
    for name, text in _texts(facts).items():
        (best / name).write_text(text, encoding="utf-8")
    (best / "tokenizer.json").write_text("{}")
    seal(best)
    return tmp_path


@pytest.mark.parametrize("way", ["zeroed", "gone"])
def test_a_damaged_adapter_is_restored_from_the_checkpoint(
    way: str, sweep: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = sweep / "best" / "adapter_model.safetensors"
    if way == "gone":
        damaged.unlink()
    else:
        damaged.write_bytes(b"wei\0\0\0\0")
    local, facts = open_bundle(str(sweep))
    assert (local, facts.trial) == (sweep / "best", "t0001")
    assert damaged.read_bytes() == b"weights"
    assert "adapter_model.safetensors was damaged; restored from" in caplog.text
    caplog.clear()
    open_bundle(str(sweep / "best"))
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["tokenizer.json", FACTS, "adapter_config.json"])
def test_what_the_checkpoint_does_not_have_is_refused_with_the_fix(name: str, sweep: Path) -> None:
    shutil.rmtree(sweep / "trials")
    (sweep / "best" / name).write_bytes(b"[]")
    with pytest.raises(SftrayError, match=f"{name} is missing or differs") as refused:
        open_bundle(str(sweep))
    assert refused.value.hint.startswith("run the sweep's command again")


def test_another_checkpoint_s_weights_do_not_stand_in(sweep: Path) -> None:
    for file in sweep.rglob("adapter_model.safetensors"):
        file.write_bytes(b"others")
    with pytest.raises(SftrayError, match="is another"):
        open_bundle(str(sweep))


def test_a_bundle_that_is_being_written_is_not_ready(sweep: Path) -> None:
    (sweep / "best" / MANIFEST).unlink()
    with pytest.raises(SftrayError, match="best: not ready"):
        open_bundle(str(sweep))
    (sweep / "best" / "adapter_model.safetensors").unlink()
    with pytest.raises(SftrayError, match="best: not ready"):
        open_bundle(str(sweep))


def test_a_bundle_that_is_replaced_while_it_is_read_is_not_ready(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_folder = files.get_folder

    def replaced(folder: str, scratch: Path | None = None) -> Path:
        (sweep / "best" / "tokenizer.json").write_text("[]")
        seal(sweep / "best")
        (sweep / "best" / "adapter_config.json").write_text("[]")
        return get_folder(folder, scratch)

    monkeypatch.setattr(files, "get_folder", replaced)
    with pytest.raises(SftrayError, match="best: not ready"):
        open_bundle(str(sweep))


def test_texts_of_its_owner_may_be_changed(sweep: Path) -> None:
    for name in (CARD, REPEAT):
        (sweep / "best" / name).write_text("mine")
    open_bundle(str(sweep))


def test_a_damaged_manifest_is_refused_with_the_fix(sweep: Path) -> None:
    (sweep / "best" / MANIFEST).write_text("{")
    with pytest.raises(SftrayError, match=f"{MANIFEST} is damaged") as refused:
        open_bundle(str(sweep))
    assert refused.value.hint.startswith("run the sweep's command again")


def test_a_bundle_in_the_current_folder_is_restored_too(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sweep / "best" / "adapter_model.safetensors").write_bytes(b"")
    monkeypatch.chdir(sweep / "best")
    open_bundle(".")
    assert (sweep / "best" / "adapter_model.safetensors").read_bytes() == b"weights"


def test_every_command_on_a_bundle_looks_at_its_sums(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "best" / "tokenizer.json").write_text("[]")
    for arguments in (
        ["best", str(sweep)],
        ["merge", str(sweep), str(sweep / "out")],
        ["push", str(sweep), "--repo", "me/it", "--yes"],
        ["generate", str(sweep), "hello"],
    ):
        with pytest.raises(SystemExit, match=r"^2$"):
            main(arguments)
        assert "tokenizer.json is missing or differs" in capsys.readouterr().err


def test_the_language_model_of_a_larger_one_is_loaded_beside_the_rest() -> None:
    code = facts_of(TRIAL, text_part=True).loading_code("best")
    assert f"AutoModelForImageTextToText.from_pretrained({TRIAL.model!r})" in code
    assert code.endswith("model = PeftModel.from_pretrained(base, 'best')")
    assert "ImageTextToText" not in facts_of(TRIAL).loading_code("best")
