"""Optuna's TPE behind ask, replay, report and tell.

Promise: the point of trial n is a function of the sweep's seed, n, and of what had been suggested
and told before it, so replaying a journal gives the point that an undisturbed sweep would get; no
point is suggested twice. The study lives in memory; nothing of Optuna's is written.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from sftray.search.space import (
    Point,
    all_points,
    distributions,
    spread_point,
    to_params,
    to_point,
)
from sftray.spaces import Space

REPEATS = 20
"""How often TPE may draw a point that was suggested before, until another is picked."""


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
        objectives: int = 1,
    ) -> None:
        """first: points to begin with. objectives: how many values, all minimised, a trial has."""
        self._spaces = spaces
        self._distributions = distributions(spaces)
        self._startup = max(startup_trials(num_trials), len(first))
        self._first = first
        self._seed = seed
        self._objectives = objectives
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=["minimize"] * objectives)
        self._trials: list[optuna.Trial] = []
        self._known: set[str] = set()
        self._drawn = 0
        self._worst = [-math.inf] * objectives

    def ask(self, number: int) -> Point | None:
        """The point of trial `number`; asking again gives the same one. None where every point of
        the space has been suggested."""
        if number == len(self._trials):
            point = self._at_the_start() if self._drawn < self._startup else None
            if point is not None:
                self.replay(number, point)
            elif not self._draw():
                return None
        return to_point(self._spaces, self._trials[number].params)

    def replay(self, number: int, point: Mapping[str, Any], *, drawn: bool = True) -> None:
        """Put the study where `ask` had left it when it gave `point`; a point of another sweep was
        not `drawn` by this one."""
        if number == len(self._trials):
            self._study.enqueue_trial(to_params(self._spaces, point))
            self._add(self._study.ask(self._distributions), drawn=drawn)

    def report(self, number: int, rows: int, loss: float) -> None:
        """A trial's loss at a rung. Among pruned trials TPE ranks later rungs first, then loss."""
        if self._objectives == 1:  # with several Optuna knows no intermediate values
            self._trials[number].report(loss, step=rows)

    def tell(self, number: int, outcome: str, values: Sequence[float] | None) -> None:
        """A trial's end with its values, each finite; None where it has none. Of a diverged trial
        they are the worst that it had.

        A diverged one is told as bad as the worst there was, not as infinity: it counts, and does
        not bend the model. One that does not fit the memory is a violated constraint, so that TPE
        keeps away from such points. Others that neither ended well nor were pruned teach TPE
        nothing: their points are as if never drawn.
        """
        trial, told = self._trials[number], list(values) if values is not None else None
        if outcome in ("completed", "pruned") and told is not None:
            self._worst = [max(pair) for pair in zip(self._worst, told, strict=True)]
        if outcome == "pruned" and self._objectives == 1:
            self._study.tell(trial, state=TrialState.PRUNED)
        elif outcome in ("completed", "pruned") and told is not None:
            self._study.tell(trial, told)
        elif outcome == "diverged" and told is not None:
            self._study.tell(trial, [max(pair) for pair in zip(self._worst, told, strict=True)])
        elif outcome == "out_of_memory":
            trial.set_constraint("memory", 1.0)  # TPE ranks it by the constraint
            self._study.tell(trial, told or [0.0] * self._objectives)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

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

    def _draw(self) -> bool:
        """Add what TPE suggests, or, where that has been suggested too often, another point."""
        for repeat in range(REPEATS):
            self._study.sampler = TPESampler(
                multivariate=True,
                constant_liar=True,
                n_startup_trials=self._startup,
                seed=zlib.crc32(f"{self._seed}/{self._drawn}/{repeat}".encode()),
            )
            trial = self._study.ask(self._distributions)
            if self._label(to_point(self._spaces, trial.params)) not in self._known:
                self._add(trial)
                return True
            self._study.tell(trial, state=TrialState.FAIL)  # as if never drawn
        left = [p for p in all_points(self._spaces) if self._label(p) not in self._known]
        if left:
            pick = zlib.crc32(f"{self._seed}/{self._drawn}".encode()) % len(left)
            self.replay(len(self._trials), left[pick])
        return bool(left)

    def _add(self, trial: optuna.Trial, *, drawn: bool = True) -> None:
        self._trials.append(trial)
        self._known.add(self._label(to_point(self._spaces, trial.params)))
        self._drawn += drawn

    def _label(self, point: Mapping[str, Any]) -> str:
        return json.dumps(to_params(self._spaces, point), sort_keys=True)


def startup_trials(num_trials: int) -> int:
    """Trials before TPE has something to go by: a quarter, from 4 to 10."""
    return min(10, max(4, num_trials // 4))
