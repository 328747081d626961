"""Which trials a bank can train, known from the base's config.json and the sweep alone.

Promise: neither torch nor transformers is needed, so `--plan` says which trainer a sweep will take,
and why.
"""

from __future__ import annotations

from collections.abc import Mapping

from sftray.config import SweepConfig
from sftray.config.points import all_values
from sftray.config.sweep_config import ONE_FROZEN_BASE
from sftray.errors import ConfigError
from sftray.plan.bank_fields import unknown_field
from sftray.plan.base_config import with_defaults
from sftray.plan.layer_description import (
    ACTIVATIONS,
    FAMILIES,
    SPLIT,
    Groups,
    activation,
    rotary_fields,
)
from sftray.plan.model_shape import ModelShape
from sftray.storage.model_files import BaseConfig

ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope")
"""Rotary embeddings that are a function of the position alone, but for the last, which is one of
the document's length, too, and computed where all layers have the same."""

SHARED = (
    "model",
    "model_revision",
    "trust_remote_code",
    "finetune",
    "base_precision",
    "lora_target_parameters",
    "num_workers",
    "micro_batch_size",
    "activation_checkpointing",
    "attention",
)
"""TrialConfig fields that all trials of a bank have in common."""


def why_not(sweep: SweepConfig, base: BaseConfig) -> str | None:
    """Why the trials of `sweep` cannot be slots of a bank; None if they can.

    `base` is the base's config.json.
    """
    if sweep.trial.finetune == "full":
        return ONE_FROZEN_BASE
    if reason := why_not_the_base(base):
        return reason
    if sweep.trial.base_precision == "fp8" and (reason := _why_not_in_fp8(base)):
        return reason
    return _why_not_the_trials(sweep, FAMILIES[base["model_type"]].groups)


def pick_trainer(sweep: SweepConfig, base: BaseConfig) -> tuple[str, str]:
    """("bank" or "train", why). Raises ConfigError where a bank is asked for and cannot be had."""
    if sweep.trainer == "train":
        require_bank(sweep, "trainer='train' is asked for")
        return "train", "asked for"
    reason = why_not(sweep, base)
    if reason is None:
        return "bank", "plain LoRA trials that share one base"
    require_bank(sweep, reason)
    if sweep.trainer == "bank":
        raise ConfigError(f"trainer: got 'bank', but {reason}", "leave it 'auto', or take 'train'")
    return "train", reason


def without_bank(sweep: SweepConfig) -> tuple[str, str]:
    """`pick_trainer`'s answer where the base leaves no room for a bank."""
    slots = "not even one slot of a bank fits"
    if sweep.bank_slots is not None:
        slots = f"a bank of bank_slots={sweep.bank_slots} does not fit"
    require_bank(sweep, f"{slots} the GPU's memory")
    if sweep.trainer == "bank":
        raise ConfigError(
            f"trainer: got 'bank', but {slots} the GPU's memory",
            "lower data.max_length, or take a larger GPU or base_precision='nf4'",
        )
    return "train", f"{slots} the GPU's memory"


def require_bank(sweep: SweepConfig, reason: str) -> None:
    """Raise ConfigError where a sweep that no bank trains, for this `reason`, has an FP8 base."""
    if "fp8" in all_values(sweep, "base_precision"):
        raise ConfigError(
            f"trial.base_precision: got 'fp8', which only a bank computes, but {reason}",
            "take base_precision='bf16' or 'nf4'",
        )


def target_projections(
    targets: str | tuple[str, ...], groups: Groups = SPLIT
) -> tuple[str, ...] | None:
    """The projections that PEFT would adapt for `lora_target_modules`, of those in `groups`; None
    where they are spelled in a way that a bank does not know (a pattern, or modules outside the
    decoder's layers)."""
    known = tuple(name for names in groups for name in names)
    if targets == "all-linear":
        return known
    if isinstance(targets, str) or not set(targets) <= set(known):
        return None
    return tuple(name for name in known if name in targets)


def why_not_the_base(base: BaseConfig) -> str | None:
    """Why the bank does not compute a base with this config.json, or with this configuration of a
    loaded model; None if it does."""
    base, kind = with_defaults(base), base.get("model_type")
    if kind not in FAMILIES:
        return f"the bank computes {', '.join(FAMILIES)} models, and this one is {kind!r}"
    if base.get("auto_map"):
        return "the base has code of its own (auto_map), and the bank computes transformers' models"
    if reason := _why_not_quantised(base.get("quantization_config")):
        return reason
    if activation(base) not in ACTIVATIONS:
        return f"the base's activation is {activation(base)!r}, not of {', '.join(ACTIVATIONS)}"
    if base.get("is_causal", True) is False:
        return "the base's attention is not causal (is_causal is false)"
    if base["attention_dropout"]:
        return "the base has attention dropout"
    for of_a_kind, rope in enumerate(rotary_fields(base)):
        turn = rope.get("rope_type") or rope.get("type") or "default"
        computed = ROPE_TYPES[:-1] if of_a_kind else ROPE_TYPES
        if turn not in computed:
            return f"the base's rotary embedding is {turn!r}, not of {', '.join(computed)}"
    if field := unknown_field(base):
        return f"the base's {field}, which the bank does not know"
    return None


def _why_not_in_fp8(base: BaseConfig) -> str | None:
    """FP8 units take sides of 16."""
    shape = ModelShape.of(base)
    assert shape is not None  # the bank's families are dense
    odd = {size for sides in shape.sizes().values() for size in sides if size % 16}
    return f"a projection has a side of {min(odd)}, no multiple of 16" if odd else None


def _why_not_quantised(config: Mapping[str, object] | None) -> str | None:
    if not config or (config.get("load_in_4bit") and not config.get("load_in_8bit")):
        return None
    method = config.get("quant_method", "an unknown method")
    method = getattr(method, "value", method)  # an enumeration, once loaded
    bits = " in 8 bits" if config.get("load_in_8bit") else ""
    return (
        f"the base is quantised by {method}{bits} (quantization_config), of which the bank reads "
        "only bitsandbytes' 4 bits; take the base that it was made from, with base_precision='nf4'"
    )


def _why_not_the_trials(sweep: SweepConfig, groups: Groups) -> str | None:
    trial = sweep.trial
    for name in SHARED:
        if name in sweep.search_space or any(name in point for point in sweep.points):
            return f"{name} is searched, and all trials of a bank share it"
    if trial.num_workers > 1:
        return f"a trial has {trial.num_workers} workers, and a bank's trials share one GPU"
    if trial.attention == "flash_attention_3":
        return "attention is 'flash_attention_3', which a bank does not compute"
    if trial.lora_target_parameters:
        return "lora_target_parameters are adapted, and a bank adapts linear layers alone"
    for targets in all_values(sweep, "lora_target_modules"):
        if target_projections(targets, groups) is None:  # type: ignore[arg-type]
            return (
                f"lora_target_modules is {targets!r}; a bank knows 'all-linear' or some of "
                f"{', '.join(name for names in groups for name in names)}"
            )
    return None


def adapted_by_any(sweep: SweepConfig) -> str | tuple[str, ...]:
    """`lora_target_modules` of a bank: all that any trial of the sweep adapts."""
    values = all_values(sweep, "lora_target_modules")
    if "all-linear" in values:
        return "all-linear"
    return tuple(sorted({name for names in values for name in names}))  # type: ignore[union-attr]
