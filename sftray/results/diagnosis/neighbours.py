"""A trial with a strange batch beside trials that differ from it in learning rate or seed alone:
where it ends above them, the batch has done damage.

Promise: silent unless two neighbours have completed, one of a rate as low or lower, one of a rate
as high or higher: over the logarithm of the rate losses lie in a valley, so a healthy trial between
two others does not end above both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from sftray.config import TrialConfig
from sftray.results.diagnosis.one_diagnosis import Diagnosis, lower_rate
from sftray.results.records import TrialRecord
from sftray.storage.journal.event_types import Outcome

NEAR = 4.0
"""A neighbour's learning rate is at most so many times the trial's, or it times a neighbour's."""
WORSE = 0.02
"""Above both by more than this share of a loss; seeds alone make half of it."""
HARMLESS = "; the loss came back."


def after_strange_batch(
    found: Diagnosis,
    trial: TrialRecord,
    trials: Sequence[TrialRecord],
    config_of: Callable[[TrialRecord], TrialConfig],
) -> Diagnosis:
    """The diagnosis `strange_batch` of a trial, as a spike of consequence where it ends worse than
    its neighbours."""
    beside = neighbours_of(trial, trials, config_of)
    ends = {one.trial: one.trained[-1]["eval_loss"] for one in (trial, *beside)}
    if len(beside) < 2 or ends[trial.trial] <= (1 + WORSE) * max(ends[n.trial] for n in beside):
        return found
    others = " and ".join(f"{one.trial} at {ends[one.trial]:.4f}" for one in beside)
    what = (
        f"; it ends at {ends[trial.trial]:.4f}, its neighbours in learning rate or seed, {others}."
    )
    return replace(
        found,
        kind="loss_spikes",
        verdict=found.verdict.removesuffix(HARMLESS) + what,
        advice=f"{lower_rate(config_of(trial), 3)}; if trials of other rates have it too, "
        f"{found.advice[0].lower()}{found.advice[1:].partition(';')[0]}.",
    )


def neighbours_of(
    trial: TrialRecord,
    trials: Sequence[TrialRecord],
    config_of: Callable[[TrialRecord], TrialConfig],
) -> list[TrialRecord]:
    """The nearest from below and the nearest from above, as far as there are."""
    own = config_of(trial)
    apart: dict[str, float] = {}
    for one in trials:
        theirs = config_of(one)
        alike = replace(theirs, learning_rate=own.learning_rate, seed=own.seed) == own
        if one is not trial and one.outcome == Outcome.COMPLETED and one.trained and alike:
            apart[one.trial] = math.log(theirs.learning_rate / own.learning_rate)
    near = [one for one in trials if abs(apart.get(one.trial, math.inf)) <= math.log(NEAR)]
    below = [one for one in near if apart[one.trial] <= 0]
    above = [one for one in near if apart[one.trial] >= 0]
    first = max(below, key=lambda one: apart[one.trial], default=None)
    others = [one for one in above if one is not first]
    second = min(others, key=lambda one: apart[one.trial], default=None)
    return [one for one in (first, second) if one is not None]
