"""The checks that `--plan` and a start share, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.config.points import field_values, reachable
from sftray.config.resume_check import refuse_other_config
from sftray.data.packs.manifest import Counts, reasons_text
from sftray.errors import ConfigError
from sftray.plan.device_fit import DeviceFit
from sftray.plan.model_shape import ModelShape
from sftray.plan.preview_text import listed
from sftray.plan.prior_points import published_rates
from sftray.plan.trial_plan import FEW_STEPS, MIN_STEPS, TrialPlan
from sftray.storage.paths import SweepPaths

HIGH_RATE, BEARS_HIGH_RATES = 2e-4, 1e8
"""A learning rate above which full fine-tuning seldom wants to be; bases of fewer parameters do."""
FEW_SUPERVISED = 1000
"""Trained tokens of an evaluation set below which its loss is a warning in the plan."""


def check_code(trial: TrialConfig) -> list[str]:
    """A warning where foreign code would run."""
    if not trial.trust_remote_code:
        return []
    pinned = f"at {trial.model_revision}" if trial.model_revision else "at whatever it is today"
    return [
        f"trust_remote_code is on: Python code of {trial.model}, {pinned}, runs here and on every "
        "worker, with all that they may do; read it, and pin trial.model_revision"
    ]


def check_plans(sweep: SweepConfig, plan: Callable[[TrialConfig], TrialPlan]) -> list[str]:
    """Warnings; ConfigError where a point that the search could suggest cannot run."""
    warnings = []
    for config in shape_corners(sweep):
        planned = plan(config)
        if planned.steps < FEW_STEPS:
            warnings.append(
                f"effective_batch_size {config.effective_batch_size} at "
                f"{config.num_train_epochs:g} epochs gives {planned.steps} optimizer steps; fewer "
                f"than {FEW_STEPS} are a noisy comparison"
            )
    return warnings


def check_ranks(sweep: SweepConfig, fit: DeviceFit) -> list[str]:
    """A warning where the search could suggest ranks that do not fit the memory."""
    trials = [sweep.trial.at({"lora_r": int(rank)}) for rank in reachable(sweep, "lora_r")]
    reasons = [reason for trial in trials if (reason := fit.too_large(trial))]
    if not reasons:
        return []
    return [f"{len(reasons)} of {len(trials)} ranks would not be trained: {reasons[0]}"]


def check_budgets(sweep: SweepConfig, *, gpus: float) -> list[str]:
    """A warning where a budget of GPU time will never be spent."""
    never = [name for name in ("max_gpu_hours", "max_cost") if getattr(sweep, name) is not None]
    if gpus or not never:
        return []
    return [
        f"{' and '.join(never)} never end{'s' * (len(never) == 1)} this sweep, for it runs on CPUs "
        "and no GPU is paid for; max_hours does"
    ]


def check_batch_sizes(asked: SweepConfig, fitted: SweepConfig) -> list[str]:
    """A warning where too few of the batch sizes that were asked for leave enough steps, so that
    others were taken."""
    sizes = field_values(fitted, "effective_batch_size") or []
    wanted = field_values(asked, "effective_batch_size") or []
    if set(sizes) <= set(wanted):
        return []
    return [
        f"batch sizes {listed(wanted)} leave fewer than {MIN_STEPS} steps on so few rows; "
        f"{listed(sizes)} are searched instead. A shorter data.max_length makes more rows"
    ]


def check_name(sweep: SweepConfig) -> list[str]:
    """A warning where the start would be refused, for a sweep of this name is there."""
    try:
        refuse_other_config(sweep, SweepPaths.of(sweep.storage, sweep.name))
    except ConfigError as error:
        return [str(error)]
    return []


def check_rates(sweep: SweepConfig, base: Mapping[str, Any]) -> list[str]:
    """A warning where the learning rates are not those of such a base: none of LoRA's that are
    published for its size, or, in full fine-tuning, all above what only small bases bear."""
    shape, values = ModelShape.of(base), reachable(sweep, "learning_rate")
    if sweep.trial.finetune == "lora":
        published = published_rates(shape, str(base.get("model_type"))) if shape else []
        if not published or any(min(values) <= rate <= max(values) for rate in published):
            return []
        usual = published[0]
        tried = f"{min(values):.3g}" + (f" … {max(values):.3g}" if len(values) > 1 else "")
        return [
            f"the learning rate published as good for bases of this size is {usual:.2g}, and "
            f"{tried} does not hold it: --set 'search_space.learning_rate="
            f"loguniform({usual / 5:.0e}, {usual * 5:.0e})'"
        ]
    small = shape is not None and shape.parameters < BEARS_HIGH_RATES
    if small or min(values) <= HIGH_RATE:
        return []
    return [
        f"all learning rates are {min(values):.3g} or more; full fine-tuning usually wants 1e-5 … "
        f"5e-5, a tenth of what LoRA wants, and seldom more than {HIGH_RATE:.0e}"
    ]


def check_evaluation(evaluation: Counts) -> list[str]:
    """A warning where the evaluation set is too small to tell trials apart."""
    supervised = evaluation["supervised_tokens"]
    if supervised >= FEW_SUPERVISED:
        return []
    return [
        f"the evaluation set has {evaluation['conversations']} conversations and {supervised:,} "
        f"trained tokens; fewer than {FEW_SUPERVISED:,} are a noisy comparison: raise "
        "data.eval_fraction, or give data.eval_source"
    ]


def shape_corners(sweep: SweepConfig) -> list[TrialConfig]:
    """The baseline at every combination of batch size and epochs that the sweep can reach."""
    if sweep.points:
        names = ("effective_batch_size", "num_train_epochs")
        trials = [sweep.trial.at(point) for point in sweep.points]
        shapes = [{name: getattr(trial, name) for name in names} for trial in trials]
        return list(dict.fromkeys(sweep.trial.at(shape) for shape in shapes))
    configs = []
    for batch in reachable(sweep, "effective_batch_size"):
        for epochs in reachable(sweep, "num_train_epochs"):
            point = {"effective_batch_size": int(batch), "num_train_epochs": epochs}
            configs.append(sweep.trial.at(point))
    return configs


def bad_rows(data: DataConfig, splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning for a split whose source has more bad rows than the sweep would start with."""
    warnings = []
    for split in ("train", "eval"):
        dropped, rows = splits[split]["dropped"], drops(splits[split])["rows"]
        bad = sum(dropped.values())
        if bad > data.max_bad_fraction * rows:
            warnings.append(
                f"{split} data: {bad:,} of {rows:,} rows are bad ({reasons_text(dropped)}), more "
                f"than data.max_bad_fraction = {data.max_bad_fraction:g}{WOULD_NOT_START}"
            )
    return warnings


WOULD_NOT_START = ": the sweep would not start"


def drops(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a split's own source that were read, or looked at, and the bad ones by reason."""
    return {"rows": facts["read"], "reasons": facts["dropped"]}
