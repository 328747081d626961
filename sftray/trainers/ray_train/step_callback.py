"""What `sft_trainer` does around every training step."""

from __future__ import annotations

import time

from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig, SFTTrainer

from sftray.trainers.ray_train.annealed_branch import seed_dropout


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Times and seeds training steps, asks for an evaluation and a checkpoint after the plan's."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if self.trainer.held_back is not None:
            self.trainer.report_behind_branch(self.trainer.held_back)

    def on_step_begin(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        seed_dropout(self.trainer.trial_config.seed, state.global_step, args.process_index)

    def on_step_end(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        control.should_log = True
        evaluated = state.global_step in self.trainer.plan.eval_steps
        control.should_evaluate = control.should_save = evaluated
        self.trainer.took(time.perf_counter() - self.trainer.step_started)
