"""A rung's annealed branch in `train`: a loop of its own on the trial's weights.

Promise: the steps of a bank's branch, and whatever ends them, the trial's weights, moments and
rates are afterwards what they were. Price: a copy of them on the host.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import torch
from trl import SFTTrainer

from sftray.config import TrialConfig
from sftray.plan.rungs import Rung
from sftray.plan.trial_plan import TrialPlan, branch_rate
from sftray.trial.lora_adapter import trained_parameters


def branch_loss(
    trainer: SFTTrainer,
    trial: TrialConfig,
    plan: TrialPlan,
    rung: Rung,
    took: Callable[[float], None],
    stepped: Callable[[], bool],
) -> float:
    """The eval loss of the branch that leaves after `rung.step`, where the trainer stands; NaN
    where it diverged. After every step `took` gets its seconds and `stepped` is called; what that
    says is left alone, because the rung's checkpoint is there."""
    with _parked(trainer):
        for step in range(rung.step + 1, rung.step + rung.branch_steps + 1):
            started = time.perf_counter()
            for group in trainer.optimizer.param_groups:
                group["lr"] = branch_rate(trial, plan, rung, step)
            norm = _take_step(trainer, trial, plan, step)
            took(time.perf_counter() - started)
            stepped()
            if not math.isfinite(norm):
                return math.nan
        return float(trainer.evaluate()["eval_loss"])


def seed_dropout(seed: int, steps_done: int, worker: int) -> None:
    """Seed a step's dropout by what it is, so that a resumed trial draws what it would have."""
    torch.manual_seed((seed * 1_000_003 + steps_done) * 4_099 + worker)


def _take_step(trainer: SFTTrainer, trial: TrialConfig, plan: TrialPlan, step: int) -> float:
    """Optimizer step `step` of the trial's stream, counted from 1; the gradient's norm."""
    model, args, micro = trainer.model_wrapped, trainer.args, plan.micro_batch_size
    seed_dropout(trial.seed, step - 1, args.process_index)
    begins = (step - 1) * trial.effective_batch_size + args.process_index * micro
    starts = (begins + number * args.world_size * micro for number in range(plan.accumulation))
    rows = ([trainer.train_dataset[start + k] for k in range(micro)] for start in starts)
    batches, items = trainer.get_batch_samples(
        map(trainer.data_collator, rows), plan.accumulation, args.device
    )
    for number, batch in enumerate(batches, start=1):
        last = number == len(batches)
        with contextlib.nullcontext() if last else trainer.accelerator.no_sync(model):
            trainer.training_step(model, batch, items)
    norm = float(trainer._clip_grad_norm(model))
    trainer.optimizer.step()
    model.zero_grad()
    return norm


@contextlib.contextmanager
def _parked(trainer: SFTTrainer) -> Iterator[None]:
    """With a copy of what is trained on the host, from which it is put back."""
    trained = list(trained_parameters(trainer.model).values())
    moments = (trainer.optimizer.optimizer.state[one].values() for one in trained)
    tensors = [*trained, *(tensor for state in moments for tensor in state)]
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    copies = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        trainer.model_wrapped.zero_grad()
