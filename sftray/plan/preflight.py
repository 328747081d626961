"""The checks that `--plan` and a start share, before anything runs; each yields its warnings."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.config.checks import refuse
from sftray.config.points import field_values, reachable
from sftray.config.resume_check import refuse_other_config, require_no_stranger
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.data.packs.manifest import (
    Counts,
    Estimate,
    Manifest,
    bad_sources,
    counts_of,
    overlap_refusals,
)
from sftray.data.packs.readings import reasons_text
from sftray.data.source.sources import names_files
from sftray.errors import ConfigError
from sftray.metrics import load_metric
from sftray.plan.base_config import require_anywhere, require_attention, special_attention
from sftray.plan.checkpoint_format import require_precision
from sftray.plan.device_fit import DeviceFit
from sftray.plan.disk import require_storage
from sftray.plan.end_row import check_end
from sftray.plan.identities import Identities, refuse_other_identities
from sftray.plan.lora_targets import require_targets
from sftray.plan.model_shape import ModelShape
from sftray.plan.prior_points import published_rate
from sftray.plan.trial_plan import FEW_STEPS, MIN_STEPS, TrialPlan
from sftray.storage import files
from sftray.storage.journal import read_events
from sftray.storage.journal.event_types import EventName
from sftray.storage.model_files import BaseConfig, model_config, require_safetensors
from sftray.storage.paths import SweepPaths, is_uri

HIGH_RATE, BEARS_HIGH_RATES = 2e-4, 1e8
"""A learning rate above which full fine-tuning seldom wants to be; bases of fewer parameters do."""
FEW_SUPERVISED = 1000
"""Trained tokens of an evaluation set below which its loss is a warning in the plan."""


def absolute(sweep: SweepConfig) -> SweepConfig:
    """The sweep as it is from every folder: workers run in folders of their own, where a relative
    path would mean another place."""
    storage, model = sweep.storage, sweep.trial.model
    if not is_uri(storage):
        storage = os.path.abspath(os.path.expanduser(storage))
    if Path(model).expanduser().is_dir():
        model = os.path.abspath(os.path.expanduser(model))
    return replace(sweep, storage=storage, trial=replace(sweep.trial, model=model))


def require_place(sweep: SweepConfig, *, fresh: bool = False) -> None:
    """Raise ConfigError where the sweep cannot be kept: its storage cannot be written, something
    else has its name, an earlier sweep is missing, or, unless it begins `fresh`, more trials have
    run than are asked for."""
    paths = SweepPaths.of(sweep.storage, sweep.name)
    require_storage(sweep.storage)
    require_no_stranger(paths)
    for folder in sweep.warm_start:
        if not files.exists(SweepPaths(folder).sweep):
            refuse("warm_start", f"{folder!r}, where there is no sweep.json", "a sweep's folder")
    if fresh or sweep.points or not files.exists(paths.journal):
        return
    known = [e for e in read_events(paths.journal) if e["event"] == EventName.TRIAL_SUGGESTED]
    begun = sum("confirms" not in event and "folder" not in event for event in known)
    if begun > sweep.num_trials:
        fix = "--num-trials is of the whole sweep, what has run among it"
        refuse("num_trials", str(sweep.num_trials), f"at least {begun}: so many have begun", fix)


def require_same(sweep: SweepConfig, now: Callable[[], Identities]) -> None:
    """Raise ConfigError where a sweep of this name has another configuration, or began with other
    data, another tokenizer or base than there are `now`."""
    paths = SweepPaths.of(sweep.storage, sweep.name)
    refuse_other_config(sweep, paths)
    if files.exists(paths.sweep):
        refuse_other_identities(now(), paths)


def refused(*checks: Callable[[], None]) -> Iterator[str]:
    """What each check refuses."""
    for check in checks:
        try:
            check()
        except ConfigError as error:
            yield str(error)


def checked_base(sweep: SweepConfig) -> BaseConfig:
    """The base's config.json. Raises DataError or ConfigError where trials cannot train what is
    there, ConfigError where there is no such metric."""
    trial = sweep.trial
    base = model_config(trial.model, trial.model_revision)
    require_safetensors(trial.model, trial.model_revision)
    require_precision(sweep, base)
    if trial.finetune == "full" and base.get("text_config"):
        got = "'full' on a checkpoint with other parts than a language model (text_config)"
        refuse("trial.finetune", got, "'lora', which trains the language model alone")
    require_attention(sweep, base)
    if sweep.metric:
        load_metric(sweep.metric)
    return base


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
    require_targets(sweep, base)
    _require_no_idle_revision(sweep)
    _require_different_points(sweep)
    return [
        *check_template(sweep),
        *check_evaluation(sweep.data, counts_of(manifest)["eval"]),
        *check_plans(sweep, plan),
        *check_budgets(sweep, gpus=gpus),
        *check_rates(sweep, base),
        *check_vocabulary(manifest, base),
        *check_end(sweep, manifest),
        *check_attention(sweep, base, gpus=gpus),
    ]


def _require_different_points(sweep: SweepConfig) -> None:
    twice = next((one for n, one in enumerate(sweep.points) if one in sweep.points[:n]), None)
    if twice is not None:
        must = "different points; with another seed, as in {'seed': 1}, one is repeated"
        refuse("points", f"{twice} twice", must)


def _require_no_idle_revision(sweep: SweepConfig) -> None:
    """Raise ConfigError where a revision is given for what has none."""
    if sweep.trial.model_revision and Path(sweep.trial.model).expanduser().is_dir():
        got = f"{sweep.trial.model_revision!r} with the folder {sweep.trial.model}"
        refuse("trial.model_revision", got, "None: only a Hub model has revisions")
    if sweep.data.revision and names_files(sweep.data.mixture[0].path):
        got = f"{sweep.data.revision!r} with the files {sweep.data.source}"
        refuse("data.revision", got, "None: only a Hub dataset has revisions")


def check_template(sweep: SweepConfig) -> Iterator[str]:
    """Where chats are written otherwise than by the template that the base brings."""
    if sweep.data.chat_template is not None:
        own = read_tokenizer(sweep.trial.model, revision=sweep.trial.model_revision).chat_template
        yield from template_warning(files.read_text(sweep.data.chat_template), own)


def template_warning(given: str | None, own: str | None) -> Iterator[str]:
    """Of a template that is not the base's own."""
    if given is not None and own is not None and given.strip() != own.strip():
        yield (
            "data.chat_template is not the template that the base brings: a base that was trained "
            "on chats loses by another; leave it out, unless the base is a plain one"
        )


