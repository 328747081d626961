"""The points that a search has suggested, drawn again: those at the start, then TPE's.

Promise: a draw is made by a fresh Optuna study with the trials that the journal has until then, in
its order; nothing of `search/` is called. Price: 20 ms a draw.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from sftray.config import Space, SweepConfig
from sftray.config.checks import is_number
from sftray.config.points import Point, all_points, spread_point
from sftray.config.spaces import RandInt, Uniform, Value, label
from sftray.plan.trial_plan import TrialPlan
from sftray.storage.journal.event_types import Outcome

TRIES = 20
"""A point that was suggested before is drawn again so often."""
ROUNDING = 1e-9
"""How far, relative to it, the same draw may lie apart on another CPU."""


@dataclass
class AuditedTrial:
    """A trial as far as the journal has been read."""

    name: str
    point: Point
    plan: TrialPlan
    confirms: str | None
    folder: str | None
    losses: dict[int, float] = field(default_factory=dict)
    judged_by: dict[int, float] = field(default_factory=dict)
    """By step, what counts at a rung and is to be small: the loss, or the metric."""
    peers: dict[int, dict[str, float]] = field(default_factory=dict)
    judged: dict[int, str] = field(default_factory=dict)
    """By step, what was decided; nothing where a decision is missing."""
    attempts: int = 0
    outcome: str | None = None
    metric: float | None = None

    @property
    def best(self) -> float:
        """Infinite where it has no loss."""
        trained = [loss for step, loss in self.losses.items() if step and math.isfinite(loss)]
        return min(trained, default=math.inf)

    @property
    def since_its_best(self) -> int:
        """Evaluations after the lowest loss."""
        trained = [self.losses[step] for step in sorted(self.losses) if step]
        return len(trained) - 1 - trained.index(min(trained)) if trained else 0

    def rung_at(self, step: int) -> int | None:
        """Rows of the rung at a step where it is judged, if there is one."""
        rungs = () if self.confirms else self.plan.rungs
        return next((rung.rows for rung in rungs if rung.step == step), None)

    def step_at(self, rows: int) -> int:
        """The step at which it comes to a rung, judged there or not; -1 where it never does."""
        return next((rung.step for rung in self.plan.rungs if rung.rows == rows), -1)

    def value(self, sweep: SweepConfig) -> float | None:
        """What TPE makes small."""
        if sweep.objective == "metric":
            metric = self.metric if self.metric is not None else math.nan
            sign = -1 if sweep.metric_is_better == "higher" else 1
            return sign * metric if math.isfinite(metric) else None
        finite = [loss for loss in self.losses.values() if math.isfinite(loss)]
        if self.outcome == Outcome.DIVERGED:
            return max(finite, default=None)
        return self.best if math.isfinite(self.best) else None


class Draws:
    """A sweep's draws, one after another."""

    def __init__(self, sweep: SweepConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._spaces = sweep, sweep.search_space
        self._axes = {name: _Axis.of(space) for name, space in self._spaces.items()}
        self.trials: list[AuditedTrial] = []
        """All but repetitions."""
        self.first: Sequence[Point] | None = None
        """The points that the search began with; None where the journal does not say."""

    def own(self) -> int:
        """How many of the trials this sweep has drawn itself."""
        return sum(trial.folder is None for trial in self.trials)

    def again(self, point: Point) -> tuple[Literal["start", "draw", "unknown"], Point | None]:
        """What must be suggested now, where `point` was; "unknown" at the start of a journal that
        does not say what the search began with."""
        known = [labels(trial.point) for trial in self.trials]
        number, first = self.own(), self.first or ()
        startup = max(min(10, max(4, self._sweep.num_trials // 4)), len(first))
        if number < startup and self.first is None:
            return "unknown", None
        if number < startup:
            tries = (number - len(first) + repeat * startup for repeat in range(TRIES))
            spread = (spread_point(self._spaces, one, self._sweep.seed) for one in tries)
            for start in (*first[number:], *spread):
                if labels(start) not in known:
                    return "start", start
        drawn = self._by_tpe(number, known, startup)
        # --num-trials may have been raised since, and with it the number of points at the start
        for larger in range(startup + 1, 11) if number >= self._sweep.num_trials else ():
            if drawn is None or same_point(drawn, point):
                break
            drawn = self._by_tpe(number, known, larger)
        return "draw", drawn

    def _by_tpe(self, number: int, known: Sequence[object], startup: int) -> Point | None:
        history = self._history()
        for repeat in range(TRIES):
            seed = zlib.crc32(f"{self._sweep.seed}/{number}/{repeat}".encode())
            tpe = optuna.samplers.TPESampler(
                multivariate=True, constant_liar=True, n_startup_trials=startup, seed=seed
            )
            study = optuna.create_study(sampler=tpe)
            study.add_trials(history)
            params = study.ask({name: axis.drawn for name, axis in self._axes.items()}).params
            point = {name: axis.value(params[name]) for name, axis in self._axes.items()}
            if labels(point) not in known:
                return point
        left = [point for point in all_points(self._spaces) if labels(point) not in known]
        place = zlib.crc32(f"{self._sweep.seed}/{number}".encode())
        return left[place % len(left)] if left else None

    def _history(self) -> list[FrozenTrial]:
        values = [trial.value(self._sweep) for trial in self.trials if trial.outcome]
        worst = max((value for value in values if value is not None), default=None)
        history = (self._as_optuna_has_it(trial, worst) for trial in self.trials)
        return [trial for trial in history if trial is not None]

    def _as_optuna_has_it(self, trial: AuditedTrial, worst: float | None) -> FrozenTrial | None:
        """Completed with its value; stopped or running with its losses at rungs; diverged as bad as
        the worst; too large as a violated constraint; otherwise not at all."""
        make = functools.partial(
            create_trial,
            params={name: axis.param(trial.point[name]) for name, axis in self._axes.items()},
            distributions={name: axis.drawn for name, axis in self._axes.items()},
        )
        value = trial.value(self._sweep)
        if trial.outcome in (Outcome.PRUNED, None):
            if trial.outcome or trial.judged:
                at_rungs = {
                    rung.rows: trial.judged_by[rung.step]
                    for rung in trial.plan.rungs
                    if rung.step in trial.judged and rung.step in trial.judged_by
                }
                return make(state=TrialState.PRUNED, intermediate_values=at_rungs)
            return make(state=TrialState.RUNNING)
        if trial.outcome == Outcome.OUT_OF_MEMORY:
            return make(value=value or 0.0, constraints={"memory": 1.0})
        if value is None or trial.outcome not in (Outcome.COMPLETED, Outcome.DIVERGED):
            return None
        return make(value=worst if trial.outcome == Outcome.DIVERGED else value)


@dataclass(frozen=True)
class _Axis:
    """What Optuna draws on an axis."""

    drawn: BaseDistribution
    params: Sequence[Any]
    """What is drawn for each of the values; nothing where that is the value itself."""
    values: Sequence[Value]

    @classmethod
    def of(cls, space: Space) -> _Axis:
        """A choice among three numbers or more is drawn by its place in order, others by label."""
        if isinstance(space, Uniform):
            return cls(FloatDistribution(space.low, space.high, log=space.log), (), ())
        if isinstance(space, RandInt):
            return cls(IntDistribution(space.low, space.high), (), ())
        numbers = sorted(filter(is_number, space.values))
        if len(numbers) == len(space.values) > 2:
            return cls(IntDistribution(0, len(numbers) - 1), range(len(numbers)), numbers)
        names = [label(value) for value in space.values]
        return cls(CategoricalDistribution(names), names, space.values)

    def param(self, value: Value) -> Any:
        at = [label(one) for one in self.values].index(label(value)) if self.values else 0
        return self.params[at] if self.values else value

    def value(self, param: Any) -> Value:
        if self.values:
            return self.values[self.params.index(param)]
        assert isinstance(self.drawn, FloatDistribution | IntDistribution)
        value: Value = min(max(param, self.drawn.low), self.drawn.high)
        return value


def same_point(one: Mapping[str, Value], other: Mapping[str, Value]) -> bool:
    """Whether two points are one, but for the last bits of numbers, which differ between CPUs."""
    ours, theirs = labels(one), labels(other)
    return ours.keys() == theirs.keys() and all(
        math.isclose(value, theirs[name], rel_tol=ROUNDING)  # type: ignore[arg-type]
        if is_number(value) and is_number(theirs[name])
        else value == theirs[name]
        for name, value in ours.items()
    )


def labels(point: Mapping[str, Value]) -> dict[str, str | float | None]:
    """A point whose lists are text, so that a tuple equals what JSON made of it."""
    return {name: label(value) for name, value in point.items()}
