"""The bank: many trials trained at once on one frozen base, in one process and one thread.

Promise: every trial takes the steps that it would take alone, reports what the `train` trainer
reports and leaves the same checkpoints; it never trains past a rung before the search has decided.
A trial that meets NaN ends, its neighbours do not notice. Price: slots that wait run idle rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sftray.config import TrialConfig
from sftray.data.packs.packs import MappedRows, Packs
from sftray.errors import ConfigError
from sftray.metrics import answer_tokens
from sftray.plan.bank_settings import BankSettings
from sftray.plan.trainer_choice import target_projections
from sftray.storage.journal.event_types import Outcome
from sftray.storage.paths import TrialPaths
from sftray.trainers.bank.adapters import (
    Adapters,
    AdapterState,
    fresh_row,
    import_row,
    lay_out,
)
from sftray.trainers.bank.admission import admitted_targets, ran_with
from sftray.trainers.bank.batches import PackedRow, idle_row, read_row
from sftray.trainers.bank.checkpoint_writer import CheckpointWriter, Position
from sftray.trainers.bank.cuda_graphs import Graphs
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.decoder_proof import begin_proof
from sftray.trainers.bank.evaluation import EvalPass
from sftray.trainers.bank.frozen_base import take_base
from sftray.trainers.bank.micro_steps import Steps, capacities
from sftray.trainers.bank.slot import (
    Slot,
    SlotStep,
    Usage,
    dropout_seed,
    rung_of,
    rung_peers,
    slot_update,
)
from sftray.trainers.bank.slot_answers import Answered, SlotAnswers
from sftray.trainers.bank.slot_optimizer import Optimizer
from sftray.trial import checkpoint as checkpoints
from sftray.trial.base_model import compute_dtype
from sftray.trial.eval_losses import EvalLoss
from sftray.trial.generation import end_tokens
from sftray.trial.gpu_energy import GpuEnergy
from sftray.trial.gpu_memory import peak_memory_gb
from sftray.trial.progress import DivergedError, Progress, Reporter
from sftray.trial.row_order import row_order
from sftray.trial.trial_report import Answers, Report
from sftray.trial.trial_spec import TrialSpec


class Engine:
    """K slots over one base."""

    def __init__(
        self,
        model: PreTrainedModel,
        trial: TrialConfig,
        packs: Packs,
        settings: BankSettings,
        device: torch.device,
        writer: Executor | None = None,
    ) -> None:
        """`model` is `load_model`'s, taken apart here; `trial` what the trials have in common. With
        a `writer`, its threads write checkpoints and report, in order for each trial."""
        self.settings, self._trial, self._packs = settings, trial, packs
        dtype = compute_dtype(trial, device)
        ends = end_tokens(model, packs.end_of_turn)
        end_proof = begin_proof(model, trial, packs.max_length, resident=settings.resident)
        base = take_base(model, dtype, resident=settings.resident)
        targets = target_projections(settings.lora_target_modules, base.shape.groups)
        if targets is None:
            raise ConfigError("lora_target_modules: a bank cannot train them; use --trainer train")
        layout = lay_out(base.shape, targets, settings.lora_r)
        self._train, evals = (MappedRows(packs.dataset(split)) for split in ("train", "eval"))
        self._row_tokens = self._train.tokens()
        longest = answer_tokens(one["reference_tokens"] for one in packs.manifest["sample_prompts"])
        self._decoder = Decoder(base, layout, packs.max_length, trial.attention, longest)
        self._proof = end_proof(self._decoder)
        self._adapters = Adapters(layout, settings.slots, dtype, device)
        self._optimizer: Optimizer[SlotStep] = Optimizer(self._adapters)
        self._writer = CheckpointWriter(layout, writer)
        count = settings.slots * settings.micro_batch_size
        graphs = Graphs() if device.type == "cuda" else None
        self._steps = Steps(
            self._decoder,
            self._adapters,
            self._optimizer.loss,
            rows=settings.micro_batch_size,
            recompute=settings.activation_checkpointing,
            capacities=capacities(self._train, count) if graphs else (),
            graphs=graphs,
            dropout=settings.dropout,
        )
        self._slots: list[Slot | None] = [None] * settings.slots
        self._evaluation = EvalPass(self._decoder, evals, packs.source_rows("eval"), count, graphs)
        self._base_loss: EvalLoss | None = None
        self._idle = idle_row(packs.max_length)
        self._device = device
        self._answers = SlotAnswers(self._decoder, self._adapters, packs, trial, ends)
        self._energy = GpuEnergy(device)
        self.usage = Usage()
        self._built = time.perf_counter()

    @property
    def age(self) -> float:
        """Seconds since the bank was built."""
        return time.perf_counter() - self._built

    @property
    def free(self) -> int:
        """Slots that no trial holds."""
        return sum(slot is None for slot in self._slots)

    def prepare(self, spec: TrialSpec, report: Reporter) -> Slot:
        """Read or make a trial's adapter, without the device: any thread may call it.

        Raises ConfigError where the bank was not built for such a trial, CheckpointError where its
        newest checkpoint is another's.
        """
        plan, trial, layout = spec.plan, spec.config, self._adapters.layout
        targets = admitted_targets(spec, self.settings, layout, self._decoder.base.shape.groups)
        order = row_order(self._packs.source_rows("train"), plan, trial.seed)
        progress = Progress(trial, plan, self._row_tokens[order])
        with tempfile.TemporaryDirectory() as scratch:
            newest = checkpoints.newest(TrialPaths(spec.folder), Path(scratch))
            if newest is None:
                row = self._pinned(fresh_row(layout, trial.lora_r, trial.seed, targets))
                return Slot(spec, order, progress, row, report, targets)
            adapter, moments = checkpoints.load_tensors(newest)
            progress.resume(newest.state)
            row = self._pinned(import_row(layout, trial.lora_r, targets, adapter, moments))
        slot = Slot(spec, order, progress, row, report, targets, step=newest.step, resumed=True)
        slot.waiting = rung_of(slot) is not None  # it may have ended before the search had decided
        return slot

    def admit(self, slot: Slot) -> None:
        """Put a prepared trial into a free slot; its first report is the base's eval loss, or the
        evaluation that it continues from."""
        started = time.perf_counter()
        place, trial = self._slots.index(None), slot.spec.config
        self._adapters.admit(place, slot.take_row(), trial.lora_scale)
        self._optimizer.loss[place] = 0  # what a trial that left between two steps had summed up
        if self._steps.rate is not None:
            self._steps.rate.view(len(self._slots), -1)[place] = trial.lora_dropout
        self._slots[place] = slot
        self.usage.admission += time.perf_counter() - started
        self.usage.admitted += 1
        facts = ran_with(slot.spec, slot.targets, self.settings, self._decoder, self._proof)
        facts["startup_seconds"] = time.perf_counter() - slot.asked
        if slot.resumed:
            reports = slot.progress.again(facts)
        else:
            reports = [slot.progress.start(self._loss_of_base(slot.spec), facts)]
        for report in reports:
            self._writer.hand_over(slot, report)
        if slot.step == slot.spec.plan.steps:
            self._end(slot, Outcome.COMPLETED)

    def _pinned(self, row: AdapterState) -> AdapterState:
        return row.pinned() if self._device.type == "cuda" else row

    def go_on(self, slot: Slot) -> None:
        """The search lets a trial that waits at a rung continue."""
        slot.waiting = False

    def drop(self, slot: Slot) -> None:
        """Free the slot of a trial that the search has stopped, or whose client is gone."""
        if slot in self._slots:
            self._slots[self._slots.index(slot)] = None

    def save(self) -> None:
        """Checkpoint every trial where it stands, between two evaluations."""
        self._settle(wait=True)
        for place, slot in enumerate(self._slots):
            if slot is not None and slot.step > slot.progress.last["step"]:
                position = Position(self._adapters.take(place), slot.progress.state())
                self._writer.hand_over(slot, None, position=position)

    def advance(self) -> bool:
        """One micro-step of all trials that are not waiting, and what it makes due; False if there
        are none."""
        self._writer.raise_failures()
        for lost in [slot for slot in self._slots if slot is not None and slot.lost]:
            self.drop(lost)
        running = [slot for slot in self._slots if slot is not None and not slot.waiting]
        if not running:
            self._energy.taken()  # of nobody
            return False
        started = time.perf_counter()
        rows, seeds = self._rows()
        self._steps.run(rows, seeds)
        due = [slot for slot in running if slot.micro_steps == slot.spec.plan.accumulation]
        if due:
            self._optimizer.step({self._slots.index(slot): slot_update(slot) for slot in due})
        for slot in due:
            slot.step, slot.micro_steps, slot.tokens = slot.step + 1, 0, 0
        to_evaluate = [slot for slot in due if slot.step in slot.spec.plan.eval_steps]
        self._settle(wait=bool(to_evaluate))
        now, energy = time.perf_counter(), self._energy.taken()
        for slot in running:
            slot.progress.seconds += now - started
            slot.progress.gpu_seconds += (now - started) / len(running)
            slot.progress.took(energy and energy / len(running))
        self._evaluate([slot for slot in to_evaluate if slot in self._slots])
        if self.usage.micro_steps:
            self.usage.training += now - started
        else:
            self.usage.warm_up = now - self._built
        self.usage.evaluation += time.perf_counter() - now
        self.usage.micro_steps += 1
        self.usage.slot_steps += len(running)
        return True

    def _rows(self) -> tuple[list[PackedRow], list[int] | None]:
        """The next micro-batch of every slot, and the seeds of its dropout."""
        size = self.settings.micro_batch_size
        rows, seeds = [], []
        for slot in self._slots:
            if slot is None or slot.waiting:
                rows += [self._idle] * size
                seeds += [0] * size
                continue
            trial = slot.spec.config
            start = slot.step * trial.effective_batch_size + slot.micro_steps * size
            fresh = [read_row(self._train[int(i)]) for i in slot.order[start : start + size]]
            slot.micro_steps += 1
            slot.tokens += sum(len(row.where) for row in fresh)
            rows += fresh
            if self.settings.dropout:
                seeds += [dropout_seed(trial.seed, place) for place in range(start, start + size)]
        return rows, seeds if self.settings.dropout else None

    def _settle(self, *, wait: bool) -> None:
        """Take the optimizer steps into account whose loss and norm have come back."""
        for done, loss, norm in self._optimizer.done(wait=wait):
            if done.slot not in self._slots:
                continue
            try:
                done.slot.progress.trained(done.step, loss, done.rate, norm, done.tokens)
            except DivergedError as error:
                self._end(done.slot, Outcome.DIVERGED, str(error))

    def _evaluate(self, slots: Sequence[Slot]) -> None:
        """Measure eval losses; then checkpoint, report, and wait at a rung or end."""
        works = [self._adapters.work[self._slots.index(slot)] for slot in slots]
        mixture = slots[0].spec.plan.mixture if slots else ()  # the sweep's
        together: list[tuple[Slot, Report, Position]] = []
        for slot, loss in zip(slots, self._evaluation.losses(works, mixture), strict=True):
            report = slot.progress.evaluated(slot.step, loss, peak_memory_gb(self._device))
            snapshot = self._adapters.take(self._slots.index(slot))
            together.append((slot, report, Position(snapshot, slot.progress.state())))
        answered = self._answer([one for one, _, _ in together if one.step < one.spec.plan.steps])
        reports = [
            (slot, replace(report, answers=answered.get(slot, ([], Answers()))[1]))
            for slot, report, _ in together
        ]
        for (slot, report), (_, _, written) in zip(reports, together, strict=True):
            samples, _ = answered.get(slot, ([], None))
            report = replace(report, peers=rung_peers(slot, reports))
            slot.waiting = report.waits
            self._writer.hand_over(slot, report, samples, written)
            if slot.step == slot.spec.plan.steps and slot in self._slots:
                self._end(slot, Outcome.COMPLETED)

    def _loss_of_base(self, spec: TrialSpec) -> EvalLoss:
        """The untrained base's eval loss: measured once a bank, or by an earlier trial."""
        if self._base_loss is None and spec.base_eval_loss is not None:
            self._base_loss = EvalLoss(spec.base_eval_loss)
        if self._base_loss is None:
            nothing = torch.zeros_like(self._adapters.work[0])
            self._base_loss = self._evaluation.losses([nothing], spec.plan.mixture)[0]
        return self._base_loss

    def _end(self, slot: Slot, outcome: str, message: str = "") -> None:
        """Free the slot; its last report goes out behind its checkpoints."""
        place = self._slots.index(slot)
        answered = self._answer([slot]) if outcome == Outcome.COMPLETED else {}
        samples, answers = answered.get(slot, ([], Answers()))
        self._slots[place] = None
        report = replace(slot.progress.ended(outcome, message), answers=answers)
        self._writer.hand_over(slot, report, samples)

    def _answer(self, slots: Sequence[Slot]) -> Answered:
        return self._answers.of({slot: self._slots.index(slot) for slot in slots})
