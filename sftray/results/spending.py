"""What a sweep has spent, over all its starts, and whether that is its budget.

Promise: GPUs are counted as they are paid for: all that the sweep holds, for as long as it does,
whether they take a step or wait, from loading the base to the check of the winner. What was spent
is in the journal once a minute, so a driver that dies forgets a minute at most. Neither ray nor
torch is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sftray.config import SweepConfig
from sftray.errors import Log
from sftray.storage.journal import Journal
from sftray.storage.journal.journal import Event

BUDGETS = ("max_hours", "max_gpu_hours", "max_cost", "price_per_gpu_hour")
"""The fields that say what a sweep may spend."""
LOOK_SECONDS = 1.0
"""Who asks again sooner gets the same answer."""
TELL_SECONDS = 60.0
"""From one event of the journal to the next."""
NEARLY = 0.8
"""Of a budget, when that is said."""


@dataclass(frozen=True)
class Spent:
    """Wall time, the time of GPUs, and what that costs where the sweep has a price."""

    wall_seconds: float = 0.0
    gpu_seconds: float = 0.0
    cost: float | None = None

    @classmethod
    def of(cls, sweep: SweepConfig, wall_seconds: float, gpu_seconds: float) -> Spent:
        price = sweep.price_per_gpu_hour
        return cls(wall_seconds, gpu_seconds, None if price is None else price * gpu_seconds / 3600)

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", {self.cost:.2f} of money"
        gpus = f", {self.gpu_seconds / 3600:.2f} GPU-hours" if self.gpu_seconds else ""
        return f"{self.wall_seconds / 3600:.2f} hours{gpus}{cost}"


def spent_in(sweep: SweepConfig, events: Iterable[Event]) -> Spent:
    """What the journal says was spent."""
    told: Mapping[str, Any] = {"wall_seconds": 0.0, "gpu_seconds": 0.0}
    for event in events:
        told = event if event["event"] == "spent" else told
    return Spent.of(sweep, told["wall_seconds"], told["gpu_seconds"])


def shares(sweep: SweepConfig, spent: Spent) -> dict[str, float]:
    """Of every budget that the sweep has, the share that is spent."""
    budgets = {
        "max_hours": (spent.wall_seconds / 3600, sweep.max_hours),
        "max_gpu_hours": (spent.gpu_seconds / 3600, sweep.max_gpu_hours),
        "max_cost": (spent.cost or 0.0, sweep.max_cost),
    }
    return {name: value / most for name, (value, most) in budgets.items() if most is not None}


class Meter:
    """The clock of a sweep that runs."""

    def __init__(
        self,
        sweep: SweepConfig,
        journal: Journal,
        gpus: Callable[[], float],
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        began: tuple[float, float] | None = None,
    ) -> None:
        """`gpus`: how many the sweep holds now; `clock` in seconds. `began`: when it did, by the
        clock, and how many there were then; None: now."""
        self._sweep, self._journal, self._gpus = sweep, journal, gpus
        self._log, self._clock = log, clock
        before = spent_in(sweep, journal.events())
        self._wall, self._gpu = before.wall_seconds, before.gpu_seconds
        self._number = sum(event["event"] == "spent" for event in journal.events())
        self._last, self._held = began or (clock(), gpus())
        self._told = self._last
        self._warned = False
        self.used_up = ""
        """The budget that is spent, as the field is called; or nothing."""
        self._ended_by = ""
        self._count()
        if self._number:  # a budget may have been raised
            self.tell()

    @property
    def spent(self) -> Spent:
        """Until it was last looked at."""
        return Spent.of(self._sweep, self._wall, self._gpu)

    def look(self) -> str:
        """Which budget is spent now, as the field is called; or nothing."""
        if self._clock() - self._last >= LOOK_SECONDS:
            self._count()
        if self._last - self._told >= TELL_SECONDS:
            self._write()
        return self.used_up

    def tell(self) -> None:
        """Journal what has been spent until now."""
        self._count()
        self._write()

    def end(self) -> None:
        """Journal that the sweep ends here by its budget, with trials left."""
        self._ended_by = self.used_up
        self.tell()

    def _count(self) -> None:
        now, held = self._clock(), self._gpus()
        passed, self._last = now - self._last, now
        self._wall += passed
        self._gpu += passed * min(self._held, held)  # those that have come since were not there
        self._held = held
        self._judge()

    def _write(self) -> None:
        self._told = self._last
        self._number += 1
        self._journal.append(
            "spent",
            attempt=self._number,
            wall_seconds=round(self._wall, 3),
            gpu_seconds=round(self._gpu, 3),
            budget=self._ended_by,
        )

    def _judge(self) -> None:
        most = max(shares(self._sweep, self.spent).items(), key=lambda one: one[1], default=None)
        if most is None:
            return
        name, share = most
        if share >= 1:
            self.used_up = name
        elif share >= NEARLY and not self._warned:
            self._warned = True
            limit = getattr(self._sweep, name)
            self._log(f"{share:.0%} of {name} = {limit:g} is spent: {self.spent}")
