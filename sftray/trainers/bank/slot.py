"""A slot: one adapter's place in a bank, from lease to last evaluation."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from sftray.plan.trial_plan import learning_rate
from sftray.trainers.bank.adapters import AdapterState
from sftray.trainers.bank.slot_optimizer import table_row
from sftray.trial.progress import Progress, Reporter
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec


@dataclass(eq=False)
class Slot:
    """A trial in the bank, or about to enter it."""

    spec: TrialSpec
    order: np.ndarray
    """Row numbers of the trial's whole stream, [plan.rows]."""
    progress: Progress
    row: AdapterState | None
    """The adapter to start from; None once it is in the bank."""
    report: Reporter
    targets: Sequence[str]
    """The projections that it adapts."""
    step: int = 0
    micro_steps: int = 0
    """Micro-batches since the last optimizer step."""
    tokens: int = 0
    """Supervised tokens in them."""
    resumed: bool = False
    waiting: bool = False
    """At a rung, for the search's decision."""
    written: Future[None] | None = None
    """Its newest checkpoint and report, on their way."""
    lost: bool = False
    """A checkpoint could not be written."""
    asked: float = field(default_factory=time.perf_counter)

    def take_row(self) -> AdapterState:
        """The adapter to start from, which is the bank's from now on."""
        row, self.row = self.row, None
        if row is None:
            raise ValueError(f"{self.spec.trial}: is in the bank")
        return row


@dataclass
class Usage:
    """What a bank has spent its time on, in seconds."""

    warm_up: float = 0.0
    """Until the end of the first micro-step: trials come, kernels are compiled, graphs captured."""
    training: float = 0.0
    """In training steps after that."""
    evaluation: float = 0.0
    """In evaluations, checkpoints' copies and samples."""
    admission: float = 0.0
    """Putting adapters into slots."""
    admitted: int = 0
    micro_steps: int = 0
    slot_steps: int = 0
    """Micro-steps × slots that had something to train."""


@dataclass(frozen=True)
class SlotStep:
    """An optimizer step of a slot, on its way through the device."""

    slot: Slot
    step: int
    rate: float
    tokens: int


def slot_update(slot: Slot) -> tuple[list[float], SlotStep]:
    """What the optimizer needs for a slot's step, and what comes back with its result."""
    trial, step = slot.spec.config, slot.step + 1
    rate = learning_rate(trial, slot.spec.plan, step)
    return table_row(trial, step, rate, slot.tokens), SlotStep(slot, step, rate, slot.tokens)


def rung_of(slot: Slot) -> tuple[str, int] | None:
    """The bracket and rows of the rung that a trial has come to, if it has."""
    plan = slot.spec.plan
    rows = [rung.rows for rung in plan.rungs if rung.step == slot.step]
    return (plan.bracket, rows[0]) if rows else None


def rung_peers(
    slot: Slot, together: Sequence[tuple[Slot, Report]]
) -> list[tuple[str, float]] | None:
    """Of trials that report together those that are judged with this one, and by which loss or
    metric; None where it is at no rung."""
    if (rung := rung_of(slot)) is None:
        return None
    values = [
        (
            other.spec.trial,
            report.answers.metric if other.spec.judges_metric else report.metrics.get("eval_loss"),
        )
        for other, report in together
        if other is not slot and rung_of(other) == rung and report.metrics is not None
    ]
    return [(name, one) for name, one in values if one is not None and math.isfinite(one)]


def dropout_seed(seed: int, place: int) -> int:
    """The seed of the dropout of the row at `place` of a trial's stream; 63 bits."""
    digest = hashlib.blake2b(f"{seed}/{place}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
