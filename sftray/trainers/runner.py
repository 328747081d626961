"""How the trials of a sweep are run: what the trainers have in common.

Promise: a trainer brings its trainable and its number of trials at once; search, journal, recorder
and Tune are the same for all. Torch never comes to the driver, but for `--local`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune import Callback, CheckpointConfig

from sftray.cluster import ray_private
from sftray.config import SweepConfig, TrialConfig
from sftray.plan.device_fit import DeviceFit
from sftray.plan.trial_plan import TrialPlan
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.search.search_trials import Suggestion
from sftray.search.tune_adapters import SftrayScheduler, SftraySearcher
from sftray.storage.model_files import BaseConfig
from sftray.storage.paths import SweepPaths
from sftray.trial.trial_spec import TrialSpec


@dataclass(frozen=True)
class TrialSpecs:
    """A suggestion as the trial that a worker runs; travels to the trials' drivers."""

    sweep: SweepConfig
    paths: SweepPaths
    packs: str
    """Root of the packs."""
    plan: Callable[[TrialConfig], TrialPlan]

    def of(self, suggestion: Suggestion) -> TrialSpec:
        trial = self.sweep.trial.at(suggestion.point)
        one_base = "base_precision" not in self.sweep.search_space
        return TrialSpec(
            trial=suggestion.trial,
            config=trial,
            plan=self.plan(trial),
            packs=self.packs,
            folder=self.paths.trial(suggestion.trial).root,
            leaderboard=self.paths.leaderboard if one_base else None,
            num_samples_generated=self.sweep.num_samples_generated,
            sample_prompts=self.sweep.sample_prompts,
            sample_at=self.sweep.sample_at,
            metric=self.sweep.metric,
            num_metric_prompts=self.sweep.num_metric_prompts,
        )


class Runner(Protocol):
    """A trainer at work for one sweep."""

    gpus: int
    """How many it asks the cluster for."""

    def fit(self, sweep: SweepConfig, base: BaseConfig) -> DeviceFit | None:
        """How trials are run; None where they do not fit this trainer. base: the base's
        config.json. Raises ConfigError where they fit no trainer."""
        ...

    def run(self, specs: TrialSpecs, search: Search, recorder: Recorder) -> None:
        """Run trials until the search has no more."""
        ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on what the trials ran on, now that they have ended; Ray's reference."""
        ...

    def close(self) -> None:
        """Give back what the trials ran on."""
        ...


def submit_task(function: Callable[..., Any], *arguments: Any, use_gpu: bool) -> Any:
    """Run a function as a task of its own, on a GPU if the trials had one."""
    remote = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0, max_retries=2)(function)
    return remote.remote(*arguments)


def tune_trials(
    trainable: Any,
    specs: TrialSpecs,
    search: Search,
    recorder: Recorder,
    *,
    at_once: int,
) -> None:
    """Run Tune until the search has no more trials; nothing that it writes is ever read."""
    sweep = specs.sweep
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
                callbacks=[TuneRecorder(recorder)],
                failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()


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

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self._recorder.result(trial.config["trial"], result)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._recorder.recovers(trial.config["trial"])

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._recorder.when_stepped()
        self._recorder.finish_trials()

    def __getstate__(self) -> dict[str, Any]:
        return {}
