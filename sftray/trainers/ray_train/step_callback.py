"""What `sft_trainer` does around every training step."""

from __future__ import annotations

import time

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig, SFTTrainer


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Times training steps, asks for an evaluation and a checkpoint after the plan's, and seeds
    dropout by (seed, step, worker), so that a resumed trial draws what it would have drawn."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        seed = self.trainer.trial_config.seed
        torch.manual_seed((seed * 1_000_003 + state.global_step) * 4_099 + args.process_index)

    def on_step_end(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        control.should_log = True
        evaluated = state.global_step in self.trainer.plan.eval_steps
        control.should_evaluate = control.should_save = evaluated
        passed = time.perf_counter() - self.trainer.step_started
        self.trainer.seconds += passed
        self.trainer.progress.seconds += passed
        self.trainer.progress.gpu_seconds += passed * self.trainer.trial_config.num_workers
