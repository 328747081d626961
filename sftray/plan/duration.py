"""How long a sweep takes, and what that costs, before it starts.

Promise: arithmetic on rows, evaluations and a measured or estimated speed. The least is a sweep
whose trials all stop at the first rung, the most one whose trials never stop. Downloads and the
answers that a metric asks for are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sftray.config import SweepConfig
from sftray.plan.gpu_speed import Speed
from sftray.plan.trial_shape import TrialShape

START_SECONDS = 30.0, 75.0
"""Ray, packs, the base, its proof; at the end the winner's check and the report."""
EVALUATED = 0.5
"""What a position takes that is only evaluated, of one that is trained on."""


@dataclass(frozen=True)
class Devices:
    """What a sweep's trials run on."""

    number: int = 1
    """GPUs, or groups of as many as a trial has workers; on CPUs 1."""
    slots: int = 1
    """Trials at a time on each."""


@dataclass(frozen=True)
class Duration:
    """Seconds from the start of the process to the winner."""

    least: float
    most: float

    @classmethod
    def of(
        cls,
        sweep: SweepConfig,
        shapes: Sequence[TrialShape],
        eval_rows: int,
        devices: Devices,
        speed: Speed,
    ) -> Duration:
        """shapes: all that trials can have; eval_rows: packed rows that are evaluated on."""
        again = sweep.confirm_top * sweep.confirm_seeds
        at_once = devices.number * devices.slots

        def positions(trials: int, waves: float, rows: int, evaluations: int) -> float:
            """Of one device, idle slots included."""
            trained = waves * devices.slots * rows
            evaluated = EVALUATED * trials * evaluations * eval_rows / devices.number
            return sweep.data.max_length * (trained + evaluated)

        rows, evaluations = (
            [shape.plan.rows for shape in shapes],
            [len(shape.plan.eval_steps) for shape in shapes],
        )
        first = min(shape.rows_to_first_rung for shape in shapes)
        first_evaluations = min(shape.evaluations_to_first_rung for shape in shapes)
        trials, waves = sweep.total_trials, math.ceil(again / at_once)
        least = positions(trials, max(1.0, trials / at_once), first, first_evaluations)
        least += positions(again, waves, min(rows), min(evaluations))
        most = positions(trials, math.ceil(trials / at_once), max(rows), max(evaluations))
        most += positions(again, waves, max(rows), max(evaluations))
        start, slow_start = START_SECONDS
        return cls(
            start + speed.loading + least / speed.fastest,
            slow_start + speed.loading + most / speed.slowest,
        )

    def text(self) -> str:
        """`4 to 9 minutes`, `2.1 to 5.3 hours`."""
        if self.most < 7200:
            return f"{max(1, int(self.least // 60))} to {math.ceil(self.most / 60)} minutes"
        return f"{self.least / 3600:.1f} to {self.most / 3600:.1f} hours"

    def cost(self, gpus: int, price: float) -> tuple[float, float]:
        """At a price of a GPU's hour."""
        return gpus * price * self.least / 3600, gpus * price * self.most / 3600
