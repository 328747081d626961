"""Steps, rows, rungs, accumulation: the arithmetic of a sweep, and nothing else.

Promise: every number that a trial runs with is computed here and nowhere else, from the
configuration and the number of packed rows. Price: standard library only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from sftray.config import SweepConfig, TrialConfig, choice
from sftray.config.checks import is_number
from sftray.config.data_config import WeightedSource
from sftray.config.points import field_values
from sftray.config.shares import at_shares
from sftray.errors import ConfigError
from sftray.plan.effective_batch import ONE_ROW, Execution, split_batch
from sftray.plan.lr_schedule import scheduled_rate, warmup_steps
from sftray.plan.rungs import Ladders, Rung, rung_ladders

MIN_STEPS = 10
"""Fewer optimizer steps than this say nothing about a learning rate: an error in the plan."""
FEW_STEPS = 25
"""Fewer than this are noisy: a warning in the plan; a proposal has them where there are rows."""
LEAST_AT_ONCE = 4
"""Trials at once of a small search."""


@dataclass(frozen=True)
class TrialPlan:
    """The derived numbers of one trial."""

    steps: int
    """Optimizer steps."""
    rows: int
    """Rows trained on: steps × effective batch size."""
    rows_dropped: int
    """Rows at the end of the last epoch that do not fill a batch."""
    warmup_steps: int
    """ceil(warmup_ratio × steps)."""
    execution: Execution
    """With the micro-batch that this trial takes."""
    accumulation: int
    """Micro-batches a worker accumulates before an optimizer step."""
    rungs: tuple[Rung, ...]
    """The rungs of the ladder at which this trial is judged."""
    eval_steps: tuple[int, ...]
    """Steps after which the eval loss is measured; rungs and the last step are among them."""
    bracket: str
    """Trials are compared only within a bracket: same number of epochs, same schedule."""
    mixture: tuple[WeightedSource, ...] = ()
    """Where there are several sources, this trial's shares of the rows, and their weights in the
    eval loss, which no trial changes."""

    @property
    def micro_batch_size(self) -> int:
        """Rows a worker holds at once."""
        return self.execution.micro_batch_size


def planner(
    sweep: SweepConfig, rows_per_epoch: int, *, execution: Execution
) -> Callable[[TrialConfig], TrialPlan]:
    """`plan_trial` with all that the trials of a sweep share; it can be pickled."""
    return functools.partial(
        _plan_by_epochs,
        ladders=rung_ladders(sweep, rows_per_epoch),
        rows_per_epoch=rows_per_epoch,
        evals_per_trial=sweep.evals_per_trial,
        grace_steps=sweep.grace_steps,
        execution=execution,
        judged=sweep.scheduler != "none",
        mixture=sweep.data.mixture if sweep.data.sources else (),
    )


def _plan_by_epochs(
    trial: TrialConfig,
    *,
    ladders: Ladders,
    rows_per_epoch: int,
    evals_per_trial: int,
    grace_steps: int,
    execution: Execution,
    judged: bool,
    mixture: tuple[WeightedSource, ...],
) -> TrialPlan:
    planned = plan_trial(
        trial,
        rows_per_epoch,
        ladder=ladders.get(trial.num_train_epochs, ()),
        evals_per_trial=evals_per_trial,
        grace_steps=grace_steps,
        execution=execution,
        judged=judged,
    )
    return replace(planned, mixture=at_shares(mixture, trial.mixture))


def plan_trial(
    trial: TrialConfig,
    rows_per_epoch: int,
    *,
    ladder: Sequence[int],
    evals_per_trial: int,
    grace_steps: int = 1,
    execution: Execution = ONE_ROW,
    judged: bool = True,
) -> TrialPlan:
    """The steps, rungs and evaluations of `trial` on a dataset of `rows_per_epoch` packed rows.

    A rung that comes before `grace_steps` steps after the warm-up passes the trial by. Where it is
    not `judged`, it is evaluated at the rungs, and nothing else happens there. Raises ConfigError
    where the trial would take fewer than MIN_STEPS optimizer steps.
    """
    batch = trial.effective_batch_size
    available = round(trial.num_train_epochs * rows_per_epoch)
    steps = available // batch
    if steps < MIN_STEPS:
        _refuse_few_steps(trial, rows_per_epoch, available, steps)
    warmup = warmup_steps(trial, steps)
    rungs = tuple(
        Rung(rows, math.ceil(rows / batch), math.ceil(rows / batch) * batch - rows)
        for rows in ladder
        if warmup + grace_steps <= math.ceil(rows / batch) < steps
    )
    spread = {math.ceil(steps * k / evals_per_trial) for k in range(1, evals_per_trial + 1)}
    micro, accumulation = split_batch(trial, execution.micro_batch_size)
    again = trial.activation_checkpointing
    if again is None:
        again = execution.activation_checkpointing
    return TrialPlan(
        steps=steps,
        rows=steps * batch,
        rows_dropped=available - steps * batch,
        warmup_steps=warmup,
        execution=replace(execution, micro_batch_size=micro, activation_checkpointing=again),
        accumulation=accumulation,
        rungs=rungs if judged else (),
        eval_steps=tuple(sorted(spread | {rung.step for rung in rungs} | {steps})),
        bracket=_bracket(trial),
    )


def _bracket(trial: TrialConfig) -> str:
    usual = TrialConfig.lr_scheduler
    schedule = "" if trial.lr_scheduler == usual else f", {trial.lr_scheduler}"
    return f"{trial.num_train_epochs:g} epochs{schedule}"


def learning_rate(trial: TrialConfig, plan: TrialPlan, step: int) -> float:
    """The rate of optimizer step `step` of a plan, counted from 1."""
    return scheduled_rate(trial, step, steps=plan.steps, warmup_steps=plan.warmup_steps)


def trials_at_once(sweep: SweepConfig) -> int:
    """How many trials a sweep has use for at once.

    A search learns from trials that have ended or come to a rung: of one that trained all its
    trials at once, nothing would have been learnt when the last was suggested. A quarter is a
    compromise; fewer trials at once have larger micro-batches, so a GPU has as much to do.
    """
    if sweep.points:
        return len(sweep.points)
    return min(sweep.num_trials, max(LEAST_AT_ONCE, math.ceil(sweep.num_trials / 4)))


def resolve_batch_sizes(sweep: SweepConfig, rows_per_epoch: int) -> SweepConfig:
    """The sweep with `fitting([…])` batch sizes made a plain choice for this number of rows.

    Kept are those with at least MIN_STEPS steps at the fewest epochs; where that leaves fewer than
    two, the largest four powers of two that have as many steps.
    """
    space = sweep.search_space.get("effective_batch_size")
    if space is None or not space.fitting:
        return sweep
    epochs = field_values(sweep, "num_train_epochs") or [sweep.trial.num_train_epochs]
    most = round(min(epochs) * rows_per_epoch) // MIN_STEPS
    sizes = list(filter(is_number, space.finite_values() or ()))
    kept = [batch for batch in sizes if batch <= most]
    if len(kept) < 2:
        powers = [2**k for k in range(20) if 2**k <= most and 2**k % sweep.trial.num_workers == 0]
        kept = powers[-4:] or [min(sizes)]
    searched = {**sweep.search_space, "effective_batch_size": choice(kept)}
    return replace(sweep, search_space=searched)


def _refuse_few_steps(
    trial: TrialConfig, rows_per_epoch: int, available: int, steps: int
) -> NoReturn:
    usual = [str(batch) for batch in (1, 2, 4, 8, 16, 32, 64) if available // batch >= MIN_STEPS]
    raise ConfigError(
        f"effective_batch_size: got {trial.effective_batch_size}, which gives {steps} optimizer "
        f"steps in {trial.num_train_epochs:g} epochs of {rows_per_epoch} packed rows, must give at "
        f"least {MIN_STEPS}; batch sizes that fit: {', '.join(usual) or 'none'}",
        "take one of them, lower data.max_length (half of it makes up to twice as many rows), or "
        "raise num_train_epochs",
    )
