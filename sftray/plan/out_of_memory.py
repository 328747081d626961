"""What to try next in less memory."""

from __future__ import annotations

from dataclasses import replace

from sftray.config import SweepConfig, TrialConfig
from sftray.plan.bank_settings import BankSettings
from sftray.plan.effective_batch import largest_divisor
from sftray.plan.trial_plan import TrialPlan


def in_less_memory(plan: TrialPlan, trial: TrialConfig) -> TrialPlan | None:
    """The plan to continue with after it has run out of memory; None where nothing is left to try.

    The micro-batch halves and accumulation makes up for it, so the effective batch stays; at one
    row a 4-bit base is no longer kept dequantised, then activations are recomputed, unless the
    trial forbids it.
    """
    execution, share = plan.execution, plan.micro_batch_size * plan.accumulation
    if execution.micro_batch_size > 1:
        micro = largest_divisor(share, execution.micro_batch_size // 2)
        less = replace(execution, micro_batch_size=micro)
    elif execution.resident and trial.in_4_bits:
        less = replace(execution, resident=False)
    elif not execution.activation_checkpointing and trial.activation_checkpointing is None:
        less = replace(execution, activation_checkpointing=True)
    else:
        return None
    return replace(plan, execution=less, accumulation=share // less.micro_batch_size)


def cheaper(settings: BankSettings, sweep: SweepConfig) -> BankSettings | None:
    """The next settings to try after these have run out of memory; None if there are none.

    The micro-batch stays: the trials' plans rest on it.
    """
    may_choose = sweep.trial.activation_checkpointing is None
    if settings.resident and sweep.trial.in_4_bits:
        return replace(settings, resident=False)
    if may_choose and not settings.activation_checkpointing:
        return replace(settings, activation_checkpointing=True)
    if settings.slots > 1:
        return replace(settings, slots=settings.slots // 2)
    return None
