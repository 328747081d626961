"""Optuna's TPE behind one question: what to try next.

Promise: the point of trial n is a function of the sweep's seed, n, and of what is known of the
trials before it, so replaying a journal gives the point that an undisturbed sweep would get; no
point is suggested twice. A study is made for every question, and nothing of Optuna's is kept: so a
trial that still runs counts as what it is at its last rung, where Optuna would take it for a bad
one, and under ASHA the trials that still run are the best.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Sequence

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sftray.config import SweepConfig
from sftray.config.points import Point, all_points, spread_point
from sftray.search.optuna_space import distributions, to_params, to_point
from sftray.search.search_trials import SearchTrial
from sftray.storage.journal.event_types import Outcome

REPEATS = 20
"""How often TPE may draw a point that was suggested before, until another is picked."""


class Sampler:
    """Points of a search space: first those known to be good, then some spread evenly over it, then
    each drawn with the knowledge of the trials before it.

    Multivariate TPE (Bergstra et al. 2011; Falkner et al. 2018) with the constant liar, so that
    trials running at the same time spread out.
    """

    def __init__(self, sweep: SweepConfig, first: Sequence[Point] = ()) -> None:
        """first: points to begin with."""
        self._sweep, self._spaces, self._first = sweep, sweep.search_space, first
        self._distributions = distributions(self._spaces)
        self._startup = max(startup_trials(sweep.num_trials), len(first))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._trials: list[SearchTrial] = []
        self._known: set[str] = set()
        """Their points."""
        self._drawn = 0
        """How many of them are of this sweep."""

    def ask(self) -> Point | None:
        """The next point; asking again gives the same one. None where every point of the space has
        been suggested."""
        point = self._at_the_start() if self._drawn < self._startup else None
        return point or self._draw()

    def add(self, trial: SearchTrial) -> None:
        """Know a trial, as what it is whenever a point is asked for; no repetition."""
        self._trials.append(trial)
        self._known.add(self._label(trial.suggestion.point))
        self._drawn += trial.folder is None

    def left(self) -> float:
        """How many points have not been suggested; infinity in a continuous space."""
        return (len(all_points(self._spaces)) or math.inf) - len(self._known)

    def _at_the_start(self) -> Point | None:
        """A point that was not suggested before: known to be good, or apart from the others."""
        for point in self._first[self._drawn :]:
            if self._label(point) not in self._known:
                return point
        spread = self._drawn - len(self._first)
        for repeat in range(REPEATS):
            number = spread + repeat * self._startup
            point = spread_point(self._spaces, number, self._sweep.seed)
            if self._label(point) not in self._known:
                return point
        return None

    def _draw(self) -> Point | None:
        """What TPE suggests, or, where that has been suggested too often, another point."""
        study = optuna.create_study()
        study.add_trials(self._as_optuna_has_them())
        for repeat in range(REPEATS):
            seed = zlib.crc32(f"{self._sweep.seed}/{self._drawn}/{repeat}".encode())
            study.sampler = _tpe(self._startup, seed)
            trial = study.ask(self._distributions)
            point = to_point(self._spaces, trial.params)
            if self._label(point) not in self._known:
                return point
            study.tell(trial, state=TrialState.FAIL)  # as if never drawn
        left = [p for p in all_points(self._spaces) if self._label(p) not in self._known]
        chosen = zlib.crc32(f"{self._sweep.seed}/{self._drawn}".encode())
        return left[chosen % len(left)] if left else None

    def _as_optuna_has_them(self) -> list[FrozenTrial]:
        values = [trial.value for trial in self._trials if trial.value is not None]
        worst = max(values, default=None)
        frozen = [self._frozen(trial, worst) for trial in self._trials]
        return [trial for trial in frozen if trial is not None]

    def _frozen(self, trial: SearchTrial, worst: float | None) -> FrozenTrial | None:
        """A trial for TPE; None where it teaches nothing, as if its point were never drawn.

        worst: the value of any. A diverged trial counts as bad as that, not as infinity: it is bad,
        and does not bend the model. One that does not fit the memory is a violated constraint, so
        that TPE keeps away from such points. Of trials without an end TPE ranks later rungs first,
        then loss.
        """
        params = to_params(self._spaces, trial.suggestion.point)
        make = functools.partial(create_trial, params=params, distributions=self._distributions)
        value, at_rungs = trial.value, trial.at_rungs
        if trial.outcome == Outcome.COMPLETED:
            return None if value is None else make(value=value)
        if trial.outcome == Outcome.PRUNED or (trial.outcome is None and at_rungs):
            return make(state=TrialState.PRUNED, intermediate_values=at_rungs)
        if trial.outcome is None:
            return make(state=TrialState.RUNNING)
        if trial.outcome == Outcome.DIVERGED:
            return None if value is None else make(value=worst)
        if trial.outcome == Outcome.OUT_OF_MEMORY:  # ranked by the constraint, whatever its value
            return make(value=value or 0.0, constraints={"memory": 1.0})
        return None

    def _label(self, point: Point) -> str:
        return json.dumps(to_params(self._spaces, point), sort_keys=True)


def _tpe(startup: int, seed: int) -> TPESampler:
    return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=startup, seed=seed)


def startup_trials(num_trials: int) -> int:
    """Trials before TPE has something to go by: a quarter, from 4 to 10."""
    return min(10, max(4, num_trials // 4))