def check_code(trial: TrialConfig) -> Iterator[str]:
    """Where foreign code would run."""
    if trial.trust_remote_code:
        pinned = f"at {trial.model_revision}" if trial.model_revision else "at whatever it is today"
        yield (
            f"trust_remote_code is on: Python code of {trial.model}, {pinned}, runs here and on "
            "every worker, with all that they may do; read it, and pin trial.model_revision"
        )


def check_plans(sweep: SweepConfig, plan: Callable[[TrialConfig], TrialPlan]) -> Iterator[str]:
    """Trials of few steps; ConfigError where a point that the search could suggest cannot run."""
    planned = [(config, plan(config).steps) for config in shape_corners(sweep)]
    config, steps = min(planned, key=lambda one: one[1])
    if steps < FEW_STEPS:
        yield (
            f"effective_batch_size {config.effective_batch_size} at {config.num_train_epochs:g} "
            f"epochs gives {steps} optimizer steps; fewer than {FEW_STEPS} are a noisy comparison"
        )


def check_ranks(sweep: SweepConfig, fit: DeviceFit) -> Iterator[str]:
    """Where the search could suggest ranks that do not fit the memory."""
    trials = [sweep.trial.at({"lora_r": int(rank)}) for rank in reachable(sweep, "lora_r")]
    if reasons := [reason for trial in trials if (reason := fit.too_large(trial))]:
        yield f"{len(reasons)} of {len(trials)} ranks would not be trained: {reasons[0]}"


def check_budgets(sweep: SweepConfig, *, gpus: float) -> Iterator[str]:
    """Where a budget of GPU time will never be spent."""
    never = [name for name in ("max_gpu_hours", "max_cost") if getattr(sweep, name) is not None]
    if never and not gpus:
        yield (
            f"{' and '.join(never)} never end{'s' * (len(never) == 1)} this sweep, because it runs "
            "on CPUs and no GPU is paid for; max_hours does"
        )


