"""A trial and its attempts: when memory runs out, the next takes less."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sftray.data.packs.packs import Packs, open_packs
from sftray.plan.effective_batch import Execution
from sftray.plan.out_of_memory import in_less_memory
from sftray.storage import files
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train.base_cache import Bases
from sftray.trainers.ray_train.sft_trainer import PackedSFTTrainer
from sftray.trial import checkpoint as checkpoints
from sftray.trial.attention import Attention, choose_attention
from sftray.trial.base_model import load_tokenizer
from sftray.trial.generation import reply
from sftray.trial.gpu_memory import free_memory, is_out_of_memory
from sftray.trial.progress import DivergedError, Report, StoppedError
from sftray.trial.samples import Reply, judged, keep, prompts_at
from sftray.trial.trial_spec import TrialSpec


class NothingLessError(torch.OutOfMemoryError):
    """A trial of several workers has run out of memory, and nothing is left that takes less."""


def run_trial(
    spec: TrialSpec,
    report: Report,
    device: torch.device,
    bases: Bases | None = None,
    stepped: Callable[[], bool] = lambda: False,
) -> None:
    """Run a trial from its newest checkpoint, or from the start, to its end.

    Every evaluation is reported with the metrics of docs/architecture.md; the last report carries
    "outcome" (completed, diverged, out_of_memory) and "message". A trial that runs out of memory
    goes on from the step it was at as `in_less_memory` says, and its next report tells so. Where it
    has several workers, of whom one cannot stop the others, this raises torch.OutOfMemoryError, and
    the trial is to be started again; or NothingLessError. What `report` raises ends the trial and
    is raised here. With `bases` the next trial gets this one's base. `stepped` is told of every
    step, and says whether to save at once.
    """
    bases = bases or Bases()
    spec, because = _as_it_fits(spec)
    rescued: checkpoints.Checkpoint | None = None
    with tempfile.TemporaryDirectory() as temporary:
        for number in itertools.count():
            scratch = Path(temporary) / str(number)
            attempt = _Attempt(spec, report, device, scratch, because, bases, stepped)
            because = attempt.run(rescued)
            if not because:
                return
            less, alone = in_less_memory(spec.plan, spec.config), spec.config.num_workers == 1
            if less is None and not alone:
                raise NothingLessError(because)
            if less is None:
                report(attempt.ended("out_of_memory", because))
                return
            spec = replace(spec, plan=less)
            _remember(spec, because)
            if not alone:
                raise torch.OutOfMemoryError(because)
            rescued = attempt.rescued
            del attempt
            free_memory()


class _Attempt:
    """A trial under one plan, until its end or until it runs out of memory."""

    def __init__(
        self,
        spec: TrialSpec,
        report: Report,
        device: torch.device,
        scratch: Path,
        because: str,
        bases: Bases,
        stepped: Callable[[], bool],
    ) -> None:
        """`because`: what was said when a plan that needs more memory was given up; or empty."""
        self._spec, self._report, self._device = spec, report, device
        self._scratch, self._because, self._bases = scratch, because, bases
        self._stepped = stepped
        self._trainer: PackedSFTTrainer | None = None
        self.rescued: checkpoints.Checkpoint | None = None
        """Where it stood when it ran out of memory, if more than what is on storage is known."""

    def run(self, rescued: checkpoints.Checkpoint | None) -> str:
        """Train to the end, from `rescued`, else from the newest checkpoint; returns what was said
        if memory ran out, else nothing."""
        try:
            self._train(rescued)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self._trainer is not None:
                self.rescued = self._trainer.rescue(self._scratch.parent / "rescued")
            return str(error).splitlines()[0]
        return ""

    def ended(self, outcome: str, message: str) -> dict[str, Any]:
        """The trial's last report."""
        if self._trainer is not None and self._trainer.progress.last:
            return self._trainer.progress.ended(outcome, message)
        return {"outcome": outcome, "message": message}

    def _train(self, rescued: checkpoints.Checkpoint | None) -> None:
        started = time.perf_counter()
        spec, trial = self._spec, self._spec.config
        self._scratch.mkdir()
        packs = open_packs(spec.packs)
        chosen = choose_attention(trial, self._device)
        model, attention, isolation = self._bases.take(
            trial, self._device, chosen, resident=spec.plan.execution.resident
        )
        trainer = self._trainer = PackedSFTTrainer(
            model,
            load_tokenizer(trial, packs.chat_template),
            trial,
            spec.plan,
            {split: packs.dataset(split).with_format("numpy") for split in ("train", "eval")},
            attention,
            TrialPaths(spec.folder),
            self._report,
            self._scratch,
            self._stepped,
        )
        trainer.answer = lambda step: self._answer(packs, step) if step < spec.plan.steps else {}
        facts = self._facts(attention, isolation)
        checkpoint = rescued or checkpoints.newest(
            TrialPaths(spec.folder), self._scratch / "checkpoints"
        )
        facts["startup_seconds"] = time.perf_counter() - started
        if checkpoint is not None:
            trainer.progress.resume(checkpoint.state)
        if rescued is not None:
            trainer.facts = facts
        try:
            if checkpoint is None:
                self._report(_first_metrics(trainer, spec, facts))
            elif rescued is None:
                for metrics in trainer.progress.again(facts):
                    self._report(metrics)
            self._finish(trainer, packs, checkpoint)
        except StoppedError:
            self._bases.keep(trainer.model, attention, isolation, trial)
            raise
        self._bases.keep(trainer.model, attention, isolation, trial)

    def _finish(
        self, trainer: PackedSFTTrainer, packs: Packs, checkpoint: checkpoints.Checkpoint | None
    ) -> None:
        """Train to the end of the plan, write samples and say how it ended."""
        outcome, message, answered = "completed", "", {}
        try:
            trainer.train_from(checkpoint)
        except DivergedError as error:
            outcome, message = "diverged", str(error)
        if outcome == "completed":
            answered = self._answer(packs, trainer.state.global_step)
        self._report(self.ended(outcome, message) | answered)

    def _answer(self, packs: Packs, step: int) -> dict[str, Any]:
        """Have the model answer what it is asked after `step`, if anything; what is to be reported
        of it. One worker does, while the others wait for its report; of a base that is spread over
        them all do, of whom the others only help to compute."""
        trainer, spec = self._trainer, self._spec
        assert trainer is not None
        first = trainer.is_world_process_zero()
        prompts = prompts_at(spec, packs, step)
        if not prompts or not (first or spec.config.shard_base):
            return {}
        asked = [prompt["messages"] for prompt in prompts]
        replies = _replies(trainer, packs.end_of_turn, asked)
        samples, told = judged(spec, prompts, step, replies)
        if first:
            keep(spec.folder, samples)
        return told

    def _facts(self, attention: Attention, isolation: float) -> dict[str, Any]:
        """What the trial runs with."""
        trainer, plan = self._trainer, self._spec.plan
        assert trainer is not None
        on_gpu = self._device.type == "cuda"
        parameters = trainer.model.parameters()
        return {
            "attention": attention.name,
            **({"attention_because": attention.because} if attention.because else {}),
            "isolation_max_change": isolation,
            "device": torch.cuda.get_device_name(self._device) if on_gpu else "cpu",
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "activation_checkpointing": plan.execution.activation_checkpointing,
            "resident_base": plan.execution.resident,
            "liger": trainer.liger,
            "micro_batch_size": plan.micro_batch_size,
            "accumulation": plan.accumulation,
            "placement_group": _placement_group(),
            **({"out_of_memory": self._because} if self._because else {}),
        }


