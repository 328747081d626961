"""A proof is made once for a base on a machine, and again for whatever else is proved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_models import random_model

from sftray.config import TrialConfig
from sftray.trial.kept_proofs import proof_key, prove_once, read
from sftray.trial.proof import Proof

TRIAL = TrialConfig("base", base_precision="fp32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SFTRAY_CACHE", str(tmp_path))
    return tmp_path


def model() -> Any:
    return random_model("llama").eval()


def test_a_kept_proof_is_the_proof_that_was_made(cache: Path) -> None:
    made = prove_once(model(), TRIAL, 256)
    (path,) = (cache / "proofs").glob("*.json")
    before = path.stat().st_mtime_ns
    second = model()
    second.set_attn_implementation("eager")
    again = prove_once(second, TRIAL, 256)
    assert isinstance(again, Proof)
    assert again == made
    assert second.config._attn_implementation == made.attention.implementation
    assert path.stat().st_mtime_ns == before  # it was not made again


def test_whatever_else_is_proved_has_another_key() -> None:
    first = proof_key(model(), TRIAL, 256)
    assert proof_key(model(), TRIAL, 256) == first
    changed = model()
    changed.model.layers[1].mlp.up_proj.weight.data[0, 0] += 1e-3
    others = [
        proof_key(changed, TRIAL, 256),
        proof_key(model(), TRIAL, 512),
        proof_key(model(), TRIAL, 256, of="bank"),
        proof_key(model(), replace(TRIAL, attention="eager"), 256),
        proof_key(model(), replace(TRIAL, base_precision="bf16"), 256),
        proof_key(model().to(torch.bfloat16), TRIAL, 256),
        proof_key(random_model("qwen2").eval(), TRIAL, 256),
    ]
    assert len({first, *others}) == 1 + len(others)


def test_a_damaged_proof_is_made_again(cache: Path) -> None:
    made = prove_once(model(), TRIAL, 256)
    (path,) = (cache / "proofs").glob("*.json")
    for text in ("", "{}", '{"attention": {"name": 1}}'):
        path.write_text(text)
        assert prove_once(model(), TRIAL, 256) == made
        assert read(path.stem) is not None


def test_a_folder_that_cannot_be_written_costs_the_proof_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFTRAY_CACHE", str(tmp_path / "file"))
    assert prove_once(model(), TRIAL, 256).equality.passed
