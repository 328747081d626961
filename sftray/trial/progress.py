"""What a trial has done so far, and the metrics that it reports; the same for every trainer.

Promise: the metrics of docs/architecture.md are computed here and nowhere else; a loss or gradient
norm that is not finite is a DivergedError at its step, naming learning rate and rows. A checkpoint
carries the evaluations that may not have reached the journal, so that none is lost with a driver.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NotRequired, TypedDict

import numpy as np

from sftray.config import TrialConfig
from sftray.plan.trial_plan import TrialPlan
from sftray.storage.journal.event_types import Metrics, Outcome, RanWith
from sftray.trial.eval_losses import EvalLoss
from sftray.trial.trial_report import Report

Reporter = Callable[[Report], object]
"""Takes a report. Raises StoppedError where the trial is not wanted any more."""


class BestEvaluation(TypedDict):
    step: int
    eval_loss: float


class Since(TypedDict):
    """What has been trained since an evaluation."""

    curve: list[list[float]]
    weights: list[int]
    seconds: float
    gpu_seconds: float
    energy_wh: NotRequired[float | None]


class TrialState(TypedDict):
    """Where a trial stands, as a checkpoint keeps it."""

    step: int
    metrics: Metrics
    """Of the newest evaluation."""
    before: list[Metrics]
    best: BestEvaluation
    since: Since


class DivergedError(Exception):
    """The loss or the gradient is no longer a finite number."""


class StoppedError(Exception):
    """The search has stopped the trial: raised by its `report`, and through the trainer."""


class Progress:
    """One trial's running account."""

    def __init__(self, trial: TrialConfig, plan: TrialPlan, row_tokens: np.ndarray) -> None:
        """row_tokens: tokens of each row of the trial's stream, padding left out, [plan.rows]."""
        self._trial, self._plan = trial, plan
        self._tokens_before = np.concatenate([[0], np.cumsum(row_tokens)])
        self.best: BestEvaluation = {"step": 0, "eval_loss": math.inf}
        self.last = _NONE
        """The newest evaluation."""
        self._before: list[Metrics] = []
        """Those of the evaluations before it that the search may not know: since the last rung,
        where a trial waits for its word."""
        self._rungs = frozenset(rung.step for rung in plan.rungs)
        self.seconds = 0.0
        """In training steps, over all attempts; evaluations and checkpoints left out."""
        self.gpu_seconds = 0.0
        """Its share of them: times its workers, or a bank's divided among the slots in use."""
        self.energy_wh: float | None = None
        """What its GPUs have taken for it, evaluations included; None where nothing counts that."""
        self._supervised_tokens = 0
        self._curve: list[list[float]] = []
        self._weights: list[int] = []
        self._rows_at_report = 0
        self._seconds_at_report = 0.0

    def state(self) -> TrialState:
        return {
            "step": int(self._curve[-1][0]) if self._curve else self.last["step"],
            "metrics": self.last,
            "before": self._before,
            "best": self.best,
            "since": {
                "curve": self._curve,
                "weights": self._weights,
                "seconds": self.seconds,
                "gpu_seconds": self.gpu_seconds,
                "energy_wh": self.energy_wh,
            },
        }

    def resume(self, state: TrialState) -> None:
        """Continue from a checkpoint."""
        self.best, self.last = state["best"], state["metrics"]
        self._before = list(state["before"])
        since = state["since"]
        self._curve, self._weights = list(since["curve"]), list(since["weights"])
        self._supervised_tokens = self.last["supervised_tokens"] + sum(self._weights)
        self._rows_at_report = self.last["rows"]
        self.seconds, self._seconds_at_report = since["seconds"], self.last["seconds"]
        self.gpu_seconds, self.energy_wh = since["gpu_seconds"], since.get("energy_wh")

    def again(self, facts: RanWith) -> list[Report]:
        """The reports with which a trial continues: evaluations that may have died with a driver on
        their way to it, the newest last. `facts`: what the trial runs with."""
        before = [
            Report({**metrics, **facts} if metrics["step"] == 0 else metrics)
            for metrics in self._before
        ]
        step = self.state()["step"]
        newest: Metrics = {**self.last, **facts, "resumed_from_step": step}
        return [*before, Report(newest, waits=step == self.last["step"] and step in self._rungs)]

    def start(self, base: EvalLoss, facts: RanWith) -> Report:
        """Step 0: the untrained base, and what the trial runs with."""
        self.last = {**_NONE, "step": 0, "eval_loss": base.mean, "gpu_seconds": 0.0}
        self._take(base)
        return Report({**self.last, **facts})

    def took(self, energy_wh: float | None) -> None:
        """Take some of a GPU's energy into account."""
        if energy_wh is not None:
            self.energy_wh = (self.energy_wh or 0.0) + energy_wh

    def trained(
        self, step: int, loss: float, learning_rate: float, norm: float, supervised_tokens: int
    ) -> None:
        """Take an optimizer step into account: its loss, its gradient's norm before clipping.

        Raises DivergedError where either is not finite.
        """
        self._supervised_tokens += supervised_tokens
        self._curve.append([step, loss, learning_rate, norm])
        self._weights.append(supervised_tokens)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            batch = self._trial.effective_batch_size
            raise DivergedError(
                f"step {step}: loss {loss}, gradient norm {norm} at learning rate "
                f"{learning_rate:.3g}, rows {(step - 1) * batch} to {step * batch - 1}, "
                f"after {self._supervised_tokens} supervised tokens"
            )

    def evaluated(
        self,
        step: int,
        eval_loss: EvalLoss,
        gpu_memory_gb: float,
        data_wait: float | None = None,
        facts: RanWith | None = None,
    ) -> Report:
        """The evaluation after optimizer step `step`. `data_wait`: the share of training steps that
        fetching their rows took; `facts`: what has changed of what the trial runs with."""
        known = self.last["step"] < 0 or self.last["step"] in self._rungs
        self._before = [] if known else [*self._before, self.last]
        rows = step * self._trial.effective_batch_size
        tokens = int(self._tokens_before[rows])
        fresh = tokens - int(self._tokens_before[self._rows_at_report])
        losses = sum(
            entry[1] * weight for entry, weight in zip(self._curve, self._weights, strict=True)
        )
        self.last = {
            "step": step,
            "rows": rows,
            "epoch": step / self._plan.steps * self._trial.num_train_epochs,
            "tokens": tokens,
            "supervised_tokens": self._supervised_tokens,
            "train_loss": losses / max(sum(self._weights), 1),
            "eval_loss": eval_loss.mean,
            "learning_rate": self._curve[-1][2],
            "grad_norm": self._curve[-1][3],
            "tokens_per_second": fresh / max(self.seconds - self._seconds_at_report, 1e-9),
            "gpu_memory_gb": gpu_memory_gb,
            "seconds": self.seconds,
            "gpu_seconds": self.gpu_seconds,
            "micro_batch_size": self._plan.micro_batch_size,
            "curve": self._curve,
        }
        self._take(eval_loss)
        if self.energy_wh is not None:
            self.last["energy_wh"] = self.energy_wh
        if data_wait is not None:
            self.last["data_wait"] = data_wait
        if eval_loss.mean < self.best["eval_loss"]:
            self.best = {"step": step, "eval_loss": eval_loss.mean}
        self._curve, self._weights = [], []
        self._rows_at_report, self._seconds_at_report = rows, self.seconds
        return Report({**self.last, **(facts or {})}, waits=step in self._rungs)

    def _take(self, loss: EvalLoss) -> None:
        if loss.by_kind:
            self.last["eval_loss_by_kind"] = loss.by_kind
        if loss.by_source:
            self.last["eval_loss_by_source"] = loss.by_source

    def ended(self, outcome: str, message: str = "") -> Report:
        """A trial's last report."""
        last: Metrics | None = None
        if self.last["step"] >= 0:
            last = {**self.last, "curve": []}
        curve = self._curve if outcome == Outcome.DIVERGED else None
        return Report(last, outcome, message, last_curve=curve)


_NONE: Metrics = {
    "step": -1,
    "rows": 0,
    "tokens": 0,
    "supervised_tokens": 0,
    "eval_loss": math.inf,
    "seconds": 0.0,
}
"""Before the first evaluation."""
