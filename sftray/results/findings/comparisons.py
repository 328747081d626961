"""Which losses of a sweep may be held against each other.

Promise: two losses are compared only where both trials had been trained on the same rows, in one
bracket: at a rung, or at the end of their budget. A trial that was stopped or diverged before such
a place counts as worse than all that came there, as it does for TPE; one that is not there yet, or
passed it by, is left out and counted.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from sftray.config import Space, SweepConfig, TrialConfig, choice, loguniform, uniform
from sftray.config.checks import is_number
from sftray.config.points import Point, field_values, setting_of
from sftray.config.spaces import label
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import TrialPlan, planner
from sftray.results.records import TrialRecord
from sftray.results.tables import Results
from sftray.storage.journal.event_types import Outcome


@dataclass(frozen=True)
class ComparedTrial:
    """A trial with what its configuration entails."""

    record: TrialRecord
    config: TrialConfig
    point: Point
    """Its value on every axis of the sweep."""
    plan: TrialPlan
    at_rungs: dict[int, float]
    """Rows of a rung → finite eval loss there."""

    @property
    def name(self) -> str:
        return self.record.trial

    @property
    def outcome(self) -> str | None:
        return self.record.outcome

    @cached_property
    def final(self) -> float | None:
        """The eval loss after the whole budget; None where it did not come so far."""
        last = self.record.last
        if self.outcome != Outcome.COMPLETED or last["step"] < self.plan.steps:
            return None
        return float(last["eval_loss"]) if math.isfinite(last["eval_loss"]) else None

    @cached_property
    def best(self) -> float | None:
        """The lowest finite eval loss of the adapter."""
        best = self.record.best
        return None if best is None else float(best["eval_loss"])

    @property
    def gpu_seconds(self) -> float:
        """In training steps so far: seconds times workers, of a bank's its share."""
        return self.record.gpu_seconds

    @property
    def budget_ratio(self) -> float:
        """The whole budget over what has been trained so far, in rows."""
        rows = self.record.last["rows"]
        return self.plan.rows / rows if rows else 1.0


@dataclass(frozen=True)
class Sweep:
    """A sweep's trials, made comparable."""

    config: SweepConfig
    spaces: dict[str, Space]
    """The axes: what was searched, or what the given points differ in."""
    trials: list[ComparedTrial]
    plan: Callable[[TrialConfig], TrialPlan]
    """What a trial of this sweep would run with; ConfigError where it cannot run."""

    @property
    def searched(self) -> list[ComparedTrial]:
        """Without those that were run again with new seeds: of its best points a search knows more
        than of others, so they would count several times."""
        return [trial for trial in self.trials if trial.record.confirms is None]


@dataclass(frozen=True)
class Comparison:
    """Losses at equal data."""

    bracket: str | None
    """None: all brackets, each trial at the end of its own budget."""
    rows: int | None
    """Rows every trial had seen; None: its whole budget."""
    losses: dict[str, float]
    """Trial → eval loss there; infinite for one that was stopped or diverged before."""
    left_out: int
    """Trials of which this place says nothing: they passed it by, or are not there yet."""

    @cached_property
    def finite(self) -> dict[str, float]:
        """The losses that were measured here."""
        return {trial: loss for trial, loss in self.losses.items() if math.isfinite(loss)}

    def __str__(self) -> str:
        where = "the end of the budget" if self.rows is None else f"{self.rows:,} rows"
        bracket = "" if self.bracket is None else f" of the trials of {self.bracket}"
        gone = len(self.losses) - len(self.finite)
        stopped = f", {gone} stopped or diverged before" if gone else ""
        left_out = f", {self.left_out} left out" if self.left_out else ""
        return f"{len(self.finite)} losses at {where}{bracket}{stopped}{left_out}"


_read: WeakKeyDictionary[Results, Sweep] = WeakKeyDictionary()


def read(found: Results) -> Sweep:
    """The trials of a sweep with their plans, made once."""
    if found not in _read:
        _read[found] = _made_comparable(found)
    return _read[found]


