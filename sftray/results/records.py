"""What a journal says of each trial, as plain values.

Promise: right while the sweep runs, too, and at the cost of what the journal has got since.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sftray.config.checks import is_number
from sftray.config.points import Point
from sftray.errors import JournalError
from sftray.storage.journal import Event, reader
from sftray.storage.journal.event_types import (
    AttemptEnded,
    AttemptStarted,
    Curve,
    EventName,
    Metrics,
    RungDecision,
)

Floats = NDArray[np.float64]
_NOTHING: Metrics = {
    "step": 0, "rows": 0, "tokens": 0, "supervised_tokens": 0, "eval_loss": math.nan, "seconds": 0.0
}  # fmt: skip


@dataclass
class TrialRecord:
    """What the journal says of one trial."""

    trial: str
    point: Point
    results: list[Metrics] = field(default_factory=list)
    """The metrics of every evaluation, oldest first; step 0 is the base."""
    times: list[float | None] = field(default_factory=list)
    """When each of `results` was journalled, in seconds since the epoch."""
    decisions: list[RungDecision] = field(default_factory=list)
    outcome: str | None = None
    message: str = ""
    confirms: str | None = None
    """The trial that it repeats with another seed."""
    last_curve: list[list[float]] = field(default_factory=list)
    """The `curve` of the steps after the last evaluation, of a trial that diverged there."""
    metric: float | None = None
    """What `SweepConfig.metric` said of its answers when they were scored last."""
    last_flags: list[list[str]] | None = None
    """The flags of the answers that it gave at its end (`trial.samples`)."""
    folder: str | None = None
    """Where it ran, if that was another sweep."""
    attempts: list[AttemptStarted | AttemptEnded] = field(default_factory=list)
    """When attempts started and ended, and of what."""
    ended: float | None = None
    """When it ended, in seconds since the epoch."""
    bank_rate: float | None = None
    """Device seconds that its bank took for a row, all its trials together; None outside of one."""
    bank_energy: float | None = None
    """And watt-hours, where they are measured."""

    @property
    def trained(self) -> list[Metrics]:
        """The evaluations of the adapter: after the start, and finite."""
        return [r for r in self.results if r["step"] > 0 and math.isfinite(r["eval_loss"])]

    @property
    def best(self) -> Metrics | None:
        """The evaluation with the lowest finite loss after the start."""
        return min(self.trained, key=lambda r: float(r["eval_loss"]), default=None)

    @property
    def last(self) -> Metrics:
        """The newest evaluation; zeros before the first."""
        return self.results[-1] if self.results else _NOTHING

    def flags_at(self, step: int) -> list[list[str]]:
        """The flags of each of its answers after `step`, where it was asked then, else at its end;
        empty where it never was."""
        flags = [r.get("answer_flags") for r in self.results if r["step"] == step]
        return next(filter(None, flags), self.last_flags or [])

    @property
    def gpu_seconds(self) -> float:
        """In training steps so far, times workers; of a bank's what its rows cost there, so that a
        point costs the same whatever trains beside it; seconds where the sweep is older than
        that."""
        if self.bank_rate is not None:
            return self.bank_rate * self.last["rows"]
        known = self.last.get("gpu_seconds")
        return float(self.last["seconds"] if known is None else known)

    @property
    def energy_wh(self) -> float | None:
        """Watt-hours that its GPUs have counted, shared in a bank as `gpu_seconds` are."""
        if self.bank_energy is not None:
            return self.bank_energy * self.last["rows"]
        return self.last.get("energy_wh")


def read_records(path: str) -> Records:
    """The trials of a journal that another process may be writing. Of a long one a part is read at
    a time, and a curve is kept as an array: a sixth of the room."""
    records = Records()
    for batch in reader(path).batches():
        for event in batch:
            if event["event"] == EventName.RESULT and (curve := event["metrics"].get("curve")):
                event["metrics"]["curve"] = points_of(curve)
        records.add(batch)
    return records


def points_of(curve: Curve | None) -> Floats:
    """[step, train loss, learning rate, gradient norm] of each step, NaN where one is missing."""
    if isinstance(curve, np.ndarray):
        return curve
    try:
        points = np.array(curve or [], dtype=float).reshape(-1, 4)
    except (ValueError, TypeError, OverflowError):  # not four each, or no numbers
        whole = [[as_number(one) for one in entry] for entry in curve or () if len(entry) == 4]
        points = np.array(whole, dtype=float).reshape(-1, 4)
    return np.asarray(points[np.isfinite(points[:, 0])], dtype=float)


def as_number(value: object) -> float:
    """A number of a journal; NaN where it is none, or one of 400 digits."""
    try:
        return float(value) if is_number(value) else math.nan
    except OverflowError:
        return math.nan


def as_reported(metrics: Metrics) -> Metrics:
    """Metrics that were read as they were reported."""
    return {**metrics, "curve": points_of(metrics.get("curve")).tolist()}


class Records:
    """The trials of a journal as it grows."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._trials: dict[str, TrialRecord] = {}
        self.budget_spent = ""
        """The budget that has ended the sweep before its time, as the field is called."""
        self.base_doubted = ""
        """Why the base, its template or its attention must be broken; or nothing."""
        self.ended = False
        """Whether the sweep has come to its end."""
        self.add(events)

    def __contains__(self, trial: str | None) -> bool:
        return trial in self._trials

    def __getitem__(self, trial: str) -> TrialRecord:
        return self._trials[trial]

    @property
    def trials(self) -> list[TrialRecord]:
        """In the order they were suggested."""
        return list(self._trials.values())

    def add(self, events: Iterable[Event]) -> None:
        """Take what the journal has got since."""
        for event in events:
            match event["event"]:
                case EventName.BASE_DOUBTED:
                    self.base_doubted = event["message"]
                case EventName.SPENT:
                    self.budget_spent = event["budget"]
                case EventName.SWEEP_ENDED:
                    self.ended = True
                case EventName.TRIAL_SUGGESTED if event["trial"] not in self._trials:
                    self._trials[event["trial"]] = TrialRecord(
                        event["trial"],
                        event["point"],
                        confirms=event.get("confirms"),
                        folder=event.get("folder"),
                    )
                case _ if event["trial"] in self._trials:
                    _apply(self._trials[event["trial"]], event)
        self._price_rows()

    def _price_rows(self) -> None:
        """A pass of a bank is as long as its slots are many: its time is shared by all rows."""
        banked = [
            trial
            for trial in self._trials.values()
            if trial.folder is None and trial.results and trial.results[0].get("bank_slots")
        ]
        rows = sum(trial.last["rows"] for trial in banked)
        seconds = sum(trial.last.get("gpu_seconds", 0.0) for trial in banked)
        energy = [wh for trial in banked if (wh := trial.last.get("energy_wh")) is not None]
        for trial in banked:
            trial.bank_rate = seconds / rows if rows else None
            trial.bank_energy = sum(energy) / rows if rows and energy else None

    @property
    def base(self) -> Metrics | None:
        """The untrained base's evaluation: the first at step 0 of any trial."""
        results = (one for trial in self._trials.values() for one in trial.results)
        return next((one for one in results if one["step"] == 0), None)

    def base_eval_loss(self) -> float | None:
        """Its loss."""
        return None if (base := self.base) is None else float(base["eval_loss"])


