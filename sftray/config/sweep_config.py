"""What a sweep is made of: DataConfig, TrialConfig, SweepConfig.

Promise: frozen, flat and checked when made, so that whatever can be known from the configuration
alone is a ConfigError before any process starts. Price: standard library only, imports in 10 ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from sftray.config.bounds import MAX_SEED, Above, AtLeast, Between, Matches, OneOf, Shares, Texts
from sftray.config.checks import (
    check_fields,
    holds_whole_numbers,
    known_fields,
    refuse,
    require,
    with_known_fields,
)
from sftray.config.data_config import DataConfig
from sftray.config.shares import AXIS, require_shares, source_of
from sftray.config.spaces import Space, Value
from sftray.config.trainings import trials_worth
from sftray.config.trial_config import TrialConfig
from sftray.storage.paths import PACKS

ONE_FROZEN_BASE = "a bank holds one frozen base, and finetune='full' trains it"
TRAINERS = ("auto", "bank", "train")
WANDB_MODES = ("auto", "online", "offline", "disabled")
PROJECT = "a text without /, \\, #, ?, % and :, as W&B wants it"
NAME = "letters, digits, '.', '_' or '-', starting with a letter or digit"


@with_known_fields
@dataclass(frozen=True)
class SweepConfig:
    """A search over TrialConfig fields for one base and one dataset."""

    name: Annotated[str, Matches(r"[A-Za-z0-9][A-Za-z0-9._-]*", NAME)]
    """The sweep's folder under `storage`."""
    data: DataConfig
    trial: TrialConfig
    """The baseline that every point is applied to."""
    search_space: Mapping[str, Space] = field(default_factory=dict)
    """TrialConfig field, or "mixture." and a source's name → loguniform, uniform, randint or
    choice."""
    num_trials: Annotated[int, AtLeast(1)] = 16
    trainings: Annotated[float | None, AtLeast(1)] = None
    """What the search may cost, in full trainings, in the place of num_trials: so many trials are
    drawn as are expected to cost that much with those that rungs stop."""
    warm_start: tuple[str, ...] = ()
    """Folders of earlier sweeps to begin with: what they have trained of this space on the same
    data and base is not trained again, and of others their best points come first."""
    priors: bool = True
    """Begin with points published as good for bases of this size."""
    points: tuple[Mapping[str, Value], ...] = ()
    """Run exactly these points instead of searching."""

    searched_in: str | None = None
    """Folder of the sweep whose recommended point this trains: the model card gives its loss."""

    trainer: Annotated[str, OneOf(*TRAINERS)] = "auto"
    """bank: many trials at once on one base. train: one Ray Train run a trial. auto takes the bank
    where it can run the trials."""
    bank_slots: Annotated[int | None, AtLeast(1)] = None
    """Trials that a bank trains at once; None derives it from memory and max_length."""
    scheduler: Annotated[str, OneOf("asha", "none")] = "asha"
    """asha stops weak trials at rungs of equal data; none runs all to their end."""
    reduction_factor: Annotated[int, AtLeast(2)] = 3
    """Of the trials at a rung the best 1/reduction_factor continue (ASHA's eta), and never fewer
    than two."""
    rungs: Annotated[tuple[float, ...], Shares()] = (0.08, 5 / 12)
    """Shares of a trial's rows at which it is judged, ascending; the first comes later where the
    smallest batch has not had its grace_steps."""
    grace_steps: Annotated[int, AtLeast(1)] = 20
    """Optimizer steps after the warm-up that a trial is sure of: a rung before them passes it by,
    so that a large batch is not judged on a handful of steps."""
    stop_at_odds: Annotated[float | None, Above(0)] = None
    """Begin no more trials once the odds that those left find a point whose eval loss is lower by
    0.2 % are below this, as 0.1; None: run all."""
    early_stopping_patience: Annotated[int | None, AtLeast(1)] = None
    """End a trial by itself after so many evaluations without a better eval loss; None: never."""
    confirm_top: Annotated[int, AtLeast(0)] = 0
    """After the search run so many of the best points again, with new seeds, to their full budget;
    0: the answer is one run's."""
    confirm_seeds: Annotated[int, AtLeast(1)] = 3
    """How often each of them is run again: other row orders, initialisations and dropout."""
    confirm_trainer: Annotated[str | None, OneOf("bank", "train")] = None
    """bank or train; None: what the search was run with."""
    evals_per_trial: Annotated[int, Between(1, 10_000)] = 8
    """Evaluations spread evenly over a trial, besides those at the rungs and at the start."""
    max_concurrent_trials: Annotated[int | None, AtLeast(1)] = None
    """None derives it from the cluster's CPUs and GPUs."""
    cpus_per_worker: Annotated[float, Above(0)] = 1.0
    """CPUs that a worker holds, besides one GPU where there are any."""
    use_gpu: bool | None = None
    """None: if the cluster has GPUs."""
    objective: Annotated[str, OneOf("eval_loss", "metric")] = "eval_loss"
    """What the search makes small: eval_loss, or metric (made large where `metric_is_better` says
    so)."""
    metric: Annotated[str | None, Matches("[^:]*:[^:]*", "'module:function'")] = None
    """A function "module:function" of a trial's answers and their references, as
    sftray.metrics:exact_match: a column of the leaderboard, and what the search is after with
    objective="metric"."""
    metric_is_better: Annotated[str, OneOf("higher", "lower")] = "higher"
    """higher or lower."""
    metric_at: Annotated[str, OneOf("end", "rungs")] = "end"
    """end: trials that completed are scored; rungs: trials at each rung, too, and with
    objective="metric" they are judged there by it. A time costs the answers of
    `num_metric_prompts`."""
    num_metric_prompts: Annotated[int, Between(1, 64)] = 32
    """Held-out prompts that the metric is of, at most 64."""
    num_samples_generated: Annotated[int, AtLeast(0)] = 2
    """Prompts of the eval set that every trial and the base answer, greedily and in at most 64
    tokens, to be read side by side; 0: none."""
    sample_prompts: Annotated[tuple[str, ...], Texts("questions")] = ()
    """Questions that they answer besides, each a single turn of the user's."""
    sample_at: Annotated[str, OneOf("end", "evaluations")] = "end"
    """end: a trial answers when it has completed; evaluations: at each of its evaluations. A time
    takes 0.7 % of the demo's trials in a bank, 4 % of one in `train` (2 prompts, on a CPU)."""
    max_failures: Annotated[int, Between(0, 10_000)] = 2
    """How often a trial that lost its worker is started again from its last checkpoint; machines
    that the cloud took back are not counted."""
    hang_minutes: Annotated[float, AtLeast(0.1)] = 30.0
    """A worker or a bank that has taken no step for so long is taken for dead."""

    on_broken_base: Annotated[str, OneOf("stop", "warn")] = "stop"
    """What a base calls for that cannot be trained: its eval loss is not finite, or three trials
    end worse than it, one of them at or below the learning rate published for its size. "warn" is
    for random weights."""

    max_hours: Annotated[float | None, Above(0)] = None
    """Wall time of the sweep over all its starts. A sweep whose budget is used up ends with what it
    has: trials that run stop at their next evaluation, and continue if the budget is raised."""
    max_gpu_hours: Annotated[float | None, Above(0)] = None
    """Of the GPUs that the sweep holds, whether they train or wait."""
    max_cost: Annotated[float | None, Above(0)] = None
    """`max_gpu_hours` in money, at `price_per_gpu_hour`."""
    price_per_gpu_hour: Annotated[float | None, Above(0)] = None
    """What an hour of one GPU costs, in any currency."""

    storage: str = "results"
    """Folder or s3://, gs:// URI that holds sweeps and packs."""
    wandb: Annotated[str, OneOf(*WANDB_MODES)] = "auto"
    """auto: online with a key, else off with a line that says so; or online, offline, disabled."""
    wandb_project: Annotated[str, Matches(r"[^/\\#?%:]{1,128}", PROJECT)] = "sftray"
    wandb_samples: bool = False
    """Also send the sample prompts and answers: text of the dataset leaves the machine."""
    wandb_adapter: bool = False
    """Also send the best adapter, as an artifact."""
    tensorboard: bool = False
    """Also write TensorBoard's event files, in the sweep's folder under tensorboard/."""
    seed: int = 0
    """Seed of the search."""

    def __post_init__(self) -> None:
        check_fields("", self)
        for name in ("warm_start", "sample_prompts", "rungs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for point in self.points:
            must = "a list of points, as in {'lora_r': 8}"
            require(isinstance(point, Mapping), "points", repr(point), must)
        object.__setattr__(self, "points", tuple(dict(point) for point in self.points))
        if self.trainings is not None:
            rungs = self.rungs if self.scheduler == "asha" else ()
            worth = trials_worth(self.trainings, rungs, self.reduction_factor)
            object.__setattr__(self, "num_trials", worth)
        self._require_spaces()
        if self.name == PACKS:
            refuse("name", repr(PACKS), "another: the packs of all sweeps lie in this folder")
        if self.objective == "metric" and self.metric is None:
            must = "'eval_loss', or given with metric='module:function'"
            refuse("objective", "'metric' without a metric", must)
        if self.metric_at == "rungs" and self.metric is None:
            refuse("metric_at", "'rungs' without a metric", "'end', or given with a metric")
        if not self.data.has_eval_loss and self.total_trials > 1:
            must = "True: trials are compared by what they have not trained on"
            refuse("data.hold_out", f"False with {self.total_trials} trials", must)
        self._require_repetitions()
        if self.warm_start and self.points:
            must = "a search: given points are run as they are"
            refuse("warm_start", f"{list(self.warm_start)} with points", must)
        if self.stop_at_odds is not None and (self.points or self.objective == "metric"):
            got = f"{self.stop_at_odds} with {'points' if self.points else 'a metric'}"
            refuse("stop_at_odds", got, "None: the odds are of a search by eval loss")
        if self.max_cost is not None and self.price_per_gpu_hour is None:
            must = "given with price_per_gpu_hour"
            refuse("max_cost", f"{self.max_cost} without a price", must)
        self._require_one_way_to_train()
        corners = ({name: v} for name, space in self.search_space.items() for v in space.corners())
        trials = [self.trial.at(point) for point in (*self.points, *corners)]
        self._require_shares(trials)

    @property
    def takes_last(self) -> bool:
        """Whether a trial's last weights count, and not those of its lowest eval loss."""
        return self.objective == "metric" or not self.data.has_eval_loss

    @property
    def judges_metric(self) -> bool:
        """Whether trials are compared at rungs by the metric."""
        return self.objective == "metric" and self.metric_at == "rungs"

    def _require_spaces(self) -> None:
        """Every axis is a field of a trial, with a space of its kind."""
        fields = [name for name in self.search_space if source_of(name) is None]
        known_fields("search_space", fields, TrialConfig)
        if "mixture" in self._axes:
            refuse("mixture", "a search over it", f"an axis a source, as in {AXIS}NAME")
        if "trust_remote_code" in self._axes:
            must = (
                "a field of `trial`, for all trials: whether foreign code runs is not to be tried"
            )
            refuse("trust_remote_code", "a search over it", must)
        for name, space in self.search_space.items():
            _require_space(name, space)
        if {"lora_alpha", "lora_alpha_ratio"} <= self._axes:
            must = "one of them: the ratio takes the place of alpha"
            refuse("search_space", "lora_alpha and lora_alpha_ratio", must)
        if not (self.search_space or self.points):
            refuse("search_space", "nothing", "at least one field to search")

    @property
    def _axes(self) -> set[str]:
        return {*self.search_space, *(name for point in self.points for name in point)}

    def _require_shares(self, trials: Sequence[TrialConfig]) -> None:
        """Every share is of one of several sources, and all of a trial leave something over."""
        highest = {
            source: (space.ends() or (0.0, 0.0))[1]
            for name, space in self.search_space.items()
            if (source := source_of(name)) is not None
        }
        named = dict.fromkeys(name for trial in trials for name in trial.mixture)
        given = [trial.mixture for trial in trials] if self.points else []
        largest = given or [{**self.trial.mixture, **highest}]
        require_shares(self.data.mixture, named, largest)

    def _require_repetitions(self) -> None:
        """Repetitions differ from their trial by the seed alone, and by their eval losses."""
        if self.confirm_top and self.objective == "metric":
            must = "0: repetitions are compared by their eval losses"
            refuse("confirm_top", f"{self.confirm_top} with objective='metric'", must)
        if self.confirm_top and self.trial.seed + self.confirm_seeds > MAX_SEED:
            must = f"at most {MAX_SEED - self.confirm_seeds}: a confirmation counts on from it"
            refuse("trial.seed", f"{self.trial.seed} with confirm_seeds", must)
        if self.confirm_top and "seed" in self.search_space:
            must = "0, or a search without the seed, which a confirmation varies"
            refuse("confirm_top", f"{self.confirm_top} while search_space has the seed", must)

    def _require_one_way_to_train(self) -> None:
        """All trials train an adapter, or all of them all weights, and then no bank trains them."""
        if "finetune" in self._axes:
            must = "one for all trials: their best rates differ by a factor of ten; run two sweeps"
            refuse("search_space", "'finetune' as an axis", must)
        if self.trial.finetune == "lora":
            return
        if unused := sorted(name for name in self._axes if name.startswith("lora_")):
            must = "other fields, or finetune='lora': all weights are trained, there is no adapter"
            refuse("search_space", f"{', '.join(unused)} with trial.finetune='full'", must)
        if self.wandb_adapter:
            must = "False: there is no adapter, and a whole model is gigabytes"
            refuse("wandb_adapter", "True with trial.finetune='full'", must)
        for name in ("trainer", "confirm_trainer"):
            if getattr(self, name) == "bank":
                must = f"'train' or left out: {ONE_FROZEN_BASE}"
                refuse(name, "'bank' with trial.finetune='full'", must)

    @property
    def total_trials(self) -> int:
        """How many trials the sweep has: one a point where they are given, else num_trials."""
        return len(self.points) or self.num_trials


def _require_space(name: str, space: Space) -> None:
    what = f"search_space[{name!r}]"
    must = "loguniform(…), uniform(…), randint(…) or choice([…])"
    require(isinstance(space, Space), what, repr(space), must)
    if space.fitting and name != "effective_batch_size":
        must = "choice([…]): only effective_batch_size is fitted to the number of rows"
        refuse(what, "fitting([…])", must)
    if (
        source_of(name) is None
        and holds_whole_numbers(TrialConfig, name)
        and space.finite_values() is None
    ):
        low, high = map(round, space.ends() or ())
        fix = f"use randint({low}, {high}), or choice([…])"
        refuse(what, space.as_code(), "whole numbers", fix)


BUDGETS = ("max_hours", "max_gpu_hours", "max_cost", "price_per_gpu_hour")
"""The fields that say what a sweep may spend."""
