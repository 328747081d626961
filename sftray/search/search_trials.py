"""What a search knows of its trials: suggestions, outcomes, the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sftray.config.points import Point
from sftray.plan.rungs import Rung
from sftray.plan.trial_plan import TrialPlan
from sftray.search.asha import Decision
from sftray.storage.journal.event_types import Metrics


@dataclass(frozen=True)
class Suggestion:
    """A trial to run."""

    trial: str
    point: Point
    judged: bool = True
    """At rungs; a repetition never is."""


@dataclass(frozen=True)
class KnownTrial:
    """A trial of another sweep that need not be run again in this one."""

    point: Point
    results: Sequence[Metrics]
    """The metrics of its evaluations."""
    outcome: str
    sweep: str
    """The other sweep's folder."""
    folder: str
    """The trial's folder there."""


@dataclass(frozen=True)
class Best:
    """The best evaluation of a sweep: not a trial's last one, and whatever became of the trial."""

    trial: str
    step: int
    eval_loss: float


@dataclass
class SearchTrial:
    suggestion: Suggestion
    plan: TrialPlan
    confirms: str | None
    """The trial that it repeats with another seed."""
    folder: str | None
    """Where it ran, if that was another sweep."""
    losses: dict[int, float | None] = field(default_factory=dict)
    """Eval loss by step, of every result; None where the result had none."""
    judged_by: dict[int, float | None] = field(default_factory=dict)
    """By step, what counts at a rung and is made small: the loss, or the metric, turned over
    where higher is better."""
    peers: dict[int, Mapping[str, float]] = field(default_factory=dict)
    """By step, the same of trials that came to the same rung at the same moment."""
    decisions: dict[int, Decision] = field(default_factory=dict)
    metric: float | None = None
    value: float | None = None
    """What the sampler makes small, once it has ended; None where it has nothing."""
    attempts: int = 0
    message: str = ""
    """What ended the last attempt that failed."""
    outcome: str | None = None

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Where it is judged; a repetition never is."""
        return self.plan.rungs if self.suggestion.judged else ()

    @property
    def at_rungs(self) -> dict[int, float]:
        """Rows of the rungs that it was judged at → what counted there."""
        judged = [rung for rung in self.rungs if rung.step in self.decisions]
        known = {rung.rows: self.judged_by[rung.step] for rung in judged}
        return {rows: loss for rows, loss in known.items() if loss is not None}

    def best(self) -> tuple[float, int] | None:
        """The lowest finite eval loss after the start, and its step."""
        finite = [
            (loss, step)
            for step, loss in self.losses.items()
            if step > 0 and loss is not None and math.isfinite(loss)
        ]
        return min(finite, default=None)

    def worst(self) -> float | None:
        """The highest finite eval loss, the base's among them."""
        known = [loss for loss in self.losses.values() if loss is not None and math.isfinite(loss)]
        return max(known, default=None)

    def since_its_best(self, step: int, loss: float) -> int:
        """How many evaluations there have been after the best until `step`, whose loss this is; 0
        before the start."""
        losses = {**self.losses, step: loss}
        trained = [losses[at] for at in sorted(losses) if 0 < at <= step]
        known = [math.inf if one is None else one for one in trained]
        return len(known) - 1 - known.index(min(known)) if known else 0
