"""How the trials of a sweep are run: what the trainers have in common.

Promise: a trainer brings its trainable and its number of trials at once; search, journal, recorder
and Tune are the same for all. Torch never comes to the driver, but for `--local`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypedDict

import ray
from ray import tune
from ray.tune import Callback, CheckpointConfig

from sftray.cluster import ray_private
from sftray.cluster.node_sight import Sight
from sftray.config import SweepConfig, TrialConfig
from sftray.config.points import Point
from sftray.plan.device_fit import DeviceFit
from sftray.plan.trial_plan import TrialPlan
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.search.tune_adapters import SftrayScheduler, SftraySearcher
from sftray.storage.journal import event_types
from sftray.storage.model_files import BaseConfig
from sftray.storage.paths import SweepPaths
from sftray.trial.trial_spec import TrialSpec

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.tune.experiment import Trial


class TuneConfig(TypedDict):
    """What `SftraySearcher` hands to a trial's client, through Tune."""

    trial: str
    point: Point
    judged: bool
    """At rungs."""
    base_eval_loss: float | None
    """The untrained base's, where an earlier trial has measured it."""


ToSpec = Callable[[TuneConfig], TrialSpec]


@dataclass(frozen=True)
class TrialSpecs:
    """A Tune config as the trial that a worker runs; travels to the trials' clients."""

    sweep: SweepConfig
    paths: SweepPaths
    packs: str
    """Root of the packs."""
    plan: Callable[[TrialConfig], TrialPlan]
    sight: Sight | None = None

    def of(self, config: TuneConfig) -> TrialSpec:
        trial = self.sweep.trial.at(config["point"])
        plan = self.plan(trial)
        one_base = "base_precision" not in self.sweep.search_space
        return TrialSpec(
            trial=config["trial"],
            config=trial,
            plan=plan if config["judged"] else replace(plan, rungs=()),
            packs=self.packs,
            folder=self.paths.trial(config["trial"]).root,
            base_eval_loss=config["base_eval_loss"] if one_base else None,
            num_samples_generated=self.sweep.num_samples_generated,
            sample_prompts=self.sweep.sample_prompts,
            sample_at=self.sweep.sample_at,
            metric=self.sweep.metric,
            metric_at=self.sweep.metric_at,
            judges_metric=self.sweep.judges_metric,
            num_metric_prompts=self.sweep.num_metric_prompts,
            sight=self.sight,
        )


@dataclass(frozen=True)
class FittedTrainer:
    """A trainer that has found how it runs a sweep's trials."""

    fit: DeviceFit
    run: Callable[[TrialSpecs, Search, Recorder], None]
    """Run trials until the search has no more."""


class Runner(Protocol):
    """A trainer at work for one sweep."""

    gpus: int
    """How many it asks the cluster for."""

    def fit(self, sweep: SweepConfig, base: BaseConfig) -> FittedTrainer | None:
        """What runs the trials; None where they do not fit this trainer. base: the base's
        config.json. Raises ConfigError where they fit no trainer."""
        ...

    def submit(self, function: Callable[..., object], *arguments: object) -> ObjectRef:
        """Run a function on what the trials ran on, now that they have ended."""
        ...

    def close(self) -> None:
        """Give back what the trials ran on."""
        ...


def submit_task(function: Callable[..., object], *arguments: object, use_gpu: bool) -> ObjectRef:
    """Run a function as a task of its own, on a GPU if the trials had one."""
    remote = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0, max_retries=2)(function)
    return remote.remote(*arguments)


def tune_trials(
    trainable: object,
    specs: TrialSpecs,
    search: Search,
    recorder: Recorder,
    *,
    at_once: int,
    free: Callable[[str], None] = lambda trial: None,
) -> set[str]:
    """Run Tune until the search has no more trials; nothing that it writes is ever read. `free`
    lets go of a trial that has ended. The placement groups that trials have reported."""
    sweep, callback = specs.sweep, TuneRecorder(recorder, free)
    ray_private.tune_environment().difference_update(_KEYS)
    with tempfile.TemporaryDirectory(prefix="sftray-tune-") as scratch:
        tune.Tuner(
            # a trial's driver holds no CPU that a worker could have
            tune.with_resources(trainable, {"node:__internal_head__": 0.001}),
            tune_config=tune.TuneConfig(
                search_alg=SftraySearcher(search),
                scheduler=SftrayScheduler(search),
                num_samples=-1,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=scratch,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()
    return callback.placement_groups


_KEYS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
}
"""What Tune would hand from the driver's environment to the trials' drivers, in a runtime_env that
Ray writes to its logs as it is. They need none: what touches storage is not started by Tune."""


class TuneRecorder(Callback):  # type: ignore[misc]  # Ray is untyped
    """The recorder behind Tune's callbacks; Tune pickles it, and it is empty there."""

    def __init__(self, recorder: Recorder, free: Callable[[str], None]) -> None:
        self._recorder, self._free = recorder, free
        self.placement_groups: set[str] = set()

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: event_types.ReportValues,
        **_: object,
    ) -> None:
        self._recorder.result(trial.config["trial"], result)
        if group := result.get("placement_group"):
            self.placement_groups.add(group)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: object
    ) -> None:
        self._recorder.recovers(trial.config["trial"])

    def on_step_end(self, iteration: int, trials: list[Trial], **_: object) -> None:
        self._recorder.stepped()
        self._recorder.finish_trials(self._free)

    def __getstate__(self) -> dict[str, object]:
        return {}
