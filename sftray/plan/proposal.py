"""A first sweep for a dataset and a base: what to search and why, from looking at both.

Promise: every value that is proposed has its reason, and the sweep passes `--plan` on this data,
which is opened once. Neither ray nor torch is imported. Price: 5 s; a sample of 2,000 conversations
is tokenised once, those too long for the proposed rows a second time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sftray.config import DataConfig, SweepConfig
from sftray.config.points import reachable
from sftray.config.spaces import fitting
from sftray.data.estimate import SAMPLE, Sample, estimate_from, take_samples
from sftray.data.packs.manifest import Estimate
from sftray.data.packs.readings import reasons_text
from sftray.data.recipe import Recipe, make_recipe
from sftray.errors import DataError
from sftray.plan.device_fit import choose_execution
from sftray.plan.fit_minutes import Limits, within
from sftray.plan.model_shape import ModelShape
from sftray.plan.preflight import FEW_SUPERVISED
from sftray.plan.preview import USUAL_GPUS, Preview, make_plan
from sftray.plan.proposed_space import proposed_space, proposed_trial, proposed_trials
from sftray.plan.trainer_choice import pick_trainer
from sftray.plan.trial_plan import FEW_STEPS, MIN_STEPS, resolve_batch_sizes
from sftray.storage.model_files import BaseConfig, model_config

KEPT = 0.99
"""Share of conversations that max_length is to hold whole."""
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Values of max_length that are proposed."""
UNCUT = 1_048_576
"""Longer than any conversation."""
_ON_A_CPU = ("learning_rate", "effective_batch_size")
"""The axes searched without a GPU: the first that matter."""


@dataclass(frozen=True)
class Proposal:
    """A sweep, and why."""

    sweep: SweepConfig
    says: str
    reasons: Mapping[str, str]
    """By dotted field, as `sweep_file.as_file` wants them."""
    plan: Preview

    @property
    def warnings(self) -> Sequence[str]:
        """Of the plan."""
        return self.plan.warnings


def propose(
    name: str,
    sources: Sequence[str],
    model: str,
    *,
    split: str,
    gpus: int,
    gpu_memory: float | None,
    gpu_name: str = "",
    price: float | None = None,
    chat_template: str | None = None,
    minutes: float | None = None,
    measure: Callable[[Preview], Preview] = lambda plan: plan,
) -> Proposal:
    """A sweep over all that matters, for `gpus` GPUs of `gpu_memory` bytes (None: not known; with
    no GPU: a CPU), or as much of it as takes at most so many `minutes`. `measure` gives a plan its
    speed; `price`: of a GPU's hour. Raises DataError, TemplateError or ConfigError where there can
    be none."""
    base = model_config(model)
    source, several = (sources[0], ()) if len(sources) == 1 else (None, [(s, 1.0) for s in sources])
    data = DataConfig(source, several, split=split, chat_template=chat_template, max_length=UNCUT)
    recipe = make_recipe(data, model)
    samples = take_samples(recipe, SAMPLE)
    on = _Machine(gpus, gpu_memory, gpu_name, price)
    first = _proposal(name, recipe, samples, base, on, Limits())
    measured = measure(first.plan)
    first = replace(first, plan=measured)
    if minutes is None:
        return first

    def smaller(limits: Limits) -> Proposal:
        less = _proposal(name, recipe, samples, base, on, limits)
        return replace(less, plan=replace(less.plan, speed=measured.speed))

    return within(minutes, first, smaller, max(one.read for one in samples))


@dataclass(frozen=True)
class _Machine:
    gpus: int
    memory: float | None
    name: str
    price: float | None
    """Of a GPU's hour."""


