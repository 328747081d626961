"""What a slot leaves behind: its samples and checkpoints, and the reports that follow them.

Promise: in order for each trial, and no report before what it tells of is on storage. With an
executor the bank trains meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import dataclass, replace

from torch import Tensor

from sftray.errors import OutageError, SftrayError
from sftray.plan.lora_targets import INSIDE
from sftray.storage.journal.event_types import OUTAGE, Outcome
from sftray.storage.paths import TrialPaths
from sftray.trainers.bank.adapters import Layout, export_row
from sftray.trainers.bank.slot import Slot
from sftray.trainers.bank.transfer import Snapshot
from sftray.trial import checkpoint as checkpoints
from sftray.trial.lora_adapter import lora_config, only_inside
from sftray.trial.progress import TrialState
from sftray.trial.samples import Sample, keep
from sftray.trial.trial_report import Report


@dataclass(frozen=True)
class Position:
    """What a checkpoint is made of."""

    snapshot: Snapshot
    """Of the adapter and its moments."""
    state: TrialState


class CheckpointWriter:
    """For the slots of one bank."""

    def __init__(self, layout: Layout, executor: Executor | None = None) -> None:
        """Without an executor, writes at once."""
        self._layout, self._executor = layout, executor
        self._handed: deque[Future[None]] = deque()

    def hand_over(
        self,
        slot: Slot,
        report: Report | None,
        samples: Sequence[Sample] = (),
        position: Position | None = None,
    ) -> None:
        """Write samples and a checkpoint, if any, and then report, if anything; behind what this
        trial has handed over before."""
        before = slot.written

        def work() -> None:
            if before is not None:
                before.result()
            self._write(slot, report, samples, position)

        if self._executor is None:
            work()
        else:
            slot.written = self._executor.submit(work)
            self._handed.append(slot.written)

    def raise_failures(self) -> None:
        """What nobody has foreseen breaks the bank, and is reported."""
        while self._handed and self._handed[0].done():
            self._handed.popleft().result()

    def _write(
        self,
        slot: Slot,
        report: Report | None,
        samples: Sequence[Sample],
        position: Position | None,
    ) -> None:
        try:
            with nullcontext() if position is None else position.snapshot.values() as values:
                if slot.lost:
                    return
                keep(slot.spec.folder, samples)
                if position is not None and values is not None:
                    self._save(slot, values, position.state)
        except (OSError, SftrayError) as error:
            slot.lost = True
            outcome = OUTAGE if isinstance(error, OutageError) else Outcome.FAILED
            slot.report(Report(outcome=outcome, message=f"its checkpoint: {error}"))
            return
        if report is not None:
            slot.report(report)

    def _save(self, slot: Slot, values_3P: Tensor, state: TrialState) -> None:
        trial = slot.spec.config
        targets = only_inside(slot.targets) if INSIDE in self._layout.path else slot.targets
        config = replace(
            lora_config(trial), base_model_name_or_path=trial.model, target_modules=targets
        )
        tensors = export_row(self._layout, values_3P, trial.lora_r, slot.targets, state["step"])
        checkpoints.save(TrialPaths(slot.spec.folder), config, *tensors, state)
