"""The rungs at which trials are compared: one ladder of row counts for the whole sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sftray.config import SweepConfig
from sftray.config.points import field_values
from sftray.errors import ConfigError

GRACE_STEPS = 5
"""A rung that a trial reaches in fewer optimizer steps than this passes it by: the first step is
at learning rate 0, and a large batch is judged at a later rung, on as much data as the others."""


@dataclass(frozen=True)
class Rung:
    """A point of the sweep-wide ladder at which trials of one bracket are compared."""

    rows: int
    """Rows on the ladder: what every trial has seen here, give or take the overshoot."""
    step: int
    """The first optimizer step of this trial at or after `rows`."""
    overshoot: int
    """Rows seen beyond `rows` at that step; 0 where batch sizes divide the ladder."""


def rung_ladder(sweep: SweepConfig, rows_per_epoch: int) -> tuple[int, ...]:
    """The sweep-wide ladder of row counts at which trials are compared; without a scheduler they
    are only evaluated there, so that one can see what one would have done.

    Starts at `grace_rows` (by default the smallest budget / reduction_factor²), grows by
    `reduction_factor`, and lies on multiples of the batch sizes' least common multiple where that
    is no larger than the first rung, so that all batch sizes have then seen the same rows.
    """
    epochs = field_values(sweep, "num_train_epochs")
    if epochs is None and sweep.scheduler == "none":
        return ()
    if epochs is None:
        raise ConfigError(
            "search_space['num_train_epochs']: got a continuous range, must be choice([…]) under "
            f"scheduler={sweep.scheduler!r}: trials are compared only with those of the same epochs"
        )
    budgets = [round(value * rows_per_epoch) for value in epochs]
    eta = sweep.reduction_factor
    batches = field_values(sweep, "effective_batch_size")
    assert batches is not None  # whole numbers are no continuous range
    grace = sweep.grace_rows or max(1, round(min(budgets) / eta**2))
    multiple = math.lcm(*[int(batch) for batch in batches])
    if multiple <= grace:
        grace = round(grace / multiple) * multiple
    ladder = []
    while grace < max(budgets):
        ladder.append(grace)
        grace *= eta
    return tuple(ladder)
