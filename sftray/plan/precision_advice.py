"""Which precision of the base is advised on a GPU, and why.

Promise: neither torch nor a GPU is needed; what is advised can be trained there and fits. What a
precision costs in loss is in docs/precision.md.
"""

from __future__ import annotations

from dataclasses import replace

from sftray.config import SweepConfig
from sftray.plan.bank_settings import choose_settings
from sftray.plan.checkpoint_format import PLAIN, held_in
from sftray.plan.device_fit import choose_execution
from sftray.plan.model_shape import ModelShape
from sftray.plan.trainer_choice import why_not
from sftray.storage.model_files import BaseConfig

PROVED = 9.0
"""The compute capability on which FP8 was measured: Hopper's."""
LEAST_PARAMETERS = 1e9
"""Of smaller bases products are too small a share of a step."""


def advised_precision(
    sweep: SweepConfig, base: BaseConfig, *, memory: float, capability: float
) -> tuple[str, str] | None:
    """(base_precision, why) on a GPU of so many bytes and this compute capability; None where there
    is no choice."""
    shape = ModelShape.of(base)
    if shape is None or sweep.trial.finetune == "full" or held_in(base) != PLAIN:
        return None
    if (
        capability == PROVED
        and shape.parameters >= LEAST_PARAMETERS
        and why_not(_held(sweep, "fp8"), base) is None
        and choose_settings(_held(sweep, "fp8"), base, memory=memory) is not None
    ):
        return "fp8", "a step is 1.2 to 1.4 times as fast as in bf16"
    if choose_execution(_held(sweep, "bf16"), base, memory=memory) is not None:
        small = capability == PROVED and shape.parameters < LEAST_PARAMETERS
        why = (
            "so small a base gains a twentieth by fp8"
            if small
            else "it fits, and nothing is rounded"
        )
        return "bf16", why
    return "nf4", "nothing larger fits"


def advice_text(sweep: SweepConfig, advised: tuple[str, str] | None) -> str | None:
    """One line of a plan."""
    if advised is None:
        return None
    (precision, why), held = advised, sweep.trial.base_precision
    if held == precision:
        return f"{held}, as advised on this GPU: {why}"
    return (
        f"{held}; on this GPU {precision} is advised: {why} (docs/precision.md has what it costs)"
    )


def _held(sweep: SweepConfig, precision: str) -> SweepConfig:
    trial = replace(sweep.trial, base_precision=precision, shard_base=False)
    return replace(sweep, trial=trial)
