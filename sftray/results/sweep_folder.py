"""A finished or running sweep as plain values and as tables, read from its folder alone.

Promise: neither ray nor torch is imported and no pickle is read; everything is computed from
`sweep.json` and the journal (samples from their files), so it is right while the sweep runs, too.
pandas is imported when the first table is asked for.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sftray.config import SweepConfig
from sftray.config.config_json import sweep_from_json
from sftray.errors import SftrayError
from sftray.results.confirmation import confirmation
from sftray.results.diagnosis.diagnosis import diagnose
from sftray.storage import files
from sftray.storage.journal import Event, read_events
from sftray.storage.journal.event_types import (
    AttemptEnded,
    AttemptStarted,
    EventName,
    Metrics,
    RungDecision,
)
from sftray.storage.paths import SweepPaths, is_uri, join, name_of

if TYPE_CHECKING:
    import pandas as pd


_NOTHING: Metrics = {
    "step": 0, "rows": 0, "tokens": 0, "supervised_tokens": 0, "eval_loss": math.nan, "seconds": 0.0
}  # fmt: skip


@dataclass
class TrialRecord:
    """What the journal says of one trial."""

    trial: str
    point: dict[str, Any]
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
    """What `SweepConfig.metric` said of its answers."""
    last_flags: list[list[str]] | None = None
    """The flags of the answers that it gave at its end (`trial.samples`)."""
    folder: str | None = None
    """Where it ran, if that was another sweep."""
    attempts: list[AttemptStarted | AttemptEnded] = field(default_factory=list)
    """When attempts started and ended, and of what."""
    ended: float | None = None
    """When it ended, in seconds since the epoch."""

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
        """In training steps so far, times workers, of a bank's its share; seconds where the sweep
        is older than that."""
        return float(self.last.get("gpu_seconds", self.last["seconds"]))


@dataclass(frozen=True)
class Results:
    """A sweep's folder, read.

    As plain values: `record`, `records`, `leaderboard`. As pandas tables, each made when it is
    first asked for and described in frames.py: `trials`, `curves`, `rungs`, `samples`, `best`.
    """

    folder: str
    record: dict[str, Any]
    """sweep.json: config, versions, data."""
    records: list[TrialRecord]
    """The trials, in the order they were suggested."""
    leaderboard: dict[str, Any]
    ended: bool = False
    """Whether the sweep has come to its end, and no trial runs."""

    @cached_property
    def config(self) -> SweepConfig:
        """The sweep's configuration, as it was fitted to the data."""
        # the record's own space has the batch sizes that the number of rows allowed
        space = {"search_space": self.record["search_space"]}
        return sweep_from_json({**self.record["config"], **space})

    @property
    def packs_key(self) -> str:
        """The packs' fingerprint: of the data's content, the tokenizer, template and options."""
        return name_of(self.record["packs"])

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial: its point, losses, cost, outcome, verdict."""
        from sftray.results import tables

        return tables.trials(self)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an optimizer step of a trial; eval losses where it was evaluated."""
        from sftray.results import tables

        return tables.curves(self)

    @cached_property
    def rungs(self) -> pd.DataFrame:
        """One row a decision: the loss at a rung, the cutoff, and whether the trial went on."""
        from sftray.results import tables

        return tables.rungs(self)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row an answer to a fixed prompt, the untrained base's first."""
        from sftray.results import tables

        return tables.samples(self)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The best trial's row of `trials`, beside the base's loss; no row before there is one."""
        from sftray.results import tables

        return tables.best(self)


def load(folder: str) -> Results:
    """Read the sweep in `folder`, finished or running. Raises SftrayError if there is none."""
    paths = SweepPaths(folder)
    if not files.exists(paths.sweep):
        raise SftrayError(no_sweep(folder))
    record = json.loads(files.read_text(paths.sweep))
    events = read_events(paths.journal)
    kept = Records(sweep_from_json(record["config"]), events)
    records = kept.trials
    ended = any(event["event"] == EventName.SWEEP_ENDED for event in events)
    return Results(
        folder=folder,
        record=record,
        records=records,
        leaderboard=kept.leaderboard(),
        ended=ended and all(trial.outcome is not None for trial in records),
    )


def no_sweep(folder: str) -> str:
    """What to say of a folder that holds no sweep, with those beside it that do."""
    beside = os.path.dirname(folder.rstrip("/")) or "."
    names = [] if is_uri(folder) or not os.path.isdir(beside) else sorted(os.listdir(beside))
    there = [name for name in names if os.path.exists(SweepPaths(join(beside, name)).sweep)]
    got = "no sweep.json" if is_uri(folder) or os.path.isdir(folder) else "no such folder"
    hint = f"; sweeps there: {', '.join(there)}" if there else ""
    return f"{folder}: got {got}, must be a sweep's folder (<storage>/<name>){hint}"


def compare(*sweeps: Results) -> pd.DataFrame:
    """One row a sweep: its best loss, what it cost, and whether its losses may be held against the
    first one's, because base and packs are the same."""
    from sftray.results import tables

    return tables.compare(*sweeps)


def differences(*sweeps: Results) -> pd.DataFrame:
    """The configuration's fields in which sweeps differ, a column a sweep."""
    from sftray.results import tables

    return tables.differences(*sweeps)


