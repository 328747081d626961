"""As much of a proposal as takes at most so many minutes.

Promise: given up are, in this order, trials down to half, further epochs, the repetitions of the
best, more trials, and then conversations; each has its reason in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from sftray.config import SweepConfig
from sftray.errors import ConfigError, DataError
from sftray.plan.preview import Preview

FEWEST_TRIALS = 4
FEWEST_CONVERSATIONS = 50


@dataclass(frozen=True)
class Limits:
    """What a proposal may have; None for all that it would have."""

    minutes: float = 0.0
    """Why."""
    num_trials: int | None = None
    one_epoch: bool = False
    confirms: bool = True
    conversations: int | None = None

    def on(self, sweep: SweepConfig, reasons: dict[str, str]) -> SweepConfig:
        """The sweep within them, but for its data."""
        because = f"so that the sweep takes at most {self.minutes:g} minutes"
        if self.conversations is not None:
            reasons["data.max_conversations"] = f"{because}; more data are worth more"
        if self.num_trials is not None and self.num_trials < sweep.num_trials:
            reasons["num_trials"] = f"{because}; {sweep.num_trials} would be usual"
            sweep = replace(sweep, num_trials=self.num_trials)
        if not self.confirms:
            reasons["confirm_top"] = f"the best are not run again, {because}"
            sweep = replace(sweep, confirm_top=0)
        if self.one_epoch:
            reasons["trial.num_train_epochs"] = because
            searched = {k: v for k, v in sweep.search_space.items() if k != "num_train_epochs"}
            trial = replace(sweep.trial, num_train_epochs=1.0)
            sweep = replace(sweep, trial=trial, search_space=searched)
        return sweep


class Planned(Protocol):
    """A proposal."""

    @property
    def sweep(self) -> SweepConfig: ...
    @property
    def plan(self) -> Preview: ...


_Planned = TypeVar("_Planned", bound=Planned)


def within(
    minutes: float, first: _Planned, smaller: Callable[[Limits], _Planned], conversations: int
) -> _Planned:
    """`first`, or the largest of those that `smaller` makes which takes at most so many minutes at
    the most. conversations: of the largest source. Raises ConfigError where none does."""
    if first.plan.duration is None:
        where = first.plan.gpu_name or "this machine"
        raise ConfigError(
            f"--minutes: got {minutes:g}, but the speed of {where} is not known",
            "add --probe where the sweep will run",
        )
    least, fitted = first.plan.duration.most, first
    less = _ever_less(minutes, first.sweep.num_trials, conversations)
    while least > 60 * minutes and (limits := next(less, None)):
        try:
            fitted = smaller(limits)
        except DataError:  # too few rows to take steps on
            break
        assert fitted.plan.duration is not None
        least = fitted.plan.duration.most
    if least <= 60 * minutes:
        return fitted
    raise ConfigError(
        f"--minutes: got {minutes:g}, must be at least {math.ceil(least / 60)}: the smallest sweep "
        "that shows anything takes as long",
        "give more minutes, or a smaller base",
    )


def _ever_less(minutes: float, trials: int, conversations: int) -> Iterator[Limits]:
    few, limits = min(trials, FEWEST_TRIALS), Limits(minutes)
    half = max(few, trials // 2)
    for number in range(trials - 1, half - 1, -max(1, trials // 8)):
        limits = replace(limits, num_trials=number)
        yield limits
    limits = replace(limits, one_epoch=True)
    yield limits
    limits = replace(limits, confirms=False)
    yield limits
    for number in range(half - 1, few - 1, -max(1, trials // 8)):
        limits = replace(limits, num_trials=number)
        yield limits
    limits = replace(limits, num_trials=few)
    while conversations // 2 >= FEWEST_CONVERSATIONS:
        conversations //= 2
        yield replace(limits, conversations=conversations)
