"""Steps, rows, rungs, accumulation: the arithmetic of a sweep, and nothing else.

Promise: every number that a trial runs with is computed here and nowhere else, from the
configuration and the number of packed rows. Price: standard library only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sftray.config import Choice, RandInt, Space, SweepConfig, TrialConfig
from sftray.errors import ConfigError

MIN_STEPS = 10
"""Fewer optimizer steps than this say nothing about a learning rate: an error in the plan."""
FEW_STEPS = 50
"""Fewer than this are noisy: a warning in the plan."""
LEAST_AT_ONCE = 4
"""Trials at once of a small search."""
GRACE_STEPS = 5
"""A rung that a trial reaches in fewer optimizer steps than this passes it by: the first step is
at learning rate 0, and a large batch is judged at a later rung, on as much data as the others."""


@dataclass(frozen=True)
class Rung:
    """A point of the sweep-wide ladder at which trials of one bracket are compared."""

    rows: int
    """Rows on the ladder: what every trial has seen here, give or take the overshoot."""
    step: int
    """The first optimizer step of this trial at or after `rows`."""
    overshoot: int
    """Rows seen beyond `rows` at that step; 0 where batch sizes divide the ladder."""


@dataclass(frozen=True)
class Execution:
    """How a trial is made to fit a device. None of it changes what is learnt."""

    micro_batch_size: int
    """Rows a worker holds at once, at most; a trial takes the largest divisor of its share."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    resident: bool = False
    """A 4-bit base is dequantised once, not in every pass."""


ONE_ROW = Execution(micro_batch_size=1)


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
    """Trials are compared only within a bracket: same number of epochs, same schedule span."""

    @property
    def micro_batch_size(self) -> int:
        """Rows a worker holds at once."""
        return self.execution.micro_batch_size


def planner(
    sweep: SweepConfig, rows_per_epoch: int, *, execution: Execution
) -> Callable[[TrialConfig], TrialPlan]:
    """`plan_trial` with all that the trials of a sweep share; it can be pickled."""
    return functools.partial(
        plan_trial,
        rows_per_epoch=rows_per_epoch,
        ladder=rung_ladder(sweep, rows_per_epoch),
        evals_per_trial=sweep.evals_per_trial,
        execution=execution,
        judged=sweep.scheduler != "none",
    )


def plan_trial(
    trial: TrialConfig,
    rows_per_epoch: int,
    *,
    ladder: Sequence[int],
    evals_per_trial: int,
    execution: Execution = ONE_ROW,
    judged: bool = True,
) -> TrialPlan:
    """The steps, rungs and evaluations of `trial` on a dataset of `rows_per_epoch` packed rows.

    Where it is not `judged`, it is evaluated at the rungs, and nothing else happens there. Raises
    ConfigError where the trial would take fewer than MIN_STEPS optimizer steps.
    """
    batch = trial.effective_batch_size
    available = round(trial.num_train_epochs * rows_per_epoch)
    steps = available // batch
    if steps < MIN_STEPS:
        raise ConfigError(_too_few_steps(trial, rows_per_epoch, available, steps))
    rungs = tuple(
        Rung(rows, math.ceil(rows / batch), math.ceil(rows / batch) * batch - rows)
        for rows in ladder
        if GRACE_STEPS <= math.ceil(rows / batch) < steps
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
        warmup_steps=warmup_steps(trial, steps),
        execution=replace(execution, micro_batch_size=micro, activation_checkpointing=again),
        accumulation=accumulation,
        rungs=rungs if judged else (),
        eval_steps=tuple(sorted(spread | {rung.step for rung in rungs} | {steps})),
        bracket=f"{trial.num_train_epochs:g} epochs",
    )


def learning_rate(trial: TrialConfig, plan: TrialPlan, step: int) -> float:
    """The rate of optimizer step `step` of a plan, counted from 1."""
    return scheduled_rate(trial, step, steps=plan.steps, warmup_steps=plan.warmup_steps)


