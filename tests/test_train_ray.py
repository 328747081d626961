"""One trial on several Ray Train workers is the trial on one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from ray.train import RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from sftray.budget import Execution, plan_trial
from sftray.config import SweepConfig, TrialConfig
from sftray.data.packs import Packs
from sftray.train.trial import train_trial
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


STEPS = 20
"""Over which losses are compared."""


@pytest.fixture(scope="module")
def trial(small_packs: Packs, small_sweep_config: SweepConfig) -> TrialConfig:
    rows = small_packs.rows("train")
    return replace(
        small_sweep_config.trial,
        effective_batch_size=4,
        lora_dropout=0.0,
        learning_rate=4e-3,
        num_train_epochs=4 * STEPS / rows,
    )


def spec_of(trial: TrialConfig, packs: Packs, folder: Path, rows: int = 1) -> TrialSpec:
    plan = plan_trial(
        trial, packs.rows("train"), ladder=(), evals_per_trial=2, execution=Execution(rows)
    )
    return TrialSpec(folder.name, trial, plan, packs.root, str(folder), None, 1)


@pytest.fixture(scope="module")
def alone(
    trial: TrialConfig, small_packs: Packs, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What the trial reports that runs in one process."""
    reports: list[dict[str, Any]] = []
    folder = tmp_path_factory.mktemp("one") / "one"
    run_trial(spec_of(trial, small_packs, folder), reports.append, torch.device("cpu"))
    return reports


def curve_of(reports: list[dict[str, Any]]) -> list[tuple[int, float, float, float]]:
    return [tuple(entry) for report in reports for entry in report.get("curve", [])]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("workers", [2, 4])
def test_more_workers_train_as_one_at_the_same_effective_batch(
    workers: int,
    alone: list[dict[str, Any]],
    trial: TrialConfig,
    small_packs: Packs,
    tmp_path: Path,
) -> None:
    file = tmp_path / "reports.jsonl"
    spec = spec_of(replace(trial, num_workers=workers), small_packs, tmp_path / "more")
    TorchTrainer(
        train_worker,
        train_loop_config=spec.to_json(),
        scaling_config=ScalingConfig(
            num_workers=workers, resources_per_worker={"CPU": 2 / workers - 0.01}
        ),
        run_config=RunConfig(storage_path=str(tmp_path / "train"), callbacks=[Keep(str(file))]),
    ).fit()
    lines = file.read_text(encoding="utf-8").splitlines()
    by_worker = list(zip(*[json.loads(line) for line in lines], strict=True))
    assert len(by_worker) == workers

    assert small_packs.rows("eval") % workers  # the workers' shares of an evaluation differ
    for found in by_worker:
        assert [m["step"] for m in found] == [m["step"] for m in alone]
        for mine, first, expected in zip(found, by_worker[0], alone, strict=True):
            assert mine["eval_loss"] == first["eval_loss"]
            assert mine["eval_loss"] == pytest.approx(expected["eval_loss"], abs=1e-4)
            for name in ("rows", "tokens", "supervised_tokens"):
                assert mine[name] == expected[name]
    assert by_worker[0][0]["eval_loss"] == pytest.approx(alone[0]["eval_loss"], abs=1e-6)
    curve, expected_curve = curve_of(list(by_worker[0])), curve_of(alone)
    assert len(curve) >= STEPS
    for (step, loss, rate, norm), (step_1, loss_1, rate_1, norm_1) in zip(
        curve, expected_curve, strict=True
    ):
        assert (step, rate) == (step_1, rate_1)
        assert loss == pytest.approx(loss_1, abs=1e-5)
        assert norm == pytest.approx(norm_1, rel=1e-3)
    assert by_worker[0][-1]["outcome"] == "completed"


def work_with_little_memory(config: dict[str, Any]) -> None:
    """A worker whose device has room for one row."""
    import torch

    from sftray.train.trainer import PackedSFTTrainer

    plain = PackedSFTTrainer.compute_loss

    def compute_loss(trainer: Any, *arguments: Any, **named: Any) -> Any:
        rows = trainer.plan.micro_batch_size
        if rows > 1 and trainer.args.process_index == 1:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {rows} rows")
        return plain(trainer, *arguments, **named)

    PackedSFTTrainer.compute_loss = compute_loss
    try:
        train_worker(config)
    finally:
        PackedSFTTrainer.compute_loss = plain


@pytest.mark.timeout(400)
def test_workers_of_whom_one_runs_out_of_memory_start_again_with_less(
    alone: list[dict[str, Any]], trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    spec = spec_of(replace(trial, num_workers=2), small_packs, tmp_path / "little", rows=2)
    trainable = tune.with_parameters(
        train_trial,
        to_spec=lambda suggestion: spec,
        scaling={"num_workers": 2, "resources_per_worker": {"CPU": 0.9}},
        max_failures=0,
        work=work_with_little_memory,
    )
    found = tune.Tuner(
        tune.with_resources(trainable, {"node:__internal_head__": 0.001}),
        param_space={"trial": "t0000", "point": {}},
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    last = found[0].metrics
    assert last["outcome"] == "completed"
    assert last["micro_batch_size"] == 1
    assert last["eval_loss"] == pytest.approx(alone[-1]["eval_loss"], abs=1e-4)
