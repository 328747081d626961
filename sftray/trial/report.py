"""What a trial reports: an evaluation, its end, or an attempt that was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict


class Metrics(TypedDict, total=False):
    """The metrics of docs/architecture.md, and what a trial runs with."""

    step: int
    rows: int
    epoch: float
    tokens: int
    supervised_tokens: int
    train_loss: float
    eval_loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    gpu_memory_gb: float
    seconds: float
    gpu_seconds: float
    micro_batch_size: int
    curve: list[list[float]]
    last_curve: list[list[float]]
    data_wait: float
    resumed_from_step: int
    attention: str
    attention_because: str
    isolation_max_change: float
    device: str
    trained_parameters: int
    activation_checkpointing: bool
    resident_base: bool
    liger: bool
    accumulation: int
    bank_slots: int
    placement_group: str | None
    out_of_memory: str
    startup_seconds: float


@dataclass(frozen=True)
class Answers:
    """What is reported of a trial's answers to its prompts."""

    flags: Sequence[Sequence[str]] = ()
    """Those of each answer that is kept."""
    metric: float | None = None


@dataclass(frozen=True)
class Report:
    metrics: Metrics = field(default_factory=Metrics)
    outcome: str | None = None
    """Of the trial's last report."""
    message: str = ""
    interrupted: str | None = None
    """ "failed" or "preempted": an attempt has died, and another continues."""
    waits: bool = False
    """The trial is at a rung, and waits there until the search has decided."""
    peers: Sequence[tuple[str, float]] | None = None
    """Trials that came to the same rung at the same moment, and their losses."""
    answers: Answers = Answers()
    taken_back: bool = False
    """No report, but a notice: its machine is about to be taken back."""

    def measured(self) -> dict[str, object]:
        """The metrics as the journal has them."""
        values: dict[str, object] = {**self.metrics}
        if self.peers is not None:  # pairs: Tune would take a dictionary apart
            values["rung_peers"] = [list(pair) for pair in self.peers]
        if self.answers.flags:
            values["answer_flags"] = [list(flags) for flags in self.answers.flags]
        if self.answers.metric is not None:
            values["metric"] = self.answers.metric
        return values

    def values(self) -> dict[str, object]:
        """The whole report as Tune takes it."""
        values = self.measured()
        if self.outcome is not None:
            values |= {"outcome": self.outcome, "message": self.message}
        if self.interrupted is not None:
            values |= {"interrupted": self.interrupted, "message": self.message}
        return values