class Records:
    """The trials of a journal as it grows, and their leaderboard.

    The row of a trial that has ended is made once, so a leaderboard costs what has changed.
    """

    def __init__(self, sweep: SweepConfig, events: Iterable[Event] = ()) -> None:
        self._sweep = sweep
        self._trials: dict[str, TrialRecord] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        """Of trials that have ended, diagnosed by `_base`."""
        self._base: float | None = None
        self._budget_spent = ""
        """The budget that has ended the sweep before its time, as the field is called."""
        self.add(events)

    def __getitem__(self, trial: str) -> TrialRecord:
        return self._trials[trial]

    @property
    def trials(self) -> list[TrialRecord]:
        """In the order they were suggested."""
        return list(self._trials.values())

    def ended(self) -> int:
        """How many trials have an outcome."""
        return sum(trial.outcome is not None for trial in self._trials.values())

    def add(self, events: Iterable[Event]) -> None:
        """Take what the journal has got since."""
        for event in events:
            _apply(self._trials, event)
            if event["event"] == EventName.SPENT:
                self._budget_spent = event["budget"]

    def base_eval_loss(self) -> float | None:
        """The untrained base's loss."""
        return base_eval_loss(self._trials.values())

    def leaderboard(self) -> dict[str, Any]:
        """Every trial with its best eval loss and its diagnosis, best first; trials without a loss
        come last."""
        trials, base = self.trials, self.base_eval_loss()
        if base != self._base:
            self._base = base
            self._rows.clear()
        rank = functools.partial(_rank, self._sweep)
        rows = sorted((self._row(trial) for trial in trials), key=rank)
        confirmed = confirmation(trials)
        answers = {t.trial for t in trials if confirmed is None or confirmed.answers(t)}
        measured = (row["trial"] for row in rows if row["eval_loss"] is not None)
        best = next((trial for trial in measured if trial in answers), None)
        board: dict[str, Any] = {
            "sweep": self._sweep.name, "base": {"eval_loss": base}, "best": best, "trials": rows
        }  # fmt: skip
        if self._budget_spent:
            board["budget_spent"] = self._budget_spent
        return board if confirmed is None else {**board, "confirmed": confirmed.to_json()}

    def _row(self, trial: TrialRecord) -> dict[str, Any]:
        row = self._rows.get(trial.trial) or _row(self._sweep, trial, self._base)
        if trial.outcome is not None:
            self._rows[trial.trial] = row
        return row


def leaderboard(sweep: SweepConfig, events: Iterable[Event]) -> dict[str, Any]:
    """The leaderboard of a journal: `Records.leaderboard`."""
    return Records(sweep, events).leaderboard()


def answering(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials among which the best adapter is: those of the confirmed point, else all."""
    confirmed = confirmation(trials)
    return [trial for trial in trials if confirmed is None or confirmed.answers(trial)]


def base_eval_loss(trials: Iterable[TrialRecord]) -> float | None:
    """The untrained base's loss: the first step-0 evaluation of any trial."""
    for trial in trials:
        for result in trial.results:
            if result["step"] == 0:
                return float(result["eval_loss"])
    return None


def _apply(trials: dict[str, TrialRecord], event: Event) -> None:
    if event["event"] == EventName.TRIAL_SUGGESTED:
        name, confirms, folder = event["trial"], event.get("confirms"), event.get("folder")
        trials[name] = TrialRecord(name, event["point"], confirms=confirms, folder=folder)
        return
    trial = trials.get(event["trial"]) if event["trial"] else None
    if trial is None:
        return
    match event["event"]:
        case EventName.RESULT:
            trial.results.append(event["metrics"])
            trial.times.append(event.get("time"))
        case EventName.DECISION:
            trial.decisions.append(event)
        case EventName.ATTEMPT_STARTED | EventName.ATTEMPT_ENDED:
            trial.attempts.append(event)
        case EventName.TRIAL_ENDED:
            trial.ended = event.get("time")
            trial.outcome = event["outcome"]
            trial.message = event["message"]
            trial.metric = event.get("metric")
            trial.last_flags = event.get("answer_flags")
            trial.last_curve = event.get("last_curve", [])


def _row(sweep: SweepConfig, trial: TrialRecord, base: float | None) -> dict[str, Any]:
    best = trial.best
    diagnosis = diagnose(trial, sweep.trial.at(trial.point), base_loss=base)
    return {
        "trial": trial.trial,
        "point": trial.point,
        **({"confirms": trial.confirms} if trial.confirms else {}),
        **({"folder": trial.folder} if trial.folder else {}),
        "eval_loss": best["eval_loss"] if best else None,
        "step": best["step"] if best else None,
        "tokens": trial.last["tokens"],
        "supervised_tokens": trial.last["supervised_tokens"],
        "seconds": trial.last["seconds"],
        "gpu_seconds": trial.gpu_seconds,
        **({"metric": trial.metric} if sweep.metric else {}),
        "outcome": trial.outcome,
        "diagnosis": diagnosis.kind,
        "verdict": diagnosis.verdict,
        "advice": diagnosis.advice,
    }


def _rank(sweep: SweepConfig, row: Mapping[str, Any]) -> tuple[float, float, str]:
    """By the objective; by eval loss among trials that have no metric."""
    loss = math.inf if row["eval_loss"] is None else row["eval_loss"]
    if sweep.objective != "metric":
        return (loss, 0.0, row["trial"])
    metric = row["metric"]
    if metric is None:
        return (math.inf, loss, row["trial"])
    return (-metric if sweep.metric_is_better == "higher" else metric, loss, row["trial"])
