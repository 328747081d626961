"""What the trials of a sweep do that have one batch size and one number of epochs."""

from __future__ import annotations

from dataclasses import dataclass

from sftray.config import TrialConfig
from sftray.plan.trial_plan import TrialPlan


@dataclass(frozen=True)
class TrialShape:
    """What trials of one batch size and number of epochs do."""

    trial: TrialConfig
    plan: TrialPlan
    tokens_per_row: float

    @property
    def rows_to_first_rung(self) -> int:
        return self.plan.rungs[0].rows if self.plan.rungs else self.plan.rows

    @property
    def evaluations_to_first_rung(self) -> int:
        last = self.plan.rungs[0].step if self.plan.rungs else self.plan.steps
        return sum(step <= last for step in self.plan.eval_steps)

    @property
    def tokens(self) -> int:
        return round(self.plan.rows * self.tokens_per_row)

    @property
    def tokens_to_first_rung(self) -> int:
        return round(self.rows_to_first_rung * self.tokens_per_row)

    def to_json(self) -> dict[str, object]:
        of_trial = ("effective_batch_size", "num_workers", "num_train_epochs")
        of_plan = ("micro_batch_size", "accumulation", "steps", "warmup_steps")
        return {
            **{name: getattr(self.trial, name) for name in of_trial},
            **{name: getattr(self.plan, name) for name in (*of_plan, "rows", "rows_dropped")},
            "tokens": self.tokens,
            "tokens_to_first_rung": self.tokens_to_first_rung,
            "rungs": [{"rows": rung.rows, "step": rung.step} for rung in self.plan.rungs],
            "evaluations": len(self.plan.eval_steps),
        }
