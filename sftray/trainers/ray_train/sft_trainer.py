"""TRL's SFTTrainer over packed rows, with what a comparison of trials needs on top of it:
one row order, exact eval loss, float32 weights, checkpoints that resume exactly.

Promise: optimizer step s takes rows [sB, (s+1)B) of the stream; the loss of a step is the mean
over its supervised tokens on all workers; eval loss is the sum of token losses over the number of
supervised tokens, whatever the micro-batch or the number of workers.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerState,
)
from transformers.integrations.liger import apply_liger_kernel
from trl import SFTTrainer

from sftray.config import TrialConfig
from sftray.data.chat.token_kinds import KINDS
from sftray.data.packs.packs import MappedRows, Packs
from sftray.plan.trial_plan import TrialPlan
from sftray.storage.journal.event_types import RanWith
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train.fused_lora import fuse_lora
from sftray.trainers.ray_train.sft_arguments import liger_works, sft_arguments
from sftray.trainers.ray_train.sharded_base import mean_of_gradients, shard_base
from sftray.trainers.ray_train.step_callback import StepCallback
from sftray.trainers.ray_train.trl_private import fused_lm_head
from sftray.trial import checkpoint as checkpoints
from sftray.trial.attention import Attention
from sftray.trial.collate import collate, model_inputs
from sftray.trial.eval_losses import EvalLoss
from sftray.trial.gpu_energy import GpuEnergy
from sftray.trial.gpu_memory import peak_memory_gb
from sftray.trial.lora_adapter import (
    init_adapters,
    lora_config,
    require_float32,
    train_all,
    trained_parameters,
)
from sftray.trial.progress import Progress, Reporter
from sftray.trial.row_order import row_order
from sftray.trial.trial_report import Answers


class PackedSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that trains one trial to its plan and reports every evaluation.

    `report` gets the metrics of docs/architecture.md; on rank 0 only, after the checkpoint of that
    step is on storage, so that whatever has been reported can be resumed from. `stepped` is called
    after every step and every batch of an evaluation, and says whether to save at once. `answer`
    has the model answer prompts after an evaluation before the last.
    """

    _checkpoint: checkpoints.Checkpoint
    """What it trains from, if there is one."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        trial: TrialConfig,
        plan: TrialPlan,
        packs: Packs,
        attention: Attention,
        paths: TrialPaths,
        report: Reporter,
        scratch: Path,
        stepped: Callable[[], bool] = lambda: False,
        answer: Callable[[PackedSFTTrainer], Answers] = lambda trainer: Answers(),
    ) -> None:
        self.stepped, self.answer = stepped, answer
        self.plan, self.trial_config, self.paths = plan, trial, paths
        self.attention, self.report = attention, report
        self.seconds = self.data_seconds = 0.0
        """In training steps since this trainer was made, and in fetching their rows."""
        rows, held_out = (packs.dataset(one).with_format("numpy") for one in ("train", "eval"))
        order = row_order(packs.source_rows("train"), plan, trial.seed)
        self._eval_edges = np.cumsum([0, *packs.source_rows("eval")]).tolist()
        self.progress = Progress(trial, plan, MappedRows(rows).tokens()[order])
        self.liger = liger_works(model)
        """Norms, rotary and SwiGLU are Liger's."""
        # PEFT 0.21 still asks for the old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        super().__init__(
            model=model,
            args=sft_arguments(trial, plan, scratch, model),
            data_collator=functools.partial(collate, layout=attention.layout),
            train_dataset=rows.select(order),
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=None if trial.finetune == "full" else lora_config(trial, model),
            callbacks=[StepCallback(self)],
        )
        base = self.model
        if trial.finetune == "full":
            train_all(self.model)
        else:
            init_adapters(self.model, trial.seed)  # TRL has cast them to bfloat16 by now
            fuse_lora(self.model)
            base = self.model.get_base_model()
        if trial.shard_base:
            shard_base(self.model)
            # it is no model for DDP any more: adapters are averaged before they are clipped
            self.accelerator.prepare_model = functools.partial(
                self.accelerator.prepare_model, evaluation_mode=True
            )
        # TRL's own head also computes entropy and accuracy, which nobody reads here
        fused_lm_head()(base, outputs=("log_probs",))
        self._energy = GpuEnergy(self.args.device)

    def train_from(
        self, checkpoint: checkpoints.Checkpoint | None, facts: RanWith | None = None
    ) -> None:
        """Train to the end of the plan, from the checkpoint's exact next row if there is one.

        `progress` stands there already. `facts`: what the next report says besides. Raises
        DivergedError at the step where loss or gradient norm stops being finite.
        """
        self._facts: RanWith = facts or {}
        if self.liger:  # its own head would take the place of TRL's, its experts that of PEFT's
            swiglu = not self.trial_config.lora_target_parameters
            kernels = {"fused_linear_cross_entropy": False, "swiglu": swiglu}
            apply_liger_kernel(self.model, kernels)
        if checkpoint is None:
            self.train()
            return
        self._checkpoint = checkpoint
        position = TrainerState(
            global_step=checkpoint.step,
            train_batch_size=self.args.per_device_train_batch_size,
            logging_steps=1,
        )
        position.save_to_json(str(Path(self.args.output_dir) / "trainer_state.json"))
        self.train(resume_from_checkpoint=self.args.output_dir)

    def rescue(self, folder: Path) -> checkpoints.Checkpoint | None:
        """Where training stands after it has run out of memory in the middle of a step, as a
        checkpoint in `folder`; None where only the last one on storage can be continued: before
        the first step, or between a step and its evaluation."""
        step = self.state.global_step
        if step == 0 or step != self.progress.state()["step"]:
            return None
        if step in self.plan.eval_steps and step != self.progress.last["step"]:
            return None
        paths = TrialPaths(str(folder))
        self._write(paths)
        return checkpoints.newest(paths, folder)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The sum of token losses over the supervised tokens of the whole step, on all workers.

        TRL's, without the metrics for which it waits for the GPU four times a micro-batch.
        """
        total = sum(
            model(**part, use_cache=False, fused_lm_head=True).log_probs.sum()
            for part in model_inputs(inputs)
        )
        loss: Tensor = -total / torch.as_tensor(num_items_in_batch).clamp(min=1)
        workers: int = self.accelerator.num_processes
        return loss * workers  # DDP takes the mean of the gradients

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        if self.trial_config.shard_base:
            mean_of_gradients(list(trained_parameters(self.model).values()))
        norm: Tensor = super()._clip_grad_norm(model)
        return norm

    @torch.no_grad()
    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        """{"eval_loss"}: sum of token losses / number of supervised tokens of the eval packs, of
        several sources their mean."""
        self.model.eval()
        sums = torch.stack([self._eval_sums(range(*edge)) for edge in pairwise(self._eval_edges)])
        self.model.train()
        if self.args.world_size > 1:
            dist.all_reduce(sums)
        edge = 1 + len(KINDS)
        counts = sums[:, edge:].long().tolist()
        self.last_eval_loss = EvalLoss.of(sums[:, :edge].tolist(), counts, self.plan.mixture)
        return {"eval_loss": self.last_eval_loss.mean}

    def _eval_sums(self, numbers: range) -> Tensor:
        """Of this worker's share of some rows of the eval packs: the sum of all losses, sums by
        kind, tokens by kind. Worker w of n takes rows w, w + n, …"""
        rows, workers, number = self.eval_dataset, self.args.world_size, len(KINDS)
        sums = torch.zeros(1 + 2 * number, dtype=torch.float64, device=self.args.device)
        mine = numbers[self.args.process_index :: workers]
        most = -(-len(numbers) // workers)  # workers of a spread base step together
        for start in range(0, most, self.plan.micro_batch_size):
            indices = mine[start : start + self.plan.micro_batch_size]
            picked = [rows[i] for i in indices] or [rows[0]]
            batch = collate(picked, self.attention.layout, kinds=True)
            self.stepped()
            batch = self._prepare_inputs(batch)
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
                for part in model_inputs(batch):
                    kinds = part.pop("kinds")[:, 1:].reshape(-1)
                    outputs = self.model(**part, fused_lm_head=True)
                    if indices:
                        losses = -outputs.log_probs.double().reshape(-1)
                        sums[0] += losses.sum()
                        sums.index_add_(0, 1 + kinds, losses)
                        trained = outputs.label_mask.reshape(-1).double()
                        sums.index_add_(0, 1 + number + kinds, trained)
        return sums

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep the step's numbers; raise DivergedError at the first that is not finite."""
        self._metrics["train"].clear()  # TRL's own running means, not used here
        if "loss" not in logs:
            return
        self.progress.trained(
            self.state.global_step,
            logs["loss"],
            logs["learning_rate"],
            logs["grad_norm"],
            self._step_tokens,
        )
        if self.stepped() and self.state.global_step not in self.plan.eval_steps:
            self._take_energy()
            self._write(self.paths)

    def get_batch_samples(
        self, *args: object, **kwargs: object
    ) -> tuple[list[Mapping[str, Tensor]], Tensor]:
        """The micro-batches of one optimizer step, counted on the way."""
        self.step_started = time.perf_counter()
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.data_seconds += time.perf_counter() - self.step_started
        self._step_tokens = int(items)
        return batches, items

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, made only after what it trains is known to be float32."""
        require_float32(self.model)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Write our checkpoint instead of transformers' and report the evaluation it belongs to."""
        step = self.state.global_step
        memory = peak_memory_gb(self.args.device)
        data_wait = self.data_seconds / max(self.seconds, 1e-9)
        facts, self._facts = self._facts, {}
        self._take_energy()
        report = self.progress.evaluated(step, self.last_eval_loss, memory, data_wait, facts)
        if step < self.plan.steps:
            report = replace(report, answers=self.answer(self))
        if self.is_world_process_zero():
            self._write(self.paths)
        self.report(report)

    def _take_energy(self) -> None:
        """Of all workers' GPUs, where each one's is counted."""
        taken = self._energy.taken()
        if self.args.world_size > 1:
            total = torch.tensor(math.nan if taken is None else taken, device=self.args.device)
            dist.all_reduce(total)
            taken = None if total.isnan() else total.item()
        self.progress.took(taken)

    def _write(self, paths: TrialPaths) -> None:
        if self.trial_config.finetune == "full":
            moments = checkpoints.moments(self.model, self.optimizer)
            checkpoints.save_model(paths, self.model, moments, self.progress.state())
            return
        adapter, moments = checkpoints.tensors(self.model, self.optimizer)
        config = self.model.peft_config["default"]
        checkpoints.save(paths, config, adapter, moments, self.progress.state())

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        full = self.trial_config.finetune == "full"
        load = checkpoints.load_model if full else checkpoints.load_adapter
        load(self.model, self._checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        checkpoints.load_moments(self.model, self.optimizer.optimizer, self._checkpoint)
        step = self._checkpoint.step
        rates = [
            base * factor(step)
            for base, factor in zip(
                self.lr_scheduler.base_lrs, self.lr_scheduler.lr_lambdas, strict=True
            )
        ]
        place = {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates}
        self.lr_scheduler.load_state_dict({**self.lr_scheduler.state_dict(), **place})
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        require_float32(self.model)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: dropout is seeded at every step."""
