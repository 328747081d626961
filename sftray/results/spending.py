"""What a sweep has spent, over all its starts, and whether that is its budget.

Promise: GPUs are counted as they are paid for: all that the sweep holds, for as long as it does,
whether they take a step or wait, from loading the base to the check of the winner. Spending
is in the journal once a minute, so a driver that dies forgets a minute at most. Neither ray nor
torch is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sftray.config import SweepConfig
from sftray.storage.journal import Event
from sftray.storage.journal.event_types import EventName


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
    """The spending in the journal."""
    wall = gpu = 0.0
    for event in events:
        if event["event"] == EventName.SPENT:
            wall, gpu = event["wall_seconds"], event["gpu_seconds"]
    return Spent.of(sweep, wall, gpu)


def shares(sweep: SweepConfig, spent: Spent) -> dict[str, float]:
    """Of every budget that the sweep has, the share that is used."""
    budgets = {
        "max_hours": (spent.wall_seconds / 3600, sweep.max_hours),
        "max_gpu_hours": (spent.gpu_seconds / 3600, sweep.max_gpu_hours),
        "max_cost": (spent.cost or 0.0, sweep.max_cost),
    }
    return {name: value / most for name, (value, most) in budgets.items() if most is not None}
