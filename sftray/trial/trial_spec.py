"""What a worker needs to know of its trial."""

from __future__ import annotations

from dataclasses import dataclass

from sftray.cluster.node_sight import Sight
from sftray.config import TrialConfig
from sftray.plan.trial_plan import TrialPlan


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
    base_eval_loss: float | None = None
    """The untrained base's, where an earlier trial has measured it."""
    num_samples_generated: int = 2
    sample_prompts: tuple[str, ...] = ()
    sample_at: str = "end"
    metric: str | None = None
    """ "module:function" of `metrics`."""
    metric_at: str = "end"
    judges_metric: bool = False
    """Whether trials are compared at rungs by it."""
    num_metric_prompts: int = 0
    sight: Sight | None = None
    """What its node has to see."""