def _made_comparable(found: Results) -> Sweep:
    config = found.config
    plan = planner(_judged(config), found.record["data"]["train"]["rows"], execution=ONE_ROW)
    spaces = _spaces(config)
    spaces.pop("seed", None)  # not a setting but chance: see `verdict.noise`
    configs = found.trial_configs
    trials = [
        _trial(config, configs[record.trial], spaces, plan, record) for record in found.records
    ]
    return Sweep(config, spaces, trials, plan)


def comparisons(sweep: Sweep) -> list[Comparison]:
    """Every place at which trials can be compared, the one with the most data first.

    Without a scheduler nothing was stopped, and all trials are compared at the end of their budgets
    whatever their epochs; with one only those of the bracket with the most trials.
    """
    if sweep.config.scheduler == "none":
        return [_compared(sweep.searched, bracket=None)]
    if not sweep.searched:
        return []
    bracket = Counter(trial.plan.bracket for trial in sweep.searched).most_common(1)[0][0]
    trials = in_bracket(sweep.searched, bracket)
    rungs = sorted({rung.rows for trial in trials for rung in trial.plan.rungs}, reverse=True)
    return [_compared(trials, bracket, rows) for rows in (None, *rungs)]


def ranking(sweep: Sweep, *, best_share: float, enough: int) -> Comparison | None:
    """The comparison with the most data in which the best `best_share` of all can be distinguished.

    That is, at least that share of the trials came there and has a loss. Among comparisons of
    `enough` trials if there are such, else the one with the most trials.
    """
    fit = [
        found
        for found in comparisons(sweep)
        if found.finite and len(found.finite) >= math.ceil(best_share * len(found.losses))
    ]
    large = [found for found in fit if len(found.losses) >= enough]
    return large[0] if large else max(fit, key=lambda found: len(found.losses), default=None)


def in_bracket(trials: Sequence[ComparedTrial], bracket: str) -> list[ComparedTrial]:
    """The trials of one bracket."""
    return [trial for trial in trials if trial.plan.bracket == bracket]


def _judged(config: SweepConfig) -> SweepConfig:
    """With the rungs in its plans; without a scheduler trials are evaluated there all the same."""
    if config.scheduler != "none" or field_values(config, "num_train_epochs") is None:
        return config
    return dataclasses.replace(config, scheduler="asha")


def _spaces(config: SweepConfig) -> dict[str, Space]:
    if not config.points:
        return dict(config.search_space)
    names = dict.fromkeys(name for point in config.points for name in point)
    tried = {
        name: [point.get(name, setting_of(config, config.trial, name)) for point in config.points]
        for name in names
    }
    return {
        name: _space_of(values)
        for name, values in tried.items()
        if len(set(map(label, values))) > 1
    }


def _space_of(values: Sequence[Any]) -> Space:
    """The space that given points have tried: a range where the numbers hardly repeat."""
    different = list({label(value): value for value in values}.values())
    if not all(map(is_number, different)):
        return choice(different)
    different.sort()
    if all(isinstance(value, int) for value in different) or 2 * len(different) <= len(values):
        return choice(different)
    low, high = float(different[0]), float(different[-1])
    return (loguniform if low > 0 and high / low >= 10 else uniform)(low, high)


def _trial(
    sweep: SweepConfig,
    config: TrialConfig,
    axes: Iterable[str],
    planned: Callable[[TrialConfig], TrialPlan],
    record: TrialRecord,
) -> ComparedTrial:
    plan = planned(config)
    losses = {result["step"]: float(result["eval_loss"]) for result in record.trained}
    return ComparedTrial(
        record=record,
        config=config,
        point={name: record.point.get(name, setting_of(sweep, config, name)) for name in axes},
        plan=plan,
        at_rungs={r.rows: losses[r.step] for r in plan.rungs if r.step in losses},
    )


def _compared(
    trials: Sequence[ComparedTrial], bracket: str | None, rows: int | None = None
) -> Comparison:
    """The trials at a rung, or, without rows, at the end of their budgets."""
    losses = {}
    for trial in trials:
        loss = trial.final if rows is None else trial.at_rungs.get(rows)
        before = rows is None or trial.record.last["rows"] < rows
        if loss is not None:
            losses[trial.name] = loss
        elif trial.outcome in (Outcome.PRUNED, Outcome.DIVERGED) and before:
            losses[trial.name] = math.inf
    return Comparison(bracket, rows, losses, len(trials) - len(losses))
