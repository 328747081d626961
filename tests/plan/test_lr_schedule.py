"""The rates of both trainers against transformers' own schedules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_trials import TRIAL, make_sweep
from transformers import PretrainedConfig, PreTrainedModel, get_scheduler

from sftray.config import choice
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import learning_rate, plan_trial, planner
from sftray.trainers.ray_train.sft_arguments import sft_arguments


class Nothing(PreTrainedModel):
    config_class = PretrainedConfig

    def __init__(self) -> None:
        super().__init__(PretrainedConfig())
        self.weight = torch.nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0.0, 0.05])
@pytest.mark.parametrize(
    ("schedule", "share"), [("cosine", 0.2), ("linear", 0.2), ("wsd", 0.2), ("wsd", 0.97)]
)
def test_the_rates_are_those_of_transformers(
    tmp_path: Path, schedule: str, share: float, warmup: float, floor: float
) -> None:
    trial = replace(
        TRIAL,
        lr_scheduler=schedule,
        lr_decay_ratio=share,
        warmup_ratio=warmup,
        min_lr_ratio=floor,
        effective_batch_size=1,
    )
    plan = plan_trial(trial, 60, ladder=(), evals_per_trial=1, execution=ONE_ROW)
    model = Nothing()
    arguments = sft_arguments(trial, plan, tmp_path, model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate)
    theirs = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=plan.warmup_steps,
        num_training_steps=plan.steps,
        scheduler_specific_kwargs=dict(arguments.lr_scheduler_kwargs),
    )
    for step in range(1, plan.steps + 1):
        assert learning_rate(trial, plan, step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_trials_are_compared_only_with_those_of_their_schedule() -> None:
    space = {"lr_scheduler": choice(["cosine", "linear", "wsd"])}
    sweep = make_sweep(trial=replace(TRIAL, effective_batch_size=1), search_space=space)
    plan = planner(sweep, 60, execution=ONE_ROW)
    brackets = [
        plan(sweep.trial.at({"lr_scheduler": one})).bracket
        for one in space["lr_scheduler"].finite_values() or ()
    ]
    assert brackets == ["1 epochs", "1 epochs, linear", "1 epochs, wsd"]
