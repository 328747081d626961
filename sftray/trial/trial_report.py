"""What a trial reports: an evaluation, its end, or an attempt that was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sftray.errors import BrokenBaseError, OutageError, UnfitTrainerError
from sftray.storage.journal import event_types
from sftray.storage.journal.event_types import BROKEN_BASE, OUTAGE, UNFIT_TRAINER, Metrics


def halt_of(error: BaseException) -> str | None:
    """Which of HALTS an error means for the sweep; None where it is its trial's own."""
    if isinstance(error, OutageError):
        return OUTAGE
    if isinstance(error, BrokenBaseError):
        return BROKEN_BASE
    return UNFIT_TRAINER if isinstance(error, UnfitTrainerError) else None


@dataclass(frozen=True)
class Answers:
    """What is reported of a trial's answers to its prompts."""

    flags: Sequence[list[str]] = ()
    """Those of each answer that is kept."""
    metric: float | None = None


@dataclass(frozen=True)
class Report:
    metrics: Metrics | None = None
    """None of a trial or an attempt that ended without an evaluation."""
    outcome: str | None = None
    """Of the trial's last report."""
    message: str = ""
    interrupted: str | None = None
    """ "failed", "preempted" or SUSPENDED: an attempt has died, and another continues."""
    last_curve: list[list[float]] | None = None
    """What was trained after the last evaluation, where a trial diverged."""
    waits: bool = False
    """The trial is at a rung, and waits there until the search has decided."""
    peers: Sequence[tuple[str, float]] | None = None
    """Trials that came to the same rung at the same moment, and their losses."""
    answers: Answers = Answers()
    taken_back: bool = False
    """No report, but a notice: its machine is about to be taken back."""

    def measured(self) -> event_types.ReportValues:
        """Without how the trial ended."""
        values: dict[str, object] = {**(self.metrics or {})}
        if self.peers is not None:  # pairs: Tune would take a dictionary apart
            values["rung_peers"] = [list(pair) for pair in self.peers]
        if self.answers.flags:
            values["answer_flags"] = self.answers.flags
        if self.answers.metric is not None:
            values["metric"] = self.answers.metric
        if self.last_curve is not None:
            values["last_curve"] = self.last_curve
        return cast(event_types.ReportValues, values)

    def values(self) -> event_types.ReportValues:
        """As Tune and the recorder take it: in one dictionary."""
        values = self.measured()
        if self.outcome is not None:
            values["outcome"] = self.outcome
        if self.interrupted is not None:
            values["interrupted"] = self.interrupted
        if self.outcome is not None or self.interrupted is not None:
            values["message"] = self.message
        return values