def _proposal(
    name: str,
    recipe: Recipe,
    samples: Sequence[Sample],
    base: BaseConfig,
    on: _Machine,
    limits: Limits,
) -> Proposal:
    reasons: dict[str, str] = {}
    gpus, model = on.gpus, recipe.model
    recipe, samples = _of_at_most(limits.conversations, recipe, samples)
    recipe, cut = _rows_that_hold(recipe, samples, base, reasons)
    conversations = sum(one.read for one in samples)
    trial = proposed_trial(model, base, gpus, conversations, reasons)
    search = proposed_space(base, trial, conversations, reasons)
    if not gpus:  # a first answer in minutes
        search = {name: search[name] for name in _ON_A_CPU}
    sweep = SweepConfig(
        name=re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-") or "sweep",
        data=recipe.data,
        trial=trial,
        search_space=search,
        num_trials=proposed_trials(search, gpus, reasons),
        confirm_top=2,
        price_per_gpu_hour=on.price,
        use_gpu=None if gpus else False,
    )
    reasons["confirm_top"] = (
        "the best of many noisy losses is partly luck: the two best are run again with new seeds"
    )
    if not gpus:
        reasons["use_gpu"] = "no GPU"
    sweep = limits.on(sweep, reasons)
    sweep = _on_workers(sweep, base, gpus, on.memory, reasons)
    recipe, estimate = _with_enough_rows(recipe, samples, cut, sweep.trial.num_workers, reasons)
    recipe = _weighted(recipe, estimate, reasons)
    counts = estimate["splits"]["train"]
    sweep = _sized(replace(sweep, data=recipe.data), counts["rows"], counts["tokens"], reasons)
    if "num_train_epochs" not in search and "trial.num_train_epochs" not in reasons:
        reasons["trial.num_train_epochs"] = "with this many conversations one pass is often enough"
    memory = on.memory if gpus else None
    plan = make_plan(
        sweep, gpu_memory=memory, gpu_name=on.name, gpus=max(1, gpus), estimate=estimate
    )
    reasons["trial.model"] = _about_the_base(sweep, base, gpus)
    if plan.experts:
        reasons["trial.lora_target_modules"] = f"experts: {plan.experts}"
    says = (
        f"Which hyper-parameters for {model} on "
        f"{' and '.join(one.path for one in recipe.data.mixture)}?\n\n"
        "A first proposal; change what you know better. With --plan it starts nothing and shows "
        "steps, memory, tokens and disk."
    )
    return Proposal(sweep, says, reasons, plan)


def _of_at_most(
    conversations: int | None, recipe: Recipe, samples: Sequence[Sample]
) -> tuple[Recipe, Sequence[Sample]]:
    """The data as it is if so many of each source are read; None for all."""
    if conversations is None:
        return recipe, samples
    data = replace(recipe.data, max_conversations=conversations)
    read = [replace(one, read=min(one.read, conversations)) for one in samples]
    return replace(recipe, data=data), read


def _rows_that_hold(
    recipe: Recipe, samples: Sequence[Sample], base: BaseConfig, reasons: dict[str, str]
) -> tuple[Recipe, list[Sample]]:
    """The data in rows that hold nearly all conversations whole."""
    lengths = np.concatenate([one.kept["length"] for one in samples])
    wanted = int(np.quantile(lengths, KEPT, method="higher"))
    window = int(base.get("max_position_embeddings") or LENGTHS[-1])
    possible = [length for length in LENGTHS if length <= window] or [window]
    max_length = next((length for length in possible if length >= wanted), possible[-1])
    cut = [one.cut(max_length) for one in samples]
    about = [_about(one) for one in samples]
    reasons["data.sources" if recipe.data.sources else "data.source"] = "; ".join(
        f"{one.name}: {text}" if recipe.data.sources else text
        for one, text in zip(recipe.data.mixture, about, strict=True)
    )
    lost, kept = (sum(one.report.lost_exchanges for one in cut), sum(len(one.kept) for one in cut))
    reasons["data.max_length"] = (
        f"{KEPT:.0%} of the conversations have at most {wanted:,} tokens, the longest "
        f"{lengths.max():,}; of {len(lengths):,} looked at {lost:,} lose "
        f"their last exchanges in rows of {max_length:,}, and "
        f"{len(lengths) - kept:,} are left out, whose first exchange is longer"
    )
    supervised = sum(one.kept["trained"].mean() * one.read for one in cut)
    fraction = recipe.data.eval_fraction
    if fraction * supervised < 2 * FEW_SUPERVISED:
        fraction = min(0.2, math.ceil(200 * FEW_SUPERVISED / supervised) / 100)
        reasons["data.eval_fraction"] = (
            f"of about {supervised:,.0f} trained tokens; fewer than {FEW_SUPERVISED:,} to evaluate "
            "on do not distinguish trials"
        )
    return recipe.resized(max_length=max_length, eval_fraction=fraction), cut


def _about(sample: Sample) -> str:
    bad = ""
    if dropped := sample.report.dropped:
        rows, reason = sample.report.rows, reasons_text(dropped)
        bad = f"of {rows:,} looked at {sum(dropped.values()):,} are bad ({reason}); "
    return (
        f"about {sample.read:,} conversations, spelled as {sample.spelled.replace('_', '/')}; "
        f"{bad}{sample.kept['length'].mean():,.0f} tokens each on average"
    )


