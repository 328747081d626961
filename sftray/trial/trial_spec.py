"""What a worker needs to know of its trial; plain JSON values on the way through Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sftray.config import TrialConfig
from sftray.plan.effective_batch import Execution
from sftray.plan.rungs import Rung
from sftray.plan.trial_plan import TrialPlan
from sftray.storage import files


@dataclass(frozen=True)
class TrialSpec:
    """All that a worker needs to run one trial."""

    trial: str
    """The trial's id."""
    config: TrialConfig
    plan: TrialPlan
    packs: str
    """Root of the packs."""
    folder: str
    """<sweep>/trials/<id>"""
    leaderboard: str | None
    """Where an earlier trial's measurement of the untrained base may be found."""
    num_samples_generated: int = 2
    sample_prompts: tuple[str, ...] = ()
    sample_at: str = "end"
    metric: str | None = None
    """ "module:function" of `metrics`."""
    num_metric_prompts: int = 0

    def known_base_loss(self) -> float | None:
        """The untrained base's eval loss, where an earlier trial has measured it."""
        if self.leaderboard is None or not files.exists(self.leaderboard):
            return None
        loss: float | None = json.loads(files.read_text(self.leaderboard))["base"]["eval_loss"]
        return loss

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialSpec:
        plan = values["plan"]
        rungs = tuple(Rung(**rung) for rung in plan["rungs"])
        return cls(
            **{
                **values,
                "config": TrialConfig(**values["config"]),
                "sample_prompts": tuple(values["sample_prompts"]),
                "plan": TrialPlan(
                    **{
                        **plan,
                        "rungs": rungs,
                        "eval_steps": tuple(plan["eval_steps"]),
                        "execution": Execution(**plan["execution"]),
                    }
                ),
            }
        )
