"""How a sweep's trials fit what they run on; the same for a run and for `--plan`.

Promise: whatever cannot run is a ConfigError here, or a reason why the search passes a point by.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from sftray.config import SweepConfig, TrialConfig
from sftray.config.points import field_values, largest_value
from sftray.errors import ConfigError
from sftray.plan.effective_batch import Execution
from sftray.plan.memory import CONTEXT, train_memory
from sftray.plan.model_shape import ModelShape
from sftray.plan.trainer_choice import require_bank
from sftray.storage.model_files import BaseConfig


@dataclass(frozen=True)
class DeviceFit:
    """How the trials of a sweep fit what they run on."""

    execution: Execution
    too_large: Callable[[TrialConfig], str | None] = lambda trial: None
    """Why a trial of this sweep does not fit."""
    at_once: int = 1
    """How many trials run at a time."""


def fit_train(sweep: SweepConfig, base: BaseConfig, memory: float | None) -> DeviceFit:
    """How the `train` trainer runs a sweep's trials on a GPU of `memory` bytes (None: a CPU).

    Raises ConfigError where the smallest of them does not fit, or one of the sweep's `points`; and
    for an FP8 base.
    """
    require_bank(sweep, "the sweep is run by 'train'")
    refuse = functools.partial(
        too_large, base=base, max_length=sweep.data.max_length, memory=memory
    )
    execution = choose_execution(sweep, base, memory=memory)
    smallest = {"lora_r": min(field_values(sweep, "lora_r") or [])}
    trials = [sweep.trial.at(point) for point in sweep.points or (smallest,)]
    reasons = [reason for trial in trials if (reason := refuse(trial))]
    if execution is None or reasons:
        what, _, fix = reasons[0].rpartition("; ")
        raise ConfigError(f"trial: {what}", fix)
    return DeviceFit(execution, refuse)


def choose_execution(
    sweep: SweepConfig, base: BaseConfig, *, memory: float | None
) -> Execution | None:
    """The fastest way to run the sweep's trials by the `train` trainer on a device of `memory`
    bytes (None: a CPU); None where not even the smallest trial fits.

    It fits the largest rank that can be run at all; `too_large` names those that cannot. `base`
    is the base's config.json; where its memory cannot be estimated, a micro-batch of FEW_TOKENS
    under activation checkpointing is taken.
    """
    trial, shape, length = sweep.trial, ModelShape.of(base), sweep.data.max_length
    if memory is None:
        small = shape is not None and 4 * shape.parameters < RESIDENT_ON_CPU
        small = small and not trial.shard_base
        rows = trial.micro_batch_size or max(1, CPU_TOKENS // length)
        return Execution(rows, trial.activation_checkpointing or False, resident=small)
    if shape is None:
        rows = trial.micro_batch_size or max(1, FEW_TOKENS // length)
        return Execution(rows, trial.activation_checkpointing is not False)
    candidates = _from_fastest(shape, trial, length)
    for largest in _by_memory(sweep):
        for execution in candidates:
            if train_memory(shape, largest, length, execution).fits(memory):
                return execution
    return None


def too_large(
    trial: TrialConfig, base: BaseConfig, max_length: int, *, memory: float | None
) -> str | None:
    """Why a trial cannot run by the `train` trainer on a GPU of `memory` bytes; None if it can, or
    if that is not known."""
    shape = ModelShape.of(base)
    if shape is None or memory is None:
        return None
    execution = _from_fastest(shape, trial, max_length)[-1]
    needed = train_memory(shape, trial, max_length, execution)
    if needed.fits(memory):
        return None
    what, less = f"rank {trial.lora_r}", "lora_r or data.max_length"
    if trial.finetune == "full":
        what = f"training all of {shape.parameters / 1e9:.2f} billion weights"
        less = "data.max_length, train an adapter with finetune='lora'"
    return (
        f"{what} on rows of {max_length:,} tokens takes at least "
        f"{(needed.total + CONTEXT) / 2**30:.1f} GiB ({needed}), and the GPU has "
        f"{memory / 2**30:.1f}; lower {less}, or take a larger GPU"
    )


CPU_TOKENS = 1024
"""Tokens of a micro-batch on a CPU."""
RESIDENT_ON_CPU = 4e9
"""Bytes of a base that is kept dequantised on a CPU."""
FEW_TOKENS, BUSY_TOKENS, SMALL_BASE = 2048, 8192, 2e9
"""A micro-batch of fewer tokens leaves a GPU idle; one of more makes nothing faster, but for a base
of fewer parameters, whose kernels are short: there, four times as many."""


def _from_fastest(shape: ModelShape, trial: TrialConfig, max_length: int) -> list[Execution]:
    """All ways to run a trial on a GPU, the one that takes the least memory last. Recomputing costs
    a third, a short micro-batch more than that, dequantising a few per cent."""
    busy = BUSY_TOKENS * (4 if shape.parameters < SMALL_BASE else 1)
    rows = trial.micro_batch_size or max(1, busy // max_length)
    sizes = [rows]
    while sizes[-1] > 1 and trial.micro_batch_size is None:
        sizes.append(sizes[-1] // 2)
    long = [size for size in sizes if size * max_length >= FEW_TOKENS]
    may_choose = trial.in_4_bits and not trial.shard_base
    ways = []
    for checkpointing, some in ((False, long), (True, long), (False, sizes), (True, sizes)):
        if trial.activation_checkpointing not in (None, checkpointing):
            continue
        for size in some:
            for resident in (True, False) if may_choose else (False,):
                ways.append(Execution(size, checkpointing, resident))
    return ways


def _by_memory(sweep: SweepConfig) -> list[TrialConfig]:
    """The baseline at every rank of the search, the largest first, with the most dropout."""
    ranks = field_values(sweep, "lora_r") or []
    dropout = largest_value(sweep, "lora_dropout")
    return [
        replace(sweep.trial, lora_r=int(rank), lora_dropout=dropout) for rank in reversed(ranks)
    ]
