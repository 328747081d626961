"""What a sweep is made of: DataConfig, TrialConfig, SweepConfig.

Promise: frozen, flat and checked when made, so that whatever can be known from the configuration
alone is a ConfigError before any process starts. Price: standard library only, imports in 10 ms.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sftray.config.checks import (
    is_number,
    known_fields,
    no_secrets,
    one_of,
    require,
    with_known_fields,
)
from sftray.config.spaces import Choice, RandInt, Space, Uniform

BASE_PRECISIONS = ("nf4", "bf16", "fp32")
FINETUNES = ("lora", "full")
ONE_FROZEN_BASE = "a bank holds one frozen base, and finetune='full' trains it"
ATTENTIONS = ("flash_attention_3", "flash_attention_2", "varlen", "sdpa")
COLUMN_FORMATS = ("auto", "messages", "conversations", "prompt_completion", "instruction")
SCHEDULERS = ("asha", "none")
SAMPLE_AT = ("end", "evaluations")
OBJECTIVES = ("eval_loss", "metric")
TRAINERS = ("auto", "bank", "train")
WANDB_MODES = ("auto", "online", "offline", "disabled")


@with_known_fields
@dataclass(frozen=True)
class DataConfig:
    """Which conversations to train on, and how they become packed rows."""

    source: str
    """A .jsonl or .parquet path or glob, an s3:// or gs:// URI of either, or a Hub dataset id."""
    split: str = "train"
    """The split of a Hub dataset; files have none."""
    revision: str | None = None
    """Git revision of a Hub dataset; None takes the newest and records it."""
    columns: str = "auto"
    """How conversations are spelled: auto, messages, conversations, prompt_completion,
    instruction."""
    eval_source: str | None = None
    """Evaluation conversations of their own; None holds some out of the training data."""
    eval_split: str | None = None
    """Evaluation split of the same Hub dataset."""
    eval_fraction: float = 0.02
    """Share of the conversations held out, chosen by a hash of their first user turn."""
    num_eval_conversations: int = 500
    """At most this many conversations are evaluated on."""
    max_conversations: int | None = None
    """Read only this many conversations, from the start of the source."""
    max_length: int = 2048
    """Tokens a packed row holds; longer conversations lose trailing exchanges."""
    max_bad_fraction: float = 0.05
    """Refuse to start when more than this share of the rows had to be dropped."""
    chat_template: str | None = None
    """Path of a Jinja chat template; None takes the tokenizer's own."""
    template_date: str = "2025-01-01"
    """The date that templates print, frozen so that packs and prompts repeat (YYYY-MM-DD)."""
    seed: int = 0
    """Seed of the held-out choice and of the order of packed rows."""

    def __post_init__(self) -> None:
        _require_types("data.", self)
        no_secrets("data.", self)
        require(bool(self.source), "data.source", repr(self.source), "a path, a URI or a Hub id")
        one_of("data.columns", self.columns, COLUMN_FORMATS)
        require(
            8 <= self.max_length <= 1_048_576,
            "data.max_length",
            str(self.max_length),
            "8 … 1,048,576 tokens",
        )
        require(
            0 < self.eval_fraction < 1, "data.eval_fraction", str(self.eval_fraction), "0 < x < 1"
        )
        require(
            self.num_eval_conversations >= 1,
            "data.num_eval_conversations",
            str(self.num_eval_conversations),
            "at least 1",
        )
        require(
            self.max_conversations is None or self.max_conversations >= 1,
            "data.max_conversations",
            str(self.max_conversations),
            "at least 1, or None for all",
        )
        require(
            0 <= self.max_bad_fraction <= 1,
            "data.max_bad_fraction",
            str(self.max_bad_fraction),
            "0 … 1",
        )
        require(
            re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.template_date) is not None,
            "data.template_date",
            repr(self.template_date),
            "YYYY-MM-DD",
        )
        require(
            self.eval_source is None or self.eval_split is None,
            "data.eval_source and data.eval_split",
            "both",
            "one of them",
        )