def scheduled_rate(trial: TrialConfig, step: int, *, steps: int, warmup_steps: int) -> float:
    """The rate of optimizer step `step`, counted from 1: transformers' cosine_with_min_lr.

    0 at the first step of a warm-up, the peak right after it, then half a cosine down to
    min_lr_ratio × peak after the last step.
    """
    done = step - 1
    if done < warmup_steps:
        return trial.learning_rate * done / warmup_steps
    progress = (done - warmup_steps) / max(1, steps - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return trial.learning_rate * (cosine * (1 - trial.min_lr_ratio) + trial.min_lr_ratio)


def warmup_steps(trial: TrialConfig, steps: int) -> int:
    """How many of a trial's optimizer steps are warm-up."""
    return math.ceil(trial.warmup_ratio * steps)


def split_batch(trial: TrialConfig, micro_batch_size: int) -> tuple[int, int]:
    """Micro-batch and accumulation with micro × accumulation × workers = effective batch exactly.

    The largest divisor of a worker's share that is at most the wanted micro-batch; the trial's own
    `micro_batch_size` goes before the argument.
    """
    share = trial.effective_batch_size // trial.num_workers
    wanted = trial.micro_batch_size or micro_batch_size
    if trial.micro_batch_size is not None and share % trial.micro_batch_size:
        raise ConfigError(
            f"trial.micro_batch_size: got {trial.micro_batch_size}, must divide the {share} rows "
            f"that each of {trial.num_workers} workers has of an effective batch of "
            f"{trial.effective_batch_size}"
        )
    micro = largest_divisor(share, wanted)
    return micro, share // micro


def largest_divisor(whole: int, most: int) -> int:
    """The largest number, at most `most`, that divides `whole`."""
    return max(d for d in range(1, min(most, whole) + 1) if whole % d == 0)


def in_less_memory(plan: TrialPlan, trial: TrialConfig) -> TrialPlan | None:
    """The plan to go on with after it has run out of memory; None where nothing is left to try.

    The micro-batch halves and accumulation makes up for it, so the effective batch stays; at one
    row a 4-bit base is no longer kept dequantised, then activations are recomputed, unless the
    trial forbids it.
    """
    execution, share = plan.execution, plan.micro_batch_size * plan.accumulation
    if execution.micro_batch_size > 1:
        micro = largest_divisor(share, execution.micro_batch_size // 2)
        less = replace(execution, micro_batch_size=micro)
    elif execution.resident and trial.base_precision == "nf4":
        less = replace(execution, resident=False)
    elif not execution.activation_checkpointing and trial.activation_checkpointing is None:
        less = replace(execution, activation_checkpointing=True)
    else:
        return None
    return replace(plan, execution=less, accumulation=share // less.micro_batch_size)


def trials_at_once(sweep: SweepConfig) -> int:
    """How many trials a sweep has use for at once.

    A search learns from trials that have ended or come to a rung: of one that trained all its
    trials at once, nothing would have been learnt when the last was suggested. A quarter is a
    compromise; fewer trials at once have larger micro-batches, so a GPU has as much to do.
    """
    if sweep.points:
        return len(sweep.points)
    return min(sweep.num_trials, max(LEAST_AT_ONCE, math.ceil(sweep.num_trials / 4)))


def fit_batch_sizes(sweep: SweepConfig, rows_per_epoch: int) -> SweepConfig:
    """The sweep with `fitting([…])` batch sizes made a plain choice for this number of rows.

    Kept are those with at least MIN_STEPS steps at the fewest epochs; where that leaves fewer than
    two, the largest four powers of two that have as many steps.
    """
    space = sweep.search_space.get("effective_batch_size")
    if not (isinstance(space, Choice) and space.fitting):
        return sweep
    epochs = field_values(sweep, "num_train_epochs") or [sweep.trial.num_train_epochs]
    most = round(min(epochs) * rows_per_epoch) // MIN_STEPS
    kept = [batch for batch in space.values if batch <= most]
    if len(kept) < 2:
        powers = [2**k for k in range(20) if 2**k <= most and 2**k % sweep.trial.num_workers == 0]
        kept = powers[-4:] or [min(space.values)]
    fitted = {**sweep.search_space, "effective_batch_size": Choice(tuple(kept))}
    return replace(sweep, search_space=fitted)


def rung_ladder(sweep: SweepConfig, rows_per_epoch: int) -> tuple[int, ...]:
    """The sweep-wide ladder of row counts at which trials are compared; without a scheduler they
    are only evaluated there, so that one can see what one would have done.

    Starts at `grace_rows` (by default the smallest budget / reduction_factor²), grows by
    `reduction_factor`, and lies on multiples of the batch sizes' least common multiple where that
    is no larger than the first rung, so that all batch sizes have then seen the same rows.
    """
    epochs = field_values(sweep, "num_train_epochs")
    if epochs is None and sweep.scheduler == "none":
        return ()
    if epochs is None:
        raise ConfigError(
            "search_space['num_train_epochs']: got a continuous range, must be choice([…]) under "
            f"scheduler={sweep.scheduler!r}: trials are compared only with those of the same epochs"
        )
    budgets = [round(value * rows_per_epoch) for value in epochs]
    eta = sweep.reduction_factor
    batches = field_values(sweep, "effective_batch_size")
    assert batches is not None  # whole numbers are no continuous range
    grace = sweep.grace_rows or max(1, round(min(budgets) / eta**2))
    multiple = math.lcm(*[int(batch) for batch in batches])
    if multiple <= grace:
        grace = round(grace / multiple) * multiple
    ladder = []
    while grace < max(budgets):
        ladder.append(grace)
        grace *= eta
    return tuple(ladder)


def field_values(sweep: SweepConfig, name: str) -> list[float] | None:
    """All values that a numeric field can take in a sweep; None if that is a continuous range."""
    if sweep.points:
        default = getattr(sweep.trial, name)
        return sorted({point.get(name, default) for point in sweep.points})
    space: Space | None = sweep.search_space.get(name)
    if space is None:
        return [getattr(sweep.trial, name)]
    if isinstance(space, Choice):
        return sorted(space.values)
    if isinstance(space, RandInt):
        return list(range(space.low, space.high + 1))
    return None


def _batch_sizes_that_fit(rows: int) -> str:
    """The usual batch sizes that leave at least MIN_STEPS optimizer steps, as text."""
    fitting = [str(batch) for batch in (1, 2, 4, 8, 16, 32, 64) if rows // batch >= MIN_STEPS]
    return ", ".join(fitting) if fitting else "none"


def _too_few_steps(trial: TrialConfig, rows_per_epoch: int, available: int, steps: int) -> str:
    return (
        f"effective_batch_size: got {trial.effective_batch_size}, which gives {steps} optimizer "
        f"steps in {trial.num_train_epochs:g} epochs of {rows_per_epoch} packed rows, must give at "
        f"least {MIN_STEPS}; batch sizes that fit: {_batch_sizes_that_fit(available)}; or lower "
        f"data.max_length (half of it gives about {2 * available} rows), or raise num_train_epochs"
    )
