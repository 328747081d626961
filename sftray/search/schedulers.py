"""Which trials go on from a rung, and which are stopped there.

- `asha`: Asynchronous Successive Halving (Li et al. 2020, arXiv:1810.05934), its stopping variant.
  The paper pauses trials at a rung and promotes the best 1/eta of them as they come in. The variant
  here, Ray Tune's and Syne Tune's default as well, needs no paused trials: a trial that arrives at
  a rung is stopped unless its loss is within the best 1/eta of those recorded there before it.
- `hyperband`: the same in several brackets (Li et al. 2018, arXiv:1603.06560), of which each
  begins at a later rung than the one before: where early losses mislead, some trials are judged
  late.
- `median`: the median stopping rule (Golovin et al. 2017, "Google Vizier"): a trial is stopped
  where its best loss so far is above the median of the others' running averages.

What follows from judging trials as they come: none ever waits for another; the first at a rung
always goes on; a decision is never revisited, so a trial that came early may go on where a later
one of the same loss is stopped; a stopped trial's loss stays in the rung. For trials in random
order the share that goes on under ASHA tends to 1/eta from above.

Promise: pure functions of what was recorded; ASHA's are Ray Tune's brackets on the same losses.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_TRIALS = 3
"""Trials that a rung must have seen before the median rule stops one there, as in Ray Tune."""
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Decision:
    """What happens to a trial at a rung."""

    goes_on: bool
    cutoff: float | None
    """The largest loss that would have gone on; None where every loss would."""


def judge(
    scheduler: str,
    recorded: Mapping[str, Sequence[float]],
    losses: Sequence[float],
    reduction_factor: int,
) -> Decision:
    """Whether a trial goes on from a rung.

    recorded: of the trials that have been at this rung, their losses at the rungs up to this one;
    losses: this trial's, the last of them at this rung. All finite.
    """
    if scheduler == "median":
        return median(list(recorded.values()), losses)
    return asha([one[-1] for one in recorded.values()], losses[-1], reduction_factor)


def asha(recorded: Sequence[float], loss: float, reduction_factor: int) -> Decision:
    """Whether a trial goes on from a rung that has seen `recorded` before: whether its loss is at
    most their 1/reduction_factor quantile, linear between two of them."""
    if not recorded:
        return Decision(True, None)
    cutoff = float(np.quantile(np.asarray(recorded, dtype=float), 1 / reduction_factor))
    return Decision(loss <= cutoff, cutoff)


def median(recorded: Sequence[Sequence[float]], losses: Sequence[float]) -> Decision:
    """Whether a trial's best loss is at most the median of the others' averages."""
    if len(recorded) < MIN_TRIALS:
        return Decision(True, None)
    cutoff = statistics.median(statistics.fmean(one) for one in recorded)
    return Decision(min(losses) <= cutoff, cutoff)


def rungs_passed_by(number: int, rungs: int, reduction_factor: int) -> int:
    """At how many of a ladder's `rungs` trial `number` is not judged under Hyperband.

    As many trials are in a bracket as Hyperband gives it, the most in the one that is judged from
    the first rung; the golden ratio spreads them over the sweep.
    """
    eta = reduction_factor
    shares = [(rungs + 1) / (left + 1) * eta**left for left in range(rungs, -1, -1)]
    along = (number * GOLDEN) % 1 * sum(shares)
    for passed_by, share in enumerate(shares):
        along -= share
        if along < 0:
            return passed_by
    return rungs
