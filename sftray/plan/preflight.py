"""The checks that `--plan` and a start share, before anything runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.config.points import field_values, reachable
from sftray.config.resume_check import refuse_other_config
from sftray.data.packs.manifest import (
    Counts,
    Estimate,
    Manifest,
    Reference,
    counts_of,
    overlap_refusal,
    reasons_text,
)
from sftray.errors import ConfigError
from sftray.metrics import ANSWER_TOKENS
from sftray.plan.base_config import special_attention
from sftray.plan.device_fit import DeviceFit
from sftray.plan.model_shape import ModelShape
from sftray.plan.prior_points import published_rates
from sftray.plan.trial_plan import FEW_STEPS, MIN_STEPS, TrialPlan
from sftray.storage.model_files import BaseConfig
from sftray.storage.paths import SweepPaths

HIGH_RATE, BEARS_HIGH_RATES = 2e-4, 1e8
"""A learning rate above which full fine-tuning seldom wants to be; bases of fewer parameters do."""
FEW_SUPERVISED = 1000
"""Trained tokens of an evaluation set below which its loss is a warning in the plan."""


def check_sweep(
    sweep: SweepConfig,
    manifest: Manifest | Estimate,
    base: BaseConfig,
    plan: Callable[[TrialConfig], TrialPlan],
    *,
    gpus: float,
) -> list[str]:
    """What is doubtful about a sweep on its data and base, a line each. Raises ConfigError where
    a point that the search could suggest cannot run."""
    return [
        *check_evaluation(counts_of(manifest)["eval"]),
        *check_references(sweep, manifest["sample_prompts"]),
        *check_plans(sweep, plan),
        *check_budgets(sweep, gpus=gpus),
        *check_rates(sweep, base),
        *check_attention(sweep, base, gpus=gpus),
    ]


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


def check_batch_sizes(asked: SweepConfig, searched: SweepConfig) -> list[str]:
    """A warning where too few of the batch sizes that were asked for leave enough steps, so that
    others were taken."""
    sizes = field_values(searched, "effective_batch_size") or []
    wanted = field_values(asked, "effective_batch_size") or []
    if set(sizes) <= set(wanted):
        return []
    return [
        f"batch sizes {_listed(wanted)} leave fewer than {MIN_STEPS} steps on so few rows; "
        f"{_listed(sizes)} are searched instead. A shorter data.max_length makes more rows"
    ]


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def check_name(sweep: SweepConfig) -> list[str]:
    """A warning where the start would be refused, for a sweep of this name is there."""
    try:
        refuse_other_config(sweep, SweepPaths.of(sweep.storage, sweep.name))
    except ConfigError as error:
        return [str(error)]
    return []


def check_rates(sweep: SweepConfig, base: BaseConfig) -> list[str]:
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


def check_attention(sweep: SweepConfig, base: BaseConfig, *, gpus: float) -> list[str]:
    """A warning where the base has more than PyTorch's variable-length attention computes."""
    special = special_attention(base)
    if not special or not gpus or sweep.trial.attention is not None:
        return []
    return [
        f"the base has {special}, which varlen attention does not compute: trials take "
        "FlashAttention where it is installed, else sdpa, which is slower"
    ]


def check_references(sweep: SweepConfig, prompts: Sequence[Reference]) -> list[str]:
    """A warning where the metric holds answers against references that are longer than answers may
    be. `prompts` are a manifest's."""
    lengths = [prompt["reference_tokens"] for prompt in prompts[: sweep.num_metric_prompts]]
    longer = sum(length > ANSWER_TOKENS for length in lengths)
    if sweep.metric is None or not longer:
        return []
    return [
        f"{sweep.metric}: {longer} of {len(lengths)} references ({100 * longer / len(lengths):.0f} "
        f"%) are longer than the {ANSWER_TOKENS} tokens of an answer (median "
        f"{statistics.median(lengths):g}, longest {max(lengths):,}), so answers are cut off before "
        "what they are scored by; take references that fit (data.eval_source), or compare trials "
        "by eval_loss"
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


def refusals(data: DataConfig, manifest: Manifest | Estimate) -> list[str]:
    """Why a sweep would not start on its data: a source with too many bad rows, or an evaluation
    set that is trained on."""
    reasons = []
    for split, facts in manifest["splits"].items():
        bad, rows = sum(facts["dropped"].values()), facts["read"]
        if bad > data.max_bad_fraction * rows:
            reasons.append(
                f"{split} data: {bad:,} of {rows:,} rows are bad "
                f"({reasons_text(facts['dropped'])}), more than data.max_bad_fraction = "
                f"{data.max_bad_fraction:g}"
            )
    if refusal := overlap_refusal(manifest["eval_overlap"]):
        reasons.append(refusal)
    return [f"{reason}: the sweep would not start" for reason in reasons]