def _weighted(recipe: Recipe, estimate: Estimate, reasons: dict[str, str]) -> Recipe:
    """Several sources in proportion to their rows."""
    if not recipe.data.sources:
        return recipe
    rows = [one["rows"] for one in estimate["splits"]["train"]["sources"]]
    weights = [max(0.01, round(one / sum(rows), 2)) for one in rows]
    reasons["data.sources"] += "; weights in proportion to their rows, so that none is repeated"
    pairs = [(one.path, w) for one, w in zip(recipe.data.mixture, weights, strict=True)]
    return replace(recipe, data=replace(recipe.data, sources=pairs))


def _on_workers(
    sweep: SweepConfig,
    base: BaseConfig,
    gpus: int,
    gpu_memory: float | None,
    reasons: dict[str, str],
) -> SweepConfig:
    """A base too large for one GPU is spread over all of them."""
    if gpus < 2 or gpu_memory is None or ModelShape.of(base) is None:
        return sweep
    if choose_execution(sweep, base, memory=gpu_memory) is not None:
        return sweep
    reasons["trial.num_workers"] = "GPUs a trial: the base does not fit one"
    reasons["trial.shard_base"] = "each GPU holds a share of the base"
    spread = {"num_workers": gpus, "shard_base": True, "effective_batch_size": 16 * gpus}
    sizes = fitting([gpus * size for size in (4, 8, 16, 32)])
    return replace(
        sweep,
        trial=replace(sweep.trial, **spread),  # type: ignore[arg-type]
        search_space={**sweep.search_space, "effective_batch_size": sizes},
    )


def _with_enough_rows(
    recipe: Recipe,
    samples: Sequence[Sample],
    cut: Sequence[Sample],
    num_workers: int,
    reasons: dict[str, str],
) -> tuple[Recipe, Estimate]:
    """In rows as short as it takes for each of the workers to take steps, and what they hold."""
    while True:
        estimate = estimate_from(recipe, cut)
        counts = estimate["splits"]["train"]
        rows = counts["rows"]
        if rows >= 2 * MIN_STEPS * num_workers:
            return recipe, estimate
        shorter = recipe.data.max_length // 2
        if shorter < LENGTHS[0]:
            names = ", ".join(one.path for one in recipe.data.mixture)
            raise DataError(
                f"{names}: got {counts['conversations']:,} conversations in {rows} rows, must be "
                f"at least {2 * MIN_STEPS} rows for a sweep to show anything",
                "give more data",
            )
        recipe = recipe.resized(max_length=shorter, eval_fraction=recipe.data.eval_fraction)
        cut = [one.cut(shorter) for one in samples]
        reasons["data.max_length"] = (
            "shorter than some conversations, so that there are rows to take steps on"
        )


def _sized(sweep: SweepConfig, rows: int, tokens: int, reasons: dict[str, str]) -> SweepConfig:
    """With batch sizes, and the first rung, for as many rows as there will be."""
    least = FEW_STEPS if rows >= 2 * FEW_STEPS * sweep.trial.num_workers else MIN_STEPS
    sweep = resolve_batch_sizes(sweep, rows * MIN_STEPS // least)
    smallest = int(min(reachable(sweep, "effective_batch_size")))
    reasons["search_space.effective_batch_size"] = (
        f"packed rows a step, of about {rows:,} an epoch ({tokens:,} tokens): sizes that "
        f"leave at least {least} steps; small ones are noisy, large ones have few updates"
    )
    return replace(sweep, trial=replace(sweep.trial, effective_batch_size=smallest))


def _about_the_base(sweep: SweepConfig, base: BaseConfig, gpus: int) -> str:
    shape = ModelShape.of(base)
    trainer, why = pick_trainer(sweep, base)
    how = f"on Ray Train, because {why}"
    if trainer == "bank":
        how = "the bank trains many trials at once"
    if shape is None:
        return f"a {base.get('model_type')}, of unknown memory by its config.json; {how}"
    unit, name = (1e9, "billion") if shape.parameters >= 1e9 else (1e6, "million")
    size = f"{shape.parameters / unit:.3g} {name} parameters"
    for name, gib in USUAL_GPUS.items():
        if gpus and choose_execution(sweep, base, memory=gib * 2**30) is not None:
            return f"{size}; {how}; fits GPUs of {name} and more"
    return f"{size}; {how}"
