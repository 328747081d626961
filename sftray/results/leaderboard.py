"""The trials of a sweep in order, each with its best eval loss and its diagnosis.

Promise: the row of a trial that has ended is made once, so a leaderboard costs what has changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict
from weakref import WeakKeyDictionary

from sftray.config import SweepConfig
from sftray.config.points import Point
from sftray.results.confirmation import Confirmation, answers, confirmation
from sftray.results.diagnosis.broken_base import without_rates
from sftray.results.diagnosis.diagnosis import diagnose
from sftray.results.diagnosis.neighbours import after_strange_batch
from sftray.results.diagnosis.one_diagnosis import Diagnosis
from sftray.results.records import Records, TrialRecord, by_source
from sftray.storage.journal.event_types import LossOf, Outcome


class RankedTrial(TypedDict):
    """A trial as leaderboard.json has it."""

    trial: str
    point: Point
    confirms: NotRequired[str]
    """The trial that it repeats with another seed."""
    folder: NotRequired[str]
    """Where it ran, if that was another sweep."""
    eval_loss: float | None
    """The best, at `step`; the other numbers are of its newest evaluation."""
    eval_loss_by_kind: NotRequired[Sequence[LossOf]]
    """Of the best evaluation."""
    by_source: NotRequired[dict[str, float]]
    """Of several sources each one's eval loss, there."""
    step: int | None
    tokens: int
    supervised_tokens: int
    seconds: float
    gpu_seconds: float
    energy_wh: NotRequired[float]
    """Watt-hours, where its GPUs count them."""
    metric: NotRequired[float | None]
    outcome: str | None
    diagnosis: str
    verdict: str
    advice: str


class Base(TypedDict):
    """The untrained base."""

    eval_loss: float | None
    eval_loss_by_kind: NotRequired[Sequence[LossOf]]
    by_source: NotRequired[dict[str, float]]


class Leaderboard(TypedDict):
    """leaderboard.json."""

    sweep: str
    base: Base
    best: str | None
    """Whose point is recommended; `leaderboard_text.recommended` says why."""
    trials: list[RankedTrial]
    """The best first, those without a loss last."""
    has_eval_loss: NotRequired[bool]
    """False where the losses are of conversations that were trained on."""
    budget_spent: NotRequired[str]
    confirmed: NotRequired[Confirmation]


_Seen = tuple[float | None, str]
_ended: WeakKeyDictionary[Records, tuple[_Seen, dict[str, RankedTrial]]] = WeakKeyDictionary()
"""The base's loss and why it is doubted, and the rows of trials that have ended, diagnosed so."""


def leaderboard(sweep: SweepConfig, records: Records) -> Leaderboard:
    """Every trial with its best eval loss and its diagnosis."""
    trials, untrained, base = records.trials, records.base, records.base_eval_loss()
    seen = (base, records.base_doubted)
    known_seen, known = _ended.get(records, (seen, {}))
    known = known if known_seen == seen else {}
    rows = {one.trial: known.get(one.trial) or _row(sweep, one, records) for one in trials}
    for one in trials:  # what a bank's rows cost is known better as it goes on
        rows[one.trial]["gpu_seconds"] = one.gpu_seconds
        if (energy := one.energy_wh) is not None:
            rows[one.trial]["energy_wh"] = energy
    ended = {one.trial: rows[one.trial] for one in trials if one.outcome is not None}
    _ended[records] = (seen, ended)
    rows = {
        one.trial: _beside_neighbours(sweep, rows[one.trial], one, trials)
        if rows[one.trial]["diagnosis"] == "strange_batch" and one.outcome == Outcome.COMPLETED
        else rows[one.trial]
        for one in trials
    }
    ranked = sorted(rows.values(), key=lambda row: _rank(sweep, row))
    confirmed = confirmation(trials)
    board: Leaderboard = {
        "sweep": sweep.name,
        "base": {"eval_loss": base},
        "best": _recommended(ranked, confirmed),
        "trials": ranked,
    }
    if untrained and (by_kind := untrained.get("eval_loss_by_kind")):
        board["base"]["eval_loss_by_kind"] = by_kind
    if of_sources := by_source(untrained):
        board["base"]["by_source"] = of_sources
    if not sweep.data.has_eval_loss:
        board["has_eval_loss"] = False
    if records.budget_spent:
        board["budget_spent"] = records.budget_spent
    if confirmed:
        board["confirmed"] = confirmed
    return board


def _beside_neighbours(
    sweep: SweepConfig, row: RankedTrial, trial: TrialRecord, trials: Sequence[TrialRecord]
) -> RankedTrial:
    """The row of a trial with a strange batch, its diagnosis as other trials let it be."""
    found = Diagnosis(row["diagnosis"], row["verdict"], row["advice"])
    found = after_strange_batch(found, trial, trials, lambda one: sweep.trial.at(one.point))
    return {**row, "diagnosis": found.kind, "verdict": found.verdict, "advice": found.advice}


def _recommended(ranked: Sequence[RankedTrial], confirmed: Confirmation | None) -> str | None:
    """The trial whose point is recommended, and whose adapter goes to best/: by the mean over seeds
    where a point was run with several, never its luckiest run; else the first in rank."""
    losses = {row["trial"]: row["eval_loss"] for row in ranked}
    if confirmed and confirmed["winner"] and losses.get(confirmed["winner"]) is not None:
        return confirmed["winner"]
    return next((trial for trial, loss in losses.items() if loss is not None), None)


def answering(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that can stand in for the recommended one: those of its point, else all."""
    confirmed = confirmation(trials)
    return [trial for trial in trials if answers(confirmed, trial)]


def _row(sweep: SweepConfig, trial: TrialRecord, records: Records) -> RankedTrial:
    best, base = trial.best, records.base_eval_loss()
    diagnosis = diagnose(trial, sweep.trial.at(trial.point), base_loss=base)
    diagnosis = without_rates(diagnosis, trial, records)
    row: RankedTrial = {
        "trial": trial.trial,
        "point": trial.point,
        "eval_loss": best["eval_loss"] if best else None,
        "step": best["step"] if best else None,
        "tokens": trial.last["tokens"],
        "supervised_tokens": trial.last["supervised_tokens"],
        "seconds": trial.last["seconds"],
        "gpu_seconds": trial.gpu_seconds,
        "outcome": trial.outcome,
        "diagnosis": diagnosis.kind,
        "verdict": diagnosis.verdict,
        "advice": diagnosis.advice,
    }
    if best and (by_kind := best.get("eval_loss_by_kind")):
        row["eval_loss_by_kind"] = by_kind
    if of_sources := by_source(best):
        row["by_source"] = of_sources
    if trial.confirms:
        row["confirms"] = trial.confirms
    if trial.folder:
        row["folder"] = trial.folder
    if sweep.metric:
        row["metric"] = trial.metric
    return row


def _rank(sweep: SweepConfig, row: RankedTrial) -> tuple[float, float, str]:
    """By the objective; by eval loss among trials that have no metric."""
    loss = math.inf if row["eval_loss"] is None else row["eval_loss"]
    if sweep.objective != "metric":
        return (loss, 0.0, row["trial"])
    metric = row["metric"]
    if metric is None:
        return (math.inf, loss, row["trial"])
    return (-metric if sweep.metric_is_better == "higher" else metric, loss, row["trial"])