@with_known_fields
@dataclass(frozen=True)
class TrialConfig:
    """One fine-tune. A point of the search is applied with `replace(trial, **point)`."""

    model: str
    """The base: a local folder or a Hub model id."""
    model_revision: str | None = None
    """Git revision of a Hub model; None takes the newest and records it."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository brings. Off unless you have read it."""
    finetune: str = "lora"
    """What is trained: lora, an adapter on a frozen base; full, all weights, held in float32."""
    base_precision: str = "nf4"
    """How the frozen base is held: nf4 (QLoRA, double-quantised), bf16 or fp32. In full
    fine-tuning, where no nf4 is: what is computed in."""

    learning_rate: float = 1e-4
    """Peak learning rate of AdamW; LoRA usually wants 1e-4 … 2e-4, full fine-tuning
    1e-5 … 5e-5."""
    effective_batch_size: int = 16
    """Packed rows an optimizer step; always micro-batch × accumulation × workers exactly."""
    num_train_epochs: float = 1.0
    """Passes over the packed rows; fractions are allowed."""
    warmup_ratio: float = 0.05
    """Share of the optimizer steps in which the learning rate rises from 0 (rounded up)."""
    min_lr_ratio: float = 0.0
    """The cosine ends at this share of the peak."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay, on all LoRA weights; in full fine-tuning not on norms and biases."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999

    lora_r: int = 16
    """LoRA rank."""
    lora_alpha: float | None = None
    """LoRA's alpha; None derives lora_alpha_ratio × lora_r, so that rank can be searched alone."""
    lora_alpha_ratio: float = 2.0
    """alpha / r where lora_alpha is None."""
    lora_dropout: float = 0.0
    """Dropout in front of lora_A."""
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    """The modules that get an adapter, in PEFT's words."""

    num_workers: int = 1
    """Workers (GPUs) a trial."""
    micro_batch_size: int | None = None
    """Rows a worker holds at once; None derives it."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass; None derives it."""
    attention: str | None = None
    """flash_attention_3, flash_attention_2, varlen or sdpa; None takes the fastest that works."""
    shard_base: bool = False
    """Spread the base over the trial's workers (FSDP2), instead of a whole one on each."""
    seed: int = 0
    """Row order, adapter initialisation and dropout."""

    def __post_init__(self) -> None:
        _require_types("trial.", self)
        no_secrets("trial.", self)
        require(bool(self.model), "trial.model", repr(self.model), "a folder or a Hub model id")
        one_of("trial.finetune", self.finetune, FINETUNES)
        one_of("trial.base_precision", self.base_precision, BASE_PRECISIONS)
        require(
            self.finetune == "lora" or self.base_precision != "nf4",
            "trial.base_precision",
            "'nf4' with finetune='full'",
            "'bf16' or 'fp32': 4-bit weights cannot be trained",
        )
        if self.attention is not None:
            one_of("trial.attention", self.attention, ATTENTIONS)
        for name, low in (
            ("effective_batch_size", 1),
            ("lora_r", 1),
            ("num_workers", 1),
            ("micro_batch_size", 1),
        ):
            value = getattr(self, name)
            if value is not None:
                require(
                    isinstance(value, int) and value >= low,
                    f"trial.{name}",
                    repr(value),
                    f"a whole number of at least {low}",
                )
        for name in ("learning_rate", "num_train_epochs", "max_grad_norm", "lora_alpha_ratio"):
            value = getattr(self, name)
            require(
                is_number(value) and math.isfinite(value) and value > 0,
                f"trial.{name}",
                repr(value),
                "a finite number above 0",
            )
        for name in ("warmup_ratio", "min_lr_ratio", "lora_dropout", "adam_beta1", "adam_beta2"):
            value = getattr(self, name)
            require(is_number(value) and 0 <= value < 1, f"trial.{name}", repr(value), "0 <= x < 1")
        require(
            is_number(self.weight_decay) and self.weight_decay >= 0,
            "trial.weight_decay",
            repr(self.weight_decay),
            "at least 0",
        )
        require(
            self.lora_alpha is None or self.lora_alpha > 0,
            "trial.lora_alpha",
            repr(self.lora_alpha),
            "above 0, or None for lora_alpha_ratio × lora_r",
        )
        require(
            self.effective_batch_size % self.num_workers == 0,
            "trial.effective_batch_size",
            f"{self.effective_batch_size} with num_workers={self.num_workers}",
            "a multiple of num_workers",
        )
        require(
            not self.shard_base or (self.num_workers > 1 and self.base_precision == "nf4"),
            "trial.shard_base",
            f"True with num_workers={self.num_workers}, base_precision={self.base_precision!r}",
            "with several workers and an nf4 base",
        )
        require(
            not self.shard_base or self.lora_target_modules == "all-linear",
            "trial.shard_base",
            f"True with lora_target_modules={self.lora_target_modules!r}",
            "with 'all-linear': only adapted layers can be taken apart",
        )
        if isinstance(self.lora_target_modules, list):
            object.__setattr__(self, "lora_target_modules", tuple(self.lora_target_modules))

    @property
    def alpha(self) -> float:
        """LoRA's alpha as PEFT wants it."""
        if self.lora_alpha is not None:
            return self.lora_alpha
        return self.lora_alpha_ratio * self.lora_r

    def at(self, point: Mapping[str, Any]) -> TrialConfig:
        """This baseline with a point of the search applied, checked again."""
        known_fields("point", point, TrialConfig)
        return dataclasses.replace(self, **point)