def _as_it_fits(spec: TrialSpec) -> tuple[TrialSpec, str]:
    """The trial as it was last found to fit, and what was said when it did not."""
    path = TrialPaths(spec.folder).execution
    if not files.exists(path):
        return spec, ""
    found = json.loads(files.read_text(path))
    execution = Execution(**found["execution"])
    share = spec.plan.micro_batch_size * spec.plan.accumulation
    plan = replace(spec.plan, execution=execution, accumulation=share // execution.micro_batch_size)
    return replace(spec, plan=plan), found["because"]


def _remember(spec: TrialSpec, because: str) -> None:
    """For whoever starts this trial again."""
    found = {"execution": asdict(spec.plan.execution), "because": because}
    files.write_text(TrialPaths(spec.folder).execution, json.dumps(found, indent=1))


def _placement_group() -> str | None:
    """The id of the worker's placement group, by which the driver frees it if Ray does not."""
    import ray
    from ray.util import get_current_placement_group

    group = get_current_placement_group() if ray.is_initialized() else None
    return None if group is None else str(group.id.hex())


def _first_metrics(
    trainer: PackedSFTTrainer, spec: TrialSpec, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Step 0: the base's eval loss, and what the trial runs with."""
    loss = _known_base_loss(spec)
    if loss is None:
        loss = trainer.evaluate()["eval_loss"]
    return {**trainer.progress.start(loss), **facts}


def _known_base_loss(spec: TrialSpec) -> float | None:
    """What the leaderboard says, as the first worker reads it: it may be written meanwhile, and
    all workers must evaluate or none."""
    found = [spec.known_base_loss()]
    if dist.is_initialized():
        dist.broadcast_object_list(found, src=0)
    return found[0]


@torch.no_grad()
def _replies(trainer: PackedSFTTrainer, end_of_turn: int, prompts: Sequence[Any]) -> list[Reply]:
    model = trainer.model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=trainer.args.bf16):
        tokenizer = trainer.processing_class
        replies = [reply(model, tokenizer, messages, end_of_turn) for messages in prompts]
    model.train()
    return replies
