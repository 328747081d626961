"""Optuna's TPE behind ask, replay, report and tell.

Promise: the point of trial n is a function of the sweep's seed, n, and of what had been suggested
and told before it, so replaying a journal gives the point that an undisturbed sweep would get. The
study lives in memory; nothing of Optuna's is written.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from sftray.search.space import Point, distributions, spread_point, to_params, to_point
from sftray.spaces import Space


class Sampler:
    """Points of a search space: first some spread evenly over it, then each drawn with the
    knowledge of the trials before it.

    Multivariate TPE (Bergstra et al. 2011; Falkner et al. 2018) with the constant liar, so that
    trials running at the same time spread out.
    """

    def __init__(self, spaces: Mapping[str, Space], *, num_trials: int, seed: int) -> None:
        self._spaces = spaces
        self._distributions = distributions(spaces)
        self._num_trials = num_trials
        self._seed = seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="minimize")
        self._trials: list[optuna.Trial] = []

    def ask(self, number: int) -> Point:
        """The point of trial `number`; asking again gives the same one."""
        if number == len(self._trials) and number < startup_trials(self._num_trials):
            self.replay(number, spread_point(self._spaces, number, self._seed))
        elif number == len(self._trials):
            self._study.sampler = TPESampler(
                multivariate=True,
                constant_liar=True,
                n_startup_trials=startup_trials(self._num_trials),
                seed=zlib.crc32(f"{self._seed}/{number}".encode()),
            )
            self._trials.append(self._study.ask(self._distributions))
        return to_point(self._spaces, self._trials[number].params)

    def replay(self, number: int, point: Mapping[str, Any]) -> None:
        """Put the study where `ask` had left it when it gave `point`."""
        if number == len(self._trials):
            self._study.enqueue_trial(to_params(self._spaces, point))
            self._trials.append(self._study.ask(self._distributions))

    def report(self, number: int, rows: int, loss: float) -> None:
        """A trial's loss at a rung. Among pruned trials TPE ranks later rungs first, then loss."""
        self._trials[number].report(loss, step=rows)

    def tell(self, number: int, outcome: str, loss: float | None) -> None:
        """A trial's end with its best loss.

        One that does not fit the memory is told as a violated constraint, so that TPE keeps away
        from such points; others that neither ended well nor were pruned teach TPE nothing: their
        points are as if never drawn.
        """
        trial = self._trials[number]
        if outcome == "completed" and loss is not None and math.isfinite(loss):
            self._study.tell(trial, loss)
        elif outcome == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        elif outcome == "out_of_memory":
            trial.set_constraint("memory", 1.0)
            self._study.tell(trial, 0.0 if loss is None else loss)  # TPE ranks it by the constraint
        else:
            self._study.tell(trial, state=TrialState.FAIL)


def startup_trials(num_trials: int) -> int:
    """Trials spread evenly before TPE has something to go by: a quarter, from 4 to 10."""
    return min(10, max(4, num_trials // 4))
