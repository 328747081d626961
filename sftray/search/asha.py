"""ASHA: Asynchronous Successive Halving (Li et al. 2020, arXiv:1810.05934), its stopping variant.

The paper pauses trials at a rung and promotes the best 1/eta of them as they come in. The variant
here, Ray Tune's and Syne Tune's default as well, needs no paused trials: a trial that arrives at a
rung is stopped unless its loss is within the best 1/eta of the losses recorded there before it.

What follows from that: no trial ever waits for another; the first at a rung always goes on; a
decision is never revisited, so a trial that came early may go on where a later one of the same loss
is stopped; a stopped trial's loss stays in the rung. For trials in random order the share that goes
on tends to 1/eta from above.

Promise: pure functions of what was recorded, equal to Ray Tune's brackets on the same losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Decision:
    """What happens to a trial at a rung."""

    goes_on: bool
    cutoff: float | None
    """The largest loss that would have gone on; None for the first trial of a rung."""


def decide(recorded: Sequence[float], loss: float, reduction_factor: int) -> Decision:
    """Whether a trial with a finite `loss` goes on from a rung that has seen `recorded` before."""
    limit = cutoff(recorded, reduction_factor)
    return Decision(limit is None or loss <= limit, limit)


def cutoff(recorded: Sequence[float], reduction_factor: int) -> float | None:
    """The 1/reduction_factor quantile of the losses, linear between two of them."""
    if not recorded:
        return None
    return float(np.quantile(np.asarray(recorded, dtype=float), 1 / reduction_factor))
