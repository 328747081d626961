"""What the plan says of a base with experts: how they are held, and what LoRA adapts."""

from __future__ import annotations

from sftray.config import TrialConfig
from sftray.plan.lora_targets import EXPERTS_BY_NAME
from sftray.plan.memory import element_bytes
from sftray.plan.model_shape import ModelShape, has_experts
from sftray.storage.model_files import BaseConfig


def experts_text(base: BaseConfig, trial: TrialConfig) -> str | None:
    """One line; None of a dense base."""
    if not has_experts(base) or trial.finetune == "full":
        return None
    shape, size = ModelShape.of(base), element_bytes(trial.base_precision)
    kept = f"of unknown memory, in {8 * size} bits"
    if shape is not None:
        gib = size * shape.in_experts / 2**30
        kept = f"{shape.experts} × {shape.layers} layers, {gib:.3g} GiB in {8 * size} bits"
    if trial.in_4_bits or trial.base_precision == "int8":
        kept += " (bitsandbytes quantises linear layers alone)"
    if trial.lora_target_parameters:
        names = ", ".join(trial.lora_target_parameters)
        return f"{kept}; {names} are adapted: PEFT loads and merges that, vLLM serves it merged"
    alone = base.get("model_type") in EXPERTS_BY_NAME and trial.lora_target_modules == "all-linear"
    what = "attention alone is adapted" if alone else "linear layers alone are adapted"
    return f"{kept}; {what}, experts with lora_target_parameters"
