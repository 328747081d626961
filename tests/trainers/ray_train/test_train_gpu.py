"""What only a GPU can show: FlashAttention keeps documents apart, NF4 under bfloat16 autocast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sftray.config import DataConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.data.pipeline import packs_from
from sftray.data.recipe import make_recipe
from sftray.demo import FOLDER
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import TrialPlan, plan_trial
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial.base_model import load_base
from sftray.trial.eval_loss import packed_eval_loss
from sftray.trial.gpu_memory import free_memory
from sftray.trial.proof import prove
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec

pytestmark = pytest.mark.gpu

TRIAL = TrialConfig(
    str(FOLDER), learning_rate=4e-3, effective_batch_size=4, lora_r=8, num_train_epochs=1.0
)


@pytest.fixture(scope="module")
def packs(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Packs:
    data = DataConfig(
        str(FOLDER / "chats.jsonl"),
        max_length=512,
        max_conversations=400,
        num_eval_conversations=50,
        eval_fraction=0.125,
    )
    return packs_from(
        make_recipe(data, str(FOLDER)), storage=str(tmp_path_factory.mktemp("storage"))
    )


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", 0)


def test_flash_attention_keeps_documents_apart(device: torch.device) -> None:
    pytest.importorskip("flash_attn")
    proof = prove(load_base(TRIAL, device), TRIAL, 512)
    assert proof.attention.name == "flash_attention_2"
    assert proof.isolation == 0


@pytest.mark.parametrize("name", ["varlen", "sdpa"])
def test_other_attentions_keep_documents_apart(device: torch.device, name: str) -> None:
    trial = replace(TRIAL, attention=name)
    assert prove(load_base(trial, device), trial, 512).isolation == 0


def test_eval_loss_of_flash_attention_and_sdpa_agree(packs: Packs, device: torch.device) -> None:
    losses = []
    for name in ("sdpa", "varlen", "flash_attention_2"):
        if name == "flash_attention_2":
            pytest.importorskip("flash_attn")
        trial = replace(TRIAL, attention=name)
        model = load_base(trial, device).eval()
        attention = prove(model, trial, packs.max_length).attention
        losses.append(packed_eval_loss(model, packs.dataset("eval"), attention, trial))
    assert losses == pytest.approx([losses[0]] * len(losses), abs=2e-3)


def test_a_trial_learns_and_its_resumed_twin_ends_the_same(
    packs: Packs, device: torch.device, tmp_path: Path
) -> None:
    plan = plan_trial(
        TRIAL, packs.rows("train"), ladder=(), evals_per_trial=4, execution=Execution(2)
    )
    whole = _run(packs, plan, tmp_path / "whole", device)
    with pytest.raises(_KilledError):
        _run(packs, plan, tmp_path / "killed", device, kill_at=plan.eval_steps[1])
    resumed = _run(packs, plan, tmp_path / "killed", device)
    assert whole[-1]["outcome"] == resumed[-1]["outcome"] == "completed"
    assert whole[-1]["eval_loss"] < whole[0]["eval_loss"] - 1
    assert whole[-1]["eval_loss"] == pytest.approx(resumed[-1]["eval_loss"], abs=5e-3)
    assert whole[-1]["gpu_memory_gb"] > 0


def test_a_trial_that_runs_out_of_memory_goes_on_with_less(
    packs: Packs, device: torch.device, tmp_path: Path
) -> None:
    trial = replace(TRIAL, effective_batch_size=4, num_train_epochs=1.0)
    plans = {
        rows: plan_trial(
            trial,
            packs.rows("train"),
            ladder=(),
            evals_per_trial=3,
            execution=Execution(rows, resident=True),
        )
        for rows in (1, 4)
    }
    peaks, losses = {}, {}
    for rows, plan in plans.items():
        free_memory()
        torch.cuda.reset_peak_memory_stats(device)
        reports = _run(packs, plan, tmp_path / str(rows), device, trial=trial)
        peaks[rows], losses[rows] = reports[-1]["gpu_memory_gb"], reports[-1]["eval_loss"]
    free_memory()
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction((peaks[1] + peaks[4]) / 2 / total, device)
    try:
        reports = _run(packs, plans[4], tmp_path / "capped", device, trial=trial)
        torch.cuda.set_per_process_memory_fraction(peaks[1] / 4 / total, device)
        too_little = _run(packs, plans[4], tmp_path / "nothing", device, trial=trial)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert reports[-1]["outcome"] == "completed"
    assert any("out of memory" in str(report.get("out_of_memory")) for report in reports)
    assert reports[-1]["micro_batch_size"] in (1, 2)
    assert reports[-1]["rows"] == plans[4].rows
    assert reports[-1]["eval_loss"] == pytest.approx(losses[4], abs=2e-2)
    assert too_little[-1]["outcome"] == "out_of_memory"


class _KilledError(Exception):
    pass


def _run(
    packs: Packs,
    plan: TrialPlan,
    folder: Path,
    device: torch.device,
    kill_at: int | None = None,
    trial: TrialConfig = TRIAL,
) -> list[dict[str, Any]]:
    reports: list[dict[str, Any]] = []

    def report(one: Report) -> None:
        reports.append(one.values())
        if kill_at is not None and one.metrics.get("step") == kill_at:
            raise _KilledError

    spec = TrialSpec("t0000", trial, plan, packs.root, str(folder), None, 1)
    run_trial(spec, report, device)
    return reports
