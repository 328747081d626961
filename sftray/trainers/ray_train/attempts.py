"""A trial and its attempts: when memory runs out, the next takes less."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypedDict

import torch

from sftray.data.packs.packs import open_packs
from sftray.plan.effective_batch import Execution
from sftray.plan.out_of_memory import in_less_memory
from sftray.storage import files
from sftray.storage.journal.event_types import Outcome, RanWith
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train.base_cache import Bases
from sftray.trainers.ray_train.sft_trainer import PackedSFTTrainer
from sftray.trial import checkpoint as checkpoints
from sftray.trial.base_model import load_tokenizer
from sftray.trial.eval_losses import EvalLoss
from sftray.trial.generation import replies
from sftray.trial.gpu_memory import free_memory, is_out_of_memory
from sftray.trial.progress import DivergedError, Reporter, StoppedError
from sftray.trial.proof import Proof
from sftray.trial.samples import (
    Reply,
    judged,
    keep,
    prompt_tokens,
    prompts_at,
    tokens_at,
)
from sftray.trial.trial_report import Answers, Report
from sftray.trial.trial_spec import TrialSpec


class NothingLessError(torch.OutOfMemoryError):
    """A trial of several workers has run out of memory, and nothing is left that takes less."""


def run_trial(
    spec: TrialSpec,
    report: Reporter,
    device: torch.device,
    bases: Bases | None = None,
    stepped: Callable[[], bool] = lambda: False,
) -> None:
    """Run a trial from its newest checkpoint, or from the start, to its end.

    Every evaluation is reported with the metrics of docs/architecture.md; the last report has an
    outcome (completed, diverged, out_of_memory). A trial that runs out of memory continues from the
    step it was at as `in_less_memory` says, and its next report says so. Where it has several
    workers, of whom one cannot stop the others, this raises torch.OutOfMemoryError, and the trial
    is to be started again; or NothingLessError. What `report` raises ends the trial and is raised
    here. With `bases` the next trial gets this one's base. `stepped` is called after every step,
    and says whether to save at once.
    """
    bases = bases or Bases()
    spec, reason = _as_it_fits(spec)
    rescued: checkpoints.Checkpoint | None = None
    with tempfile.TemporaryDirectory() as temporary:
        for number in itertools.count():
            scratch = Path(temporary) / str(number)
            attempt = _Attempt(spec, report, device, scratch, reason, bases, stepped)
            reason = attempt.run(rescued)
            if not reason:
                return
            less, alone = in_less_memory(spec.plan, spec.config), spec.config.num_workers == 1
            if less is None and not alone:
                raise NothingLessError(reason)
            if less is None:
                report(attempt.out_of_memory(reason))
                return
            spec = replace(spec, plan=less)
            _remember(spec, reason)
            if not alone:
                raise torch.OutOfMemoryError(reason)
            rescued = attempt.rescued
            del attempt
            free_memory()


class _Attempt:
    """A trial under one plan, until its end or until it runs out of memory."""

    def __init__(
        self,
        spec: TrialSpec,
        report: Reporter,
        device: torch.device,
        scratch: Path,
        reason: str,
        bases: Bases,
        stepped: Callable[[], bool],
    ) -> None:
        """`reason`: why a plan that needs more memory was given up; or empty."""
        self._spec, self._report, self._device = spec, report, device
        self._scratch, self._reason, self._bases = scratch, reason, bases
        self._stepped = stepped
        self._packs = open_packs(spec.packs)
        self._trainer: PackedSFTTrainer | None = None
        """None until there is room for it."""
        self.rescued: checkpoints.Checkpoint | None = None
        """Where it stood when it ran out of memory, if more than what is on storage is known."""

    def run(self, rescued: checkpoints.Checkpoint | None) -> str:
        """Train to the end, from `rescued`, else from the newest checkpoint; returns why, if memory
        ran out, else nothing."""
        try:
            self._train(rescued)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self._trainer is not None:
                self.rescued = self._trainer.rescue(self._scratch.parent / "rescued")
            return str(error).splitlines()[0]
        return ""

    def out_of_memory(self, reason: str) -> Report:
        """The last report of a trial for which no memory is little enough."""
        if self._trainer is None:
            return Report(outcome=Outcome.OUT_OF_MEMORY, message=reason)
        return self._trainer.progress.ended(Outcome.OUT_OF_MEMORY, reason)

    def _train(self, rescued: checkpoints.Checkpoint | None) -> None:
        started = time.perf_counter()
        spec, trial, packs = self._spec, self._spec.config, self._packs
        self._scratch.mkdir()
        model, proof = self._bases.take(
            trial, self._device, packs.max_length, resident=spec.plan.execution.resident
        )
        trainer = self._trainer = PackedSFTTrainer(
            model,
            load_tokenizer(trial, packs.chat_template),
            trial,
            spec.plan,
            packs,
            proof.attention,
            TrialPaths(spec.folder),
            self._report,
            self._scratch,
            self._stepped,
            self._answer,
        )
        facts = self._facts(trainer, proof)
        checkpoint = rescued or checkpoints.newest(
            TrialPaths(spec.folder), self._scratch / "checkpoints"
        )
        facts["startup_seconds"] = time.perf_counter() - started
        if checkpoint is not None:
            trainer.progress.resume(checkpoint.state)
        try:
            if checkpoint is None:
                if spec.base_eval_loss is None:
                    trainer.evaluate()
                    base = trainer.last_eval_loss
                else:
                    base = EvalLoss(spec.base_eval_loss)
                self._report(trainer.progress.start(base, facts))
            elif rescued is None:
                for report in trainer.progress.again(facts):
                    self._report(report)
            self._finish(trainer, checkpoint, {} if rescued is None else facts)
        except StoppedError:
            self._bases.keep(trainer.model, proof, trial)
            raise
        self._bases.keep(trainer.model, proof, trial)

    def _finish(
        self,
        trainer: PackedSFTTrainer,
        checkpoint: checkpoints.Checkpoint | None,
        facts: RanWith,
    ) -> None:
        """Train to the end of the plan, write samples and say how it ended."""
        try:
            trainer.train_from(checkpoint, facts)
        except DivergedError as error:
            self._report(trainer.progress.ended(Outcome.DIVERGED, str(error)))
            return
        answers = self._answer(trainer)
        self._report(replace(trainer.progress.ended(Outcome.COMPLETED), answers=answers))

    def _answer(self, trainer: PackedSFTTrainer) -> Answers:
        """Have the model answer what it is asked after this step, if anything; what is to be
        reported of it. One worker does, while the others wait for its report; of a base that is
        spread over them all do, of whom the others only help to compute."""
        spec, step = self._spec, trainer.state.global_step
        first = trainer.is_world_process_zero()
        prompts = prompts_at(spec, self._packs, step)
        if not prompts or not (first or spec.config.shard_base):
            return Answers()
        asked = prompt_tokens(self._packs, prompts)
        most = tokens_at(spec, self._packs, step)
        replies = _replies(trainer, self._packs.end_of_turn, asked, most)
        samples, answers = judged(spec, prompts, step, replies)
        if first:
            keep(spec.folder, samples)
        return answers

    def _facts(self, trainer: PackedSFTTrainer, proof: Proof) -> RanWith:
        """What the trial runs with."""
        plan, attention = self._spec.plan, trainer.attention
        on_gpu = self._device.type == "cuda"
        parameters = trainer.model.parameters()
        facts: RanWith = {"attention": attention.name}
        if attention.reason:
            facts["attention_because"] = attention.reason
        facts |= {
            "equality": proof.equality.text(),
            "isolation_max_change": proof.isolation,
            "device": torch.cuda.get_device_name(self._device) if on_gpu else "cpu",
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "activation_checkpointing": plan.execution.activation_checkpointing,
            "resident_base": plan.execution.resident,
            "liger": trainer.liger,
            "micro_batch_size": plan.micro_batch_size,
            "accumulation": plan.accumulation,
            "placement_group": _placement_group(),
        }
        if self._reason:
            facts["out_of_memory"] = self._reason
        return facts


class _Remembered(TypedDict):
    """execution.json: what a trial was found to fit the memory with."""

    execution: dict[str, int | bool]
    reason: str


def _as_it_fits(spec: TrialSpec) -> tuple[TrialSpec, str]:
    """The trial as it was last found to fit, and the message when it did not."""
    path = TrialPaths(spec.folder).execution
    if not files.exists(path):
        return spec, ""
    remembered: _Remembered = json.loads(files.read_text(path))
    execution = Execution(**remembered["execution"])  # type: ignore[arg-type]
    share = spec.plan.micro_batch_size * spec.plan.accumulation
    plan = replace(spec.plan, execution=execution, accumulation=share // execution.micro_batch_size)
    return replace(spec, plan=plan), remembered["reason"]


def _remember(spec: TrialSpec, reason: str) -> None:
    """For whoever starts this trial again."""
    remembered: _Remembered = {"execution": asdict(spec.plan.execution), "reason": reason}
    files.write_text(TrialPaths(spec.folder).execution, json.dumps(remembered, indent=1))


def _placement_group() -> str | None:
    """The id of the worker's placement group, by which the driver frees it if Ray does not."""
    import ray
    from ray.util import get_current_placement_group

    group = get_current_placement_group() if ray.is_initialized() else None
    return None if group is None else str(group.id.hex())


@torch.no_grad()
def _replies(
    trainer: PackedSFTTrainer, end_of_turn: int, prompts: Sequence[Sequence[int]], most: int
) -> list[Reply]:
    model = trainer.model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=trainer.args.bf16):
        tokenizer = trainer.processing_class
        answers = replies(model, tokenizer, prompts, end_of_turn, most)
    model.train()
    return answers
