"""Which trials continue from a rung, and which are stopped there.

Asynchronous Successive Halving (ASHA; Li et al. 2020, arXiv:1810.05934), its stopping variant. The
paper pauses trials at a rung and promotes the best 1/eta of them as they come in. The variant here,
Ray Tune's and Syne Tune's default as well, needs no paused trials: a trial that arrives at a rung
is stopped unless its loss is within the best 1/eta of those recorded there before it.

One thing is added: the LEAST_KEPT lowest of those at a rung always continue. On landscapes of
others the best trial at the end is often the second at a rung (docs/search.md).

What follows from judging trials as they come: none ever waits for another; the first at a rung
always continues; a decision is never revisited, so a trial that came early may continue where a
later one of the same loss is stopped; a stopped trial's loss stays in the rung. For trials in
random order the share that continues tends to 1/eta from above.

Promise: a pure function of what was recorded; but for the LEAST_KEPT lowest its decisions are those
of Ray Tune's brackets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftray.config.trainings import cutoff_among


@dataclass(frozen=True)
class Decision:
    """What happens to a trial at a rung."""

    goes_on: bool
    cutoff: float | None
    """The largest loss that would have continued; None where every loss would."""


def asha(recorded: Sequence[float], loss: float, reduction_factor: int) -> Decision:
    """Whether a trial continues from a rung that has seen `recorded` before: whether its loss is at
    most their 1/reduction_factor quantile, linear between two of them, or one of the LEAST_KEPT
    lowest. All losses are finite."""
    cutoff = cutoff_among(sorted(recorded), reduction_factor)
    return Decision(cutoff is None or loss <= cutoff, cutoff)
