"""Does a trial learn in the bank what it learns by SFTTrainer? Eval losses of the same points by
both trainers, beside what another seed changes.

    python benchmarks/equivalence.py

Four points of different learning rate, effective batch, rank, weight decay, warm-up and epochs, on
the bundled base and chats, in one bank and one by one by the `train` trainer; the latter with two
seeds. In bfloat16 on a GPU, in float32 on a CPU. The bank agrees if its distance from the same seed
by SFTTrainer is within the spread of the two seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from console import argument_parser, say

from sftray.config import DataConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.data.pipeline import packs_from
from sftray.data.recipe import make_recipe
from sftray.demo import FOLDER
from sftray.plan.bank_settings import BankSettings
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial.eval_loss import default_device
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec

BASE = TrialConfig(str(FOLDER), lora_r=8)
Reports = list[dict[str, Any]]


def main() -> None:
    options = _options()
    device = default_device()
    with tempfile.TemporaryDirectory() as storage:
        packs = _packs(storage)
        trials = _trials(options.epochs)
        specs = [_spec(packs, trial, f"{storage}/bank-{k}") for k, trial in enumerate(trials)]
        banked = _by_bank(packs, specs, device)
        say(f"{'':44}{'evaluation':>11}{'bank':>9}{'SFTTrainer':>12}{'other seed':>12}{'':>4}")
        for k, (trial, by_bank) in enumerate(zip(trials, banked, strict=True)):
            alone, seeded = (
                _by_train(_spec(packs, replace(trial, seed=seed), f"{storage}/{k}-{seed}"), device)
                for seed in (0, 1)
            )
            for ours, theirs, other in zip(by_bank[1:-1], alone[1:-1], seeded[1:-1], strict=True):
                losses = [report["eval_loss"] for report in (ours, theirs, other)]
                agrees = abs(losses[0] - losses[1]) <= abs(losses[1] - losses[2])
                say(
                    f"{_words(trial):44}{'step ' + str(ours['step']):>11}{losses[0]:9.4f}"
                    f"{losses[1]:12.4f}{losses[2]:12.4f}  {'ok' if agrees else 'NO'}"
                )


def _trials(epochs: float) -> list[TrialConfig]:
    points = [
        {"learning_rate": 2e-3, "effective_batch_size": 1, "num_train_epochs": epochs},
        {"learning_rate": 4e-3, "effective_batch_size": 2, "num_train_epochs": 2 * epochs},
        {"learning_rate": 8e-3, "effective_batch_size": 2, "lora_r": 4, "weight_decay": 0.1},
        {"learning_rate": 4e-3, "effective_batch_size": 4, "warmup_ratio": 0.2},
    ]
    return [BASE.at({"num_train_epochs": 3 * epochs, **point}) for point in points]


def _packs(storage: str) -> Packs:
    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    data = DataConfig(
        str(FOLDER / "chats.jsonl"),
        max_length=512,
        num_eval_conversations=100,
        test_fraction=0.0,
    )
    packs = packs_from(make_recipe(data, BASE.model), storage=storage)
    ray.shutdown()
    return packs


def _spec(packs: Packs, trial: TrialConfig, folder: str) -> TrialSpec:
    rows = packs.rows("train")
    plan = plan_trial(trial, rows, ladder=(), evals_per_trial=3, execution=Execution(1))
    return TrialSpec(Path(folder).name, trial, plan, packs.root, folder, None, 0)


def _by_bank(packs: Packs, specs: list[TrialSpec], device: torch.device) -> list[Reports]:
    settings = BankSettings(
        slots=len(specs),
        micro_batch_size=1,
        lora_r=8,
        dropout=False,
        resident=True,
        activation_checkpointing=False,
        memory_gb=0.0,
    )
    engine = Engine(load_model(BASE, device), BASE, packs, settings, device)
    reports: list[Reports] = [[] for _ in specs]
    for spec, found in zip(specs, reports, strict=True):
        engine.admit(engine.prepare(spec, _into(found)))
    while engine.advance():
        pass
    return reports


def _by_train(spec: TrialSpec, device: torch.device) -> Reports:
    reports: Reports = []
    run_trial(spec, _into(reports), device)
    return reports


def _into(reports: Reports) -> Callable[[Report], None]:
    return lambda report: reports.append(report.values())


def _words(trial: TrialConfig) -> str:
    return (
        f"rate {trial.learning_rate:g}, batch {trial.effective_batch_size}, rank {trial.lora_r}, "
        f"{trial.num_train_epochs:g} epochs"
    )


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--epochs", type=float, default=0.2, help="of the first point")
    return parser.parse_args()


if __name__ == "__main__":
    main()
