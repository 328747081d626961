"""`sftray doctor`: each finding with what it means and the fix, and no key's value."""

from __future__ import annotations

import importlib.metadata
import json
from types import SimpleNamespace

import pytest

from sftray.cli import doctor
from sftray.cli.doctor import Finding, as_text, findings
from sftray.cli.main import main


def asked(capsys: pytest.CaptureFixture[str], *arguments: str, status: int) -> str:
    with pytest.raises(SystemExit, match=f"^{status}$"):
        main(["doctor", *arguments])
    return capsys.readouterr().out


def test_doctor_tells_what_this_machine_can_do_and_no_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("WANDB_API_KEY", "wandb_secret")
    text = asked(capsys, status=0)
    for told in ("python", "GPU", "attention", "bitsandbytes", "4 bits", "ray", "trl", "disk here"):
        assert f" {told} " in text
    assert "HF_TOKEN       present" in text
    assert "WANDB_API_KEY  present" in text
    assert "secret" not in text
    assert text.endswith("\nready\n")


def test_a_problem_is_the_exit_status_and_has_a_fix(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Finding("trl", "0.1", "sftray was made with >=1.16", "pip install 'trl>=1.16'", "problem")
    monkeypatch.setattr("sftray.cli.doctor.findings", lambda storage: [Finding("python", "3"), bad])
    text = asked(capsys, status=1)
    assert text.splitlines() == [
        "  python         3",
        "! trl            0.1: sftray was made with >=1.16",
        "                 → pip install 'trl>=1.16'",
        "",
        "1 problem",
    ]
    told = json.loads(asked(capsys, "--json", status=1))
    assert told[1] == {
        "name": "trl", "found": "0.1", "means": bad.means, "fix": bad.fix, "level": "problem",
    }  # fmt: skip


def test_packages_are_held_against_their_pins() -> None:
    assert doctor._package("peft>=0.1").level == "ok"
    old = doctor._package("peft>=99")
    assert (old.level, old.fix) == ("problem", "pip install 'peft>=99'")
    assert doctor._package("no-such-package>=1").found == "absent"


def test_versions_cannot_be_told_where_sftray_is_only_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert [finding.name for finding in doctor._packages()] == ["attention", "sftray"]


def test_little_disk_and_shared_memory_are_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5e9, total=64e6))
    here = doctor._disk("disk", str(tmp_path_factory.mktemp("x") / "not" / "there" / "yet"))
    assert (here.found, here.level) == ("5 GB free", "note")
    (shared,) = doctor._shared_memory()
    assert (shared.found, shared.level) == ("0.06 GB", "note")
    assert "--shm-size" in shared.fix


def test_a_hub_that_is_out_of_reach_is_noted_without_its_password() -> None:
    hub = doctor._hub("http://me:secret@127.0.0.1:9", offline=False)
    assert hub.found.startswith("http://127.0.0.1:9: the Hub is out of reach")
    assert hub.level == "note"  # fine, if all is local


def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("asked"))
    assert doctor._hub("https://huggingface.co", offline=True).level == "ok"


def test_a_gpu_that_torch_does_not_see_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sftray.cli.doctor.smallest_gpu", lambda: 80e9)
    (gpu,) = doctor._devices()
    assert gpu.level == "problem"
    assert "CUDA" in gpu.fix


def test_a_problem_is_never_without_a_fix() -> None:
    assert all(one.fix for one in findings() if one.level == "problem")
    assert as_text([Finding("a", "b", level="problem")]).endswith("1 problem")