def check_batch_sizes(asked: SweepConfig, searched: SweepConfig) -> Iterator[str]:
    """Where too few of the batch sizes that were asked for leave enough steps, so that others were
    taken."""
    sizes = field_values(searched, "effective_batch_size") or []
    wanted = field_values(asked, "effective_batch_size") or []
    if not set(sizes) <= set(wanted):
        yield (
            f"batch sizes {_listed(wanted)} leave fewer than {MIN_STEPS} steps on so few rows; "
            f"{_listed(sizes)} are searched instead. A shorter data.max_length makes more rows"
        )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def check_vocabulary(manifest: Manifest | Estimate, base: BaseConfig) -> Iterator[str]:
    """Nothing to warn of; ConfigError where the data has a token that the base has no row for."""
    rows = (base.get("text_config") or base).get("vocab_size")
    splits = manifest["splits"]
    # packs of an earlier version do not have it
    highest = max(facts.get("highest_token_id", 0) for facts in splits.values())
    if rows is not None and highest >= rows:
        raise ConfigError(
            f"trial.model: got a base whose embedding has {rows:,} rows, must be more than "
            f"{highest:,}, a token id that its tokenizer gives the data",
            "resize its embedding to its tokenizer, or take the tokenizer that it was trained with",
        )
    yield from ()


def check_rates(sweep: SweepConfig, base: BaseConfig) -> Iterator[str]:
    """Where the learning rates are not those of such a base: none of LoRA's that are published for
    its size, or, in full fine-tuning, all above what only small bases bear."""
    shape, values = ModelShape.of(base), reachable(sweep, "learning_rate")
    low, high = min(values), max(values)
    if sweep.points:  # chosen one by one
        return
    if sweep.trial.finetune == "lora":
        usual = published_rate(base, sweep.trial)
        if usual is not None and not low <= usual <= high:
            tried = f"{low:.3g}" + (f" … {high:.3g}" if len(values) > 1 else "")
            yield (
                f"the learning rate published as good for bases of this size is {usual:.2g}, and "
                f"{tried} does not hold it: --set 'search_space.learning_rate="
                f"loguniform({usual / 5:.0e}, {usual * 5:.0e})'"
            )
    elif low > HIGH_RATE and (shape is None or shape.parameters >= BEARS_HIGH_RATES):
        yield (
            f"all learning rates are {low:.3g} or more; full fine-tuning usually wants 1e-5 … "
            f"5e-5, a tenth of what LoRA wants, and seldom more than {HIGH_RATE:.0e}"
        )


def check_evaluation(data: DataConfig, evaluation: Counts) -> Iterator[str]:
    """Where the evaluation set is too small to distinguish trials, or is trained on."""
    supervised = evaluation["supervised_tokens"]
    if not data.has_eval_loss:
        yield (
            "data.hold_out=False: what is evaluated on is trained on, too, so eval_loss says how "
            "well it is learned and nothing of other conversations"
        )
    elif supervised < FEW_SUPERVISED:
        yield (
            f"the evaluation set has {evaluation['conversations']} conversations and "
            f"{supervised:,} trained tokens; fewer than {FEW_SUPERVISED:,} are a noisy comparison: "
            "raise data.eval_fraction, or give data.eval_source"
        )


def check_attention(sweep: SweepConfig, base: BaseConfig, *, gpus: float) -> Iterator[str]:
    """Where the base has more than PyTorch's variable-length attention computes; ConfigError where
    trials on CPUs ask for one that needs a GPU."""
    if not gpus:
        require_anywhere(sweep, "CPUs")
    special = special_attention(base)
    if special and gpus and sweep.trial.attention is None:
        yield (
            f"the base has {special}, which varlen attention does not compute: trials take "
            "FlashAttention where it is installed, else sdpa, which is slower"
        )


def shape_corners(sweep: SweepConfig) -> list[TrialConfig]:
    """The baseline at every combination of batch size and epochs that the sweep can reach."""
    names = ("effective_batch_size", "num_train_epochs")
    if sweep.points:
        trials = [sweep.trial.at(point) for point in sweep.points]
        shapes = [tuple(getattr(trial, name) for name in names) for trial in trials]
    else:
        batches, epochs = (reachable(sweep, name) for name in names)
        shapes = list(itertools.product(map(int, batches), epochs))
    return [sweep.trial.at(dict(zip(names, shape, strict=True))) for shape in dict.fromkeys(shapes)]


def refusals(data: DataConfig, manifest: Manifest | Estimate) -> Iterator[str]:
    """Why a sweep would not start on its data: a source with too many bad rows, or an evaluation
    set that is trained on."""
    for split, facts in manifest["splits"].items():
        bad, rows = sum(facts["dropped"].values()), facts["read"]
        if bad > data.max_bad_fraction * rows:
            yield (
                f"{split} data: {bad:,} of {rows:,} rows are bad "
                f"({reasons_text(facts['dropped'])}), more than data.max_bad_fraction = "
                f"{data.max_bad_fraction:g}"
            )
    yield from bad_sources(manifest["splits"]["train"], data.max_bad_fraction)
    yield from overlap_refusals(manifest["overlaps"])
