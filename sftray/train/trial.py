"""One trial as Ray Tune sees it: a light driver that starts a Ray Train run and passes on what
its rank 0 reports."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import ray.tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.tune.integration.ray_train import TuneReportCallback

from sftray import storage
from sftray.paths import TrialPaths
from sftray.search.state import Suggestion
from sftray.trial.spec import TrialSpec


def train_trial(
    config: Mapping[str, Any],
    *,
    to_spec: Callable[[Suggestion], TrialSpec],
    scaling: Mapping[str, Any],
    max_failures: int,
    work: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Run the trial {"trial", "point"} on the workers that `scaling` describes.

    Workers of which one dies are started again up to `max_failures` times and go on from the newest
    checkpoint; as often as it takes where they ran out of memory and next time take less. What
    cannot be saved ends as outcome "failed" with the worker's own words. `work` is what a worker
    runs with `TrialSpec.to_json()`, by default `worker.train_worker`.
    """
    # Train polls its workers at this pace: a report waits so long, and so does a finished trial
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    spec = to_spec(Suggestion(config["trial"], config["point"]))
    failures = 0
    while True:
        fitted = _how_it_fits(spec)
        try:
            _fit(spec, scaling, work or _work)
            return
        except TrainingFailedError as error:
            if _how_it_fits(spec) != fitted:
                continue  # it did not fit the memory, and what it takes now is less
            failures += 1
            if failures > max_failures:
                ray.tune.report({"outcome": "failed", "message": _last_words(error)})
                return


def _fit(
    spec: TrialSpec, scaling: Mapping[str, Any], work: Callable[[dict[str, Any]], None]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:  # no checkpoint goes through Ray
        TorchTrainer(
            work,
            train_loop_config=spec.to_json(),
            scaling_config=ScalingConfig(**scaling),
            run_config=RunConfig(
                name=f"{spec.trial}-{uuid.uuid4().hex[:8]}",
                storage_path=scratch,
                callbacks=[TuneReportCallback()],
            ),
        ).fit()


def _how_it_fits(spec: TrialSpec) -> str:
    """What workers of this trial have written after running out of memory."""
    path = TrialPaths(spec.folder).execution
    return storage.read_text(path) if storage.exists(path) else ""


def _work(config: dict[str, Any]) -> None:
    """Import torch and all that only in the worker: a driver starts in a fifth of the time."""
    from sftray.train.worker import train_worker

    train_worker(config)


def _last_words(error: TrainingFailedError) -> str:
    """The innermost exception of a failed run, as one line."""
    worker_failures = getattr(error, "worker_failures", None) or {}
    causes = [*worker_failures.values(), error]
    lines = [line.strip() for line in str(causes[0]).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
