"""The language model of a multimodal checkpoint is trained alone, by either trainer, and its
adapter is one of the whole: transformers and PEFT load it there, and it has the same loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_models import settings_for, short_spec
from multimodal_bases import CONFIGS, multimodal_base
from peft import PeftModel
from reported import into
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs, open_packs
from sftray.storage.paths import TrialPaths
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial.base_model import load_base, parameters_of, pretrained
from sftray.trial.eval_loss import evaluate_adapter, evaluate_model
from sftray.trial.progress import Reporter
from sftray.trial.trial_spec import TrialSpec
from sftray.winner.adapter_format import WEIGHTS

CPU = torch.device("cpu")


@torch.no_grad()
def loss_of(model: Any, packs: Packs) -> float:
    """Of the whole model, one conversation at a time."""
    total, count = 0.0, 0
    for row in packs.dataset("eval"):
        start = 0
        for length in row["seq_lengths"]:
            part = slice(start, start + length)
            ids, labels = (torch.tensor(row[name][part]) for name in ("input_ids", "labels"))
            start += length
            kept = labels[1:] != -100
            if kept.any():
                logits = model(input_ids=ids[None]).logits[0, :-1][kept]
                total += float(cross_entropy(logits, labels[1:][kept], reduction="sum"))
                count += int(kept.sum())
    return total / count


def by_bank(spec: TrialSpec, report: Reporter, device: torch.device) -> None:
    """Train one trial in a bank."""
    settings, packs = settings_for([spec.config], 1), open_packs(spec.packs)
    engine = Engine(load_model(spec.config, device), spec.config, packs, settings, device)
    engine.admit(engine.prepare(spec, report))
    while engine.advance():
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "trainer"),
    [
        ("gemma3", by_bank),
        pytest.param("mistral3", by_bank, marks=pytest.mark.exhaustive),
        *(pytest.param(kind, run_trial, marks=pytest.mark.exhaustive) for kind in CONFIGS),
    ],
)
def test_an_adapter_of_the_language_model_loads_on_the_whole(
    kind: str, trainer: Any, small_packs: Packs, tmp_path: Path
) -> None:
    folder = multimodal_base(tmp_path / "base", kind)
    trial = TrialConfig(
        str(folder), base_precision="fp32", learning_rate=1e-2, lora_r=4, effective_batch_size=2
    )
    spec = short_spec(small_packs, trial, tmp_path / "trial")
    reports: list[dict[str, Any]] = []
    trainer(spec, into(reports), CPU)
    first, last = reports[0]["eval_loss"], reports[-1]["eval_loss"]
    assert last < first - 0.05
    checkpoint = TrialPaths(spec.folder).checkpoint(reports[-1]["step"])
    whole = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    assert loss_of(whole, small_packs) == pytest.approx(first, abs=1e-4)
    served = PeftModel.from_pretrained(whole, checkpoint).eval()
    assert loss_of(served, small_packs) == pytest.approx(last, abs=1e-4)
    adapted = [name for name, _ in served.named_parameters() if "lora_A" in name]
    assert len(adapted) * 2 == len(load_file(Path(checkpoint) / WEIGHTS))
    assert all("language_model" in name for name in adapted)
    rows = small_packs.dataset("eval")
    assert evaluate_adapter(Path(checkpoint), trial, rows) == pytest.approx(last, abs=1e-5)
    merged = tmp_path / "merged"
    model = PeftModel.from_pretrained(pretrained(trial, torch.float32, whole=True), checkpoint)
    model.merge_and_unload().save_pretrained(merged)
    assert evaluate_model(merged, trial, rows, torch.float32) == pytest.approx(last, abs=1e-4)


def test_nothing_but_the_language_model_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = multimodal_base(tmp_path / "base", "gemma3")
    trial = TrialConfig(str(folder), base_precision="fp32")
    model = load_base(trial, CPU)
    assert "vision_tower" not in caplog.text
    assert {name.split(".")[1] for name, _ in model.named_parameters()} == {"language_model"}
    held = sum(parameter.numel() for parameter in model.parameters())
    assert held < parameters_of(trial)  # which counts the vision tower, as a merged model has it
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gemma3"
