"""One trial on two Ray Train workers is the trial on one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train import RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from sftray.budget import plan_trial
from sftray.config import SweepConfig
from sftray.data.packs import Packs
from sftray.train.worker import run_trial, train_worker
from sftray.trial.spec import TrialSpec

pytestmark = pytest.mark.ray


class Keep(UserCallback):  # type: ignore[misc]
    """Writes what the workers report, a line a report."""

    def __init__(self, file: str) -> None:
        self.file = file

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        with open(self.file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(metrics) + "\n")


@pytest.mark.timeout(300)
def test_two_workers_train_as_one_at_the_same_effective_batch(
    small_packs: Packs, small_sweep_config: SweepConfig, tmp_path: Path
) -> None:
    one = replace(small_sweep_config.trial, lora_dropout=0.0, learning_rate=4e-3)
    two = replace(one, num_workers=2)

    def spec(trial: Any, name: str) -> TrialSpec:
        plan = plan_trial(trial, small_packs.rows("train"), ladder=(), evals_per_trial=2)
        return TrialSpec(name, trial, plan, small_packs.root, str(tmp_path / name), None, 1)

    alone: list[dict[str, Any]] = []
    run_trial(spec(one, "one"), alone.append, torch.device("cpu"))

    file = tmp_path / "reports.jsonl"
    TorchTrainer(
        train_worker,
        train_loop_config=spec(two, "two").to_json(),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=str(tmp_path / "train"), callbacks=[Keep(str(file))]),
    ).fit()
    reports = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    first, second = ([report[rank] for report in reports] for rank in (0, 1))

    assert small_packs.rows("eval") % 2 == 1  # the workers' shares of an evaluation differ
    assert [m["step"] for m in first] == [m["step"] for m in alone]
    assert first[0]["eval_loss"] == pytest.approx(alone[0]["eval_loss"], abs=1e-6)
    for mine, other, expected in zip(first, second, alone, strict=True):
        assert mine["eval_loss"] == other["eval_loss"]
        assert mine["eval_loss"] == pytest.approx(expected["eval_loss"], abs=1e-4)
        for name in ("rows", "tokens", "supervised_tokens"):
            assert mine[name] == expected[name]
    curve, expected_curve = first[1]["curve"], alone[1]["curve"]
    for (step, loss, rate, norm), (step_1, loss_1, rate_1, norm_1) in zip(
        curve, expected_curve, strict=True
    ):
        assert (step, rate) == (step_1, rate_1)
        assert loss == pytest.approx(loss_1, abs=1e-5)
        assert norm == pytest.approx(norm_1, rel=1e-3)
    assert first[-1]["outcome"] == "completed"
