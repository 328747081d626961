"""Optuna's TPE behind ask, replay, report and tell.

Promise: the point of trial n is a function of the sweep's seed, n, and of what had been suggested
and told before it, so replaying a journal gives the point that an undisturbed sweep would get; no
point is suggested twice. A study is made for every question, and nothing of Optuna's is kept: so a
trial that still runs can be told as what it is at its last rung, where Optuna would take it for a
bad one, and under ASHA the trials that still run are the best.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sftray.config import Space
from sftray.config.points import Point, all_points, spread_point
from sftray.search.optuna_space import distributions, to_params, to_point
from sftray.storage.journal.event_types import Outcome

REPEATS = 20
"""How often TPE may draw a point that was suggested before, until another is picked."""


@dataclass
class _Told:
    """What is known of a suggested point."""

    params: Point
    at_rungs: dict[int, float] = field(default_factory=dict)
    """Losses by rows."""
    outcome: str | None = None
    value: float | None = None


class Sampler:
    """Points of a search space: first those known to be good, then some spread evenly over it, then
    each drawn with the knowledge of the trials before it.

    Multivariate TPE (Bergstra et al. 2011; Falkner et al. 2018) with the constant liar, so that
    trials running at the same time spread out.
    """

    def __init__(
        self,
        spaces: Mapping[str, Space],
        *,
        num_trials: int,
        seed: int,
        first: Sequence[Point] = (),
    ) -> None:
        """first: points to begin with."""
        self._spaces = spaces
        self._distributions = distributions(spaces)
        self._startup = max(startup_trials(num_trials), len(first))
        self._first = first
        self._seed = seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._trials: list[_Told] = []
        self._known: set[str] = set()
        self._drawn = 0

    def ask(self, number: int) -> Point | None:
        """The point of trial `number`; asking again gives the same one. None where every point of
        the space has been suggested."""
        if number == len(self._trials):
            point = self._at_the_start() if self._drawn < self._startup else None
            point = point or self._draw()
            if point is None:
                return None
            self.replay(number, point)
        return to_point(self._spaces, self._trials[number].params)

    def replay(self, number: int, point: Point, *, drawn: bool = True) -> None:
        """Put the sampler where `ask` had left it when it gave `point`; a point of another sweep
        was not `drawn` by this one."""
        if number == len(self._trials):
            self._trials.append(_Told(to_params(self._spaces, point)))
            self._known.add(self._label(point))
            self._drawn += drawn

    def left(self) -> float:
        """How many points have not been suggested; infinity in a continuous space."""
        return (len(all_points(self._spaces)) or math.inf) - len(self._known)

    def report(self, number: int, rows: int, loss: float) -> None:
        """A trial's loss at a rung. Of trials without an end TPE ranks later rungs first, then
        loss."""
        self._trials[number].at_rungs[rows] = loss

    def tell(self, number: int, outcome: str, value: float | None) -> None:
        """A trial's end with its value, which is finite and minimised; None where it has none. Of a
        diverged trial it is the worst that it had.

        A diverged one counts as bad as the worst there is, not as infinity: it is bad, and does not
        bend the model. One that does not fit the memory is a violated constraint, so that TPE keeps
        away from such points. Others that neither ended well nor were pruned teach TPE nothing:
        their points are as if never drawn.
        """
        self._trials[number].outcome = outcome
        self._trials[number].value = value

    def _at_the_start(self) -> Point | None:
        """A point that was not suggested before: known to be good, or apart from the others."""
        for point in self._first[self._drawn :]:
            if self._label(point) not in self._known:
                return point
        spread = self._drawn - len(self._first)
        for repeat in range(REPEATS):
            point = spread_point(self._spaces, spread + repeat * self._startup, self._seed)
            if self._label(point) not in self._known:
                return point
        return None

    def _draw(self) -> Point | None:
        """What TPE suggests, or, where that has been suggested too often, another point."""
        study = optuna.create_study()
        study.add_trials(self._as_optuna_has_them())
        for repeat in range(REPEATS):
            seed = zlib.crc32(f"{self._seed}/{self._drawn}/{repeat}".encode())
            study.sampler = _tpe(self._startup, seed)
            trial = study.ask(self._distributions)
            point = to_point(self._spaces, trial.params)
            if self._label(point) not in self._known:
                return point
            study.tell(trial, state=TrialState.FAIL)  # as if never drawn
        left = [p for p in all_points(self._spaces) if self._label(p) not in self._known]
        return (
            left[zlib.crc32(f"{self._seed}/{self._drawn}".encode()) % len(left)] if left else None
        )

    def _as_optuna_has_them(self) -> list[FrozenTrial]:
        ended = [one.value for one in self._trials if one.outcome and one.value is not None]
        worst = max(ended, default=None)
        frozen = [self._frozen(told, worst) for told in self._trials]
        return [trial for trial in frozen if trial is not None]

    def _frozen(self, told: _Told, worst: float | None) -> FrozenTrial | None:
        """A trial for TPE; None where it teaches nothing. worst: value of any trial."""
        make = functools.partial(
            create_trial, params=told.params, distributions=self._distributions
        )
        known = told.value is not None
        if told.outcome == Outcome.COMPLETED:
            return make(value=told.value) if known else None
        if told.outcome == Outcome.PRUNED or (told.outcome is None and told.at_rungs):
            return make(state=TrialState.PRUNED, intermediate_values=told.at_rungs)
        if told.outcome is None:
            return make(state=TrialState.RUNNING)
        if told.outcome == Outcome.DIVERGED:
            return make(value=worst) if known else None
        if told.outcome == Outcome.OUT_OF_MEMORY:  # ranked by the constraint, whatever its value
            return make(value=told.value if known else 0.0, constraints={"memory": 1.0})
        return None

    def _label(self, point: Point) -> str:
        return json.dumps(to_params(self._spaces, point), sort_keys=True)


def _tpe(startup: int, seed: int) -> TPESampler:
    return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=startup, seed=seed)


def startup_trials(num_trials: int) -> int:
    """Trials before TPE has something to go by: a quarter, from 4 to 10."""
    return min(10, max(4, num_trials // 4))
