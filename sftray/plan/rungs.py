"""The rungs at which trials are compared: one ladder of row counts for all trials of a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sftray.config import SweepConfig
from sftray.config.points import field_values, largest_value
from sftray.errors import ConfigError

Ladders = dict[float, tuple[int, ...]]
"""Epochs → the rows at which trials of that many epochs are compared."""


@dataclass(frozen=True)
class Rung:
    """A point of the ladder at which trials of one bracket are compared."""

    rows: int
    """Rows on the ladder: what every trial has seen here, give or take the overshoot."""
    step: int
    """The first optimizer step of this trial at or after `rows`."""
    overshoot: int
    """Rows seen beyond `rows` at that step; 0 where batch sizes divide the ladder."""


def rung_ladders(sweep: SweepConfig, rows_per_epoch: int) -> Ladders:
    """The rows at which trials are compared, by their epochs; without a scheduler they are only
    evaluated there, so that one can see what one would have done.

    Rungs are shares of the budget (`rungs`), none before the smallest batch has had its
    `grace_steps`. They are on multiples of the batch sizes' least common multiple where that is no
    larger than the first of them, so that all batch sizes have then seen the same rows. Raises
    ConfigError where epochs are a continuous range and trials are to be compared.
    """
    epochs = field_values(sweep, "num_train_epochs")
    if epochs is None and sweep.scheduler == "none":
        return {}
    if epochs is None:
        raise ConfigError(
            "search_space['num_train_epochs']: got a continuous range, must be choice([…]) under "
            f"scheduler={sweep.scheduler!r}: trials are compared only with those of the same epochs"
        )
    batches = field_values(sweep, "effective_batch_size")
    assert batches is not None  # whole numbers are no continuous range
    sizes = [int(batch) for batch in batches]
    return {one: _ladder(sweep, round(one * rows_per_epoch), sizes) for one in epochs}


def _ladder(sweep: SweepConfig, budget: int, sizes: Sequence[int]) -> tuple[int, ...]:
    smallest, multiple = min(sizes), math.lcm(*sizes)
    warmup = math.ceil(largest_value(sweep, "warmup_ratio") * (budget // smallest))
    sure = smallest * (warmup + sweep.grace_steps)
    rows = [max(sure, round(share * budget)) for share in sweep.rungs]
    if rows and multiple <= rows[0]:
        rows = [math.ceil(one / multiple) * multiple for one in rows]
    return tuple(sorted({one for one in rows if one < budget}))