@with_known_fields
@dataclass(frozen=True)
class SweepConfig:
    """A search over TrialConfig fields for one base and one dataset."""

    name: str
    """The sweep's folder under `storage`."""
    data: DataConfig
    trial: TrialConfig
    """The baseline that every point is applied to."""
    search_space: Mapping[str, Space] = field(default_factory=dict)
    """TrialConfig field → loguniform, uniform, randint or choice."""
    num_trials: int = 16
    warm_start: tuple[str, ...] = ()
    """Folders of earlier sweeps to begin with: what they have trained of this space on the same
    data and base is not trained again, and of others their best points come first."""
    priors: bool = True
    """Begin with points published as good for bases of this size."""
    points: tuple[Mapping[str, Any], ...] = ()
    """Run exactly these points instead of searching."""

    trainer: str = "auto"
    """bank: many trials at once on one base. train: one Ray Train run a trial. auto takes the bank
    where it can run the trials."""
    bank_slots: int | None = None
    """Trials that a bank trains at once; None derives it from memory and max_length."""
    scheduler: str = "asha"
    """asha stops weak trials at rungs of equal data; none runs all to their end."""
    reduction_factor: int = 3
    """Of the trials at a rung the best 1/reduction_factor go on (ASHA's eta)."""
    grace_rows: int | None = None
    """Rows every trial is sure of; None derives the smallest budget / reduction_factor²."""
    early_stopping_patience: int | None = None
    """End a trial by itself after so many evaluations without a better eval loss; None: never."""
    confirm_top: int = 0
    """After the search run so many of the best points again, with new seeds, to their full budget;
    0: the answer is one run's."""
    confirm_seeds: int = 3
    """How often each of them is run again: other row orders, initialisations and dropout."""
    confirm_trainer: str | None = None
    """bank or train; None: what the search was run with."""
    evals_per_trial: int = 8
    """Evaluations spread evenly over a trial, besides those at the rungs and at the start."""
    max_concurrent_trials: int | None = None
    """None derives it from the cluster's CPUs and GPUs."""
    cpus_per_worker: float = 1.0
    """CPUs that a worker holds, besides one GPU where there are any."""
    use_gpu: bool | None = None
    """None: if the cluster has GPUs."""
    objective: str = "eval_loss"
    """What the search makes small: eval_loss, or metric (made large where `metric_is_better` says
    so)."""
    metric: str | None = None
    """A function "module:function" of a trial's answers and their references, as
    sftray.metrics:exact_match: a column of the leaderboard, and what the search is after with
    objective="metric"."""
    metric_is_better: str = "higher"
    """higher or lower."""
    num_metric_prompts: int = 32
    """Held-out prompts that the metric is of, at most 64."""
    num_samples_generated: int = 2
    """Prompts of the eval set that every trial and the base answer, greedily and in at most 64
    tokens, to be read side by side; 0: none."""
    sample_prompts: tuple[str, ...] = ()
    """Questions that they answer besides, each a single turn of the user's."""
    sample_at: str = "end"
    """end: a trial answers when it has completed; evaluations: at each of its evaluations. A time
    takes 0.7 % of the demo's trials in a bank, 4 % of one in `train` (2 prompts, on a CPU)."""
    max_failures: int = 2
    """How often a trial that lost its worker is started again from its last checkpoint; machines
    that the cloud took back are not counted."""
    hang_minutes: float = 30.0
    """A worker or a bank that has taken no step for so long is taken for dead."""

    max_hours: float | None = None
    """Wall time of the sweep over all its starts. A sweep whose budget is spent ends with what it
    has: trials that run stop at their next evaluation, and go on if the budget is raised."""
    max_gpu_hours: float | None = None
    """Of the GPUs that the sweep holds, whether they train or wait."""
    max_cost: float | None = None
    """`max_gpu_hours` in money, at `price_per_gpu_hour`."""
    price_per_gpu_hour: float | None = None
    """What an hour of one GPU costs, in any currency."""

    storage: str = "results"
    """Folder or s3://, gs:// URI that holds sweeps and packs."""
    wandb: str = "auto"
    """auto: online with a key, else off with a line that says so; or online, offline, disabled."""
    wandb_project: str = "sftray"
    wandb_samples: bool = False
    """Also send the sample prompts and answers: text of the dataset leaves the machine."""
    wandb_adapter: bool = False
    """Also send the best adapter, as an artifact."""
    tensorboard: bool = False
    """Also write TensorBoard's event files, in the sweep's folder under tensorboard/."""
    seed: int = 0
    """Seed of the search."""

    def __post_init__(self) -> None:
        _require_types("", self)
        no_secrets("", self)
        require(
            re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name) is not None,
            "name",
            repr(self.name),
            "letters, digits, '.', '_' or '-', starting with a letter or digit",
        )
        one_of("trainer", self.trainer, TRAINERS)
        one_of("scheduler", self.scheduler, SCHEDULERS)
        one_of("wandb", self.wandb, WANDB_MODES)
        known_fields("search_space", self.search_space, TrialConfig)
        for where in (self.search_space, *self.points):
            require(
                "trust_remote_code" not in where,
                "trust_remote_code",
                "a search over it",
                "a field of `trial`, for all trials: whether foreign code runs is not to be tried",
            )
        for name, space in self.search_space.items():
            require(
                isinstance(space, Uniform | RandInt | Choice),
                f"search_space[{name!r}]",
                repr(space),
                "loguniform(…), uniform(…), randint(…) or choice([…])",
            )
        require(
            self.num_trials >= 1, "num_trials", str(self.num_trials), "a whole number of at least 1"
        )
        require(
            self.reduction_factor >= 2,
            "reduction_factor",
            str(self.reduction_factor),
            "at least 2",
        )
        if self.confirm_trainer is not None:
            one_of("confirm_trainer", self.confirm_trainer, ("bank", "train"))
        require(self.confirm_top >= 0, "confirm_top", str(self.confirm_top), "at least 0")
        require(self.confirm_seeds >= 1, "confirm_seeds", str(self.confirm_seeds), "at least 1")
        require(
            not (self.confirm_top and self.objective == "metric"),
            "confirm_top",
            f"{self.confirm_top} with objective='metric'",
            "0: repetitions are compared by their eval losses",
        )
        require(
            not (self.confirm_top and "seed" in self.search_space),
            "confirm_top",
            f"{self.confirm_top} while search_space has the seed",
            "0, or a search without the seed, which a confirmation varies",
        )
        object.__setattr__(self, "warm_start", tuple(self.warm_start))
        one_of("objective", self.objective, OBJECTIVES)
        require(
            self.metric is None or self.metric.count(":") == 1,
            "metric",
            repr(self.metric),
            "'module:function', or None",
        )
        require(
            self.metric is not None or self.objective != "metric",
            "objective",
            "'metric' without a metric",
            "'eval_loss', or given with metric='module:function'",
        )
        one_of("metric_is_better", self.metric_is_better, ("higher", "lower"))
        require(
            1 <= self.num_metric_prompts <= 64,
            "num_metric_prompts",
            str(self.num_metric_prompts),
            "1 … 64",
        )
        require(
            not (self.warm_start and self.points),
            "warm_start",
            f"{list(self.warm_start)} with points",
            "a search: given points are run as they are",
        )
        for name in (
            "grace_rows",
            "bank_slots",
            "max_concurrent_trials",
            "early_stopping_patience",
        ):
            value = getattr(self, name)
            require(value is None or value >= 1, name, str(value), "at least 1, or None")
        require(self.evals_per_trial >= 1, "evals_per_trial", str(self.evals_per_trial), ">= 1")
        for name in ("max_failures", "num_samples_generated"):
            require(getattr(self, name) >= 0, name, str(getattr(self, name)), "at least 0")
        for name in ("max_hours", "max_gpu_hours", "max_cost", "price_per_gpu_hour"):
            value = getattr(self, name)
            require(value is None or value > 0, name, str(value), "above 0, or None")
        require(
            self.max_cost is None or self.price_per_gpu_hour is not None,
            "max_cost",
            f"{self.max_cost} without a price",
            "given with price_per_gpu_hour",
        )
        require(
            not isinstance(self.sample_prompts, str)
            and all(isinstance(text, str) and text.strip() for text in self.sample_prompts),
            "sample_prompts",
            repr(self.sample_prompts),
            "a list of questions, none of them empty",
        )
        object.__setattr__(self, "sample_prompts", tuple(self.sample_prompts))
        one_of("sample_at", self.sample_at, SAMPLE_AT)
        for name in ("cpus_per_worker", "hang_minutes"):
            require(getattr(self, name) > 0, name, str(getattr(self, name)), "above 0")
        self._require_one_way_to_train()
        for name, space in self.search_space.items():
            require(
                not (isinstance(space, Choice) and space.fitting) or name == "effective_batch_size",
                f"search_space[{name!r}]",
                "fitting([…])",
                "choice([…]): only effective_batch_size is fitted to the number of rows",
            )
        require(
            not ("lora_r" in self.search_space and self.trial.lora_alpha is not None),
            "search_space",
            f"lora_r searched while trial.lora_alpha is fixed at {self.trial.lora_alpha}",
            "lora_alpha=None, so that alpha follows the rank by lora_alpha_ratio",
        )
        if not self.points:
            require(
                len(self.search_space) > 0,
                "search_space",
                "nothing",
                "at least one field to search",
            )
        object.__setattr__(self, "points", tuple(dict(point) for point in self.points))
        for point in self.points:
            self.trial.at(point)
        for corner in _corners(self.search_space):
            self.trial.at(corner)

    def _require_one_way_to_train(self) -> None:
        """All trials train an adapter, or all of them all weights, and then no bank trains them."""
        axes = {*self.search_space, *(name for point in self.points for name in point)}
        require(
            "finetune" not in axes,
            "search_space",
            "'finetune' as an axis",
            "one for all trials: their best rates differ by a factor of ten; run two sweeps",
        )
        if self.trial.finetune == "lora":
            return
        unused = sorted(name for name in axes if name.startswith("lora_"))
        require(
            not unused,
            "search_space",
            f"{', '.join(unused)} with trial.finetune='full'",
            "other fields, or finetune='lora': all weights are trained, there is no adapter",
        )
        require(
            not self.wandb_adapter,
            "wandb_adapter",
            "True with trial.finetune='full'",
            "False: there is no adapter, and a whole model is gigabytes",
        )
        for name in ("trainer", "confirm_trainer"):
            require(
                getattr(self, name) != "bank",
                name,
                "'bank' with trial.finetune='full'",
                f"'train' or left out: {ONE_FROZEN_BASE}",
            )

    @property
    def total_trials(self) -> int:
        """How many trials the sweep has: one a point where they are given, else num_trials."""
        return len(self.points) or self.num_trials


def _corners(spaces: Mapping[str, Space]) -> list[dict[str, Any]]:
    """Points at the ends of each space, one axis at a time, to check the whole range early."""
    corners = []
    for name, space in spaces.items():
        values = space.values if isinstance(space, Choice) else (space.low, space.high)
        corners += [{name: value} for value in values]
    return corners


def _require_types(room: str, config: Any) -> None:
    """Every plain field holds what it is annotated with; a whole number may stand for a float."""
    for f in fields(config):
        kind, _, rest = str(f.type).partition(" | ")
        value = getattr(config, f.name)
        if kind not in _TYPES or rest not in ("", "None") or (rest and value is None):
            continue
        allowed, words = _TYPES[kind]
        fits = isinstance(value, allowed) and (kind == "bool" or not isinstance(value, bool))
        must = f"{words}, or None" if rest else words
        require(fits, f"{room}{f.name}", repr(value), must)


_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
}
