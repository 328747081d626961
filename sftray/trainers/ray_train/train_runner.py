"""The `train` trainer at work for a sweep: Ray Train runs that train one trial after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ray import tune

from sftray.cluster.connect import Cluster
from sftray.config import SweepConfig
from sftray.plan.device_fit import fit_train
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.storage.model_files import BaseConfig
from sftray.trainers.ray_train.train_client import TrainClient
from sftray.trainers.runner import FittedTrainer, TrialSpecs, submit_task, tune_trials

if TYPE_CHECKING:
    from ray import ObjectRef


class TrainRunner:
    """Runs as many trials at once as the cluster has workers for."""

    def __init__(self, cluster: Cluster, sweep: SweepConfig) -> None:
        """Raises ConfigError where not even one trial fits the cluster."""
        self._at_once, self._use_gpu = cluster.concurrency(sweep), cluster.use_gpu(sweep)
        self._memory = cluster.gpu_memory(sweep)
        self.gpus = self._at_once * sweep.trial.num_workers if self._use_gpu else 0

    def fit(self, sweep: SweepConfig, base: BaseConfig) -> FittedTrainer:
        fit = replace(fit_train(sweep, base, self._memory), at_once=self._at_once)
        return FittedTrainer(fit, self._run)

    def _run(self, specs: TrialSpecs, search: Search, recorder: Recorder) -> None:
        sweep = specs.sweep
        resources = {"CPU": sweep.cpus_per_worker, **({"GPU": 1} if self._use_gpu else {})}
        scaling = {
            "num_workers": sweep.trial.num_workers,
            "use_gpu": self._use_gpu,
            "resources_per_worker": resources,
        }
        trainable = tune.with_parameters(
            TrainClient,
            to_spec=specs.of,
            scaling=scaling,
            max_failures=sweep.max_failures,
            hang_seconds=60 * sweep.hang_minutes,
        )
        tune_trials(trainable, specs, search, recorder, at_once=self._at_once)

    def submit(self, function: Callable[..., object], *arguments: object) -> ObjectRef:
        return submit_task(function, *arguments, use_gpu=self._use_gpu)

    def close(self) -> None:
        """Ray Train frees the workers of an ended trial, and the recorder what it leaves."""