def by_source(metrics: Metrics | None) -> dict[str, float]:
    """The eval loss of each source; empty where there is one."""
    of = metrics.get("eval_loss_by_source", ()) if metrics else ()
    return {name: loss for name, loss, _ in of}


def _apply(trial: TrialRecord, event: Event) -> None:
    match event["event"]:
        case EventName.RESULT:
            if missing := [name for name in _NOTHING if event["metrics"].get(name) is None]:
                raise JournalError(
                    f"journal: the result of {trial.trial} at step {event['step']} has no "
                    f"{', '.join(missing)}",
                    "restore the journal from a copy, or start the sweep afresh under another name",
                )
            trial.results.append(event["metrics"])
            trial.metric = event["metrics"].get("metric", trial.metric)
            trial.times.append(event.get("time"))
        case EventName.DECISION:
            trial.decisions.append(event)
        case EventName.ATTEMPT_STARTED | EventName.ATTEMPT_ENDED:
            trial.attempts.append(event)
        case EventName.TRIAL_ENDED if trial.outcome is None:  # the first stands
            trial.ended = event.get("time")
            trial.outcome = event["outcome"]
            trial.message = event["message"]
            trial.metric = event.get("metric", trial.metric)
            trial.last_flags = event.get("answer_flags")
            trial.last_curve = event.get("last_curve", [])
