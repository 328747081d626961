"""A trial of the `train` trainer as Ray Tune sees it: a client of workers that train one trial
after another.

Promise: a Ray Train run is started once and keeps its workers, with all that they have imported and
the base that they have loaded, for as long as there are trials (`reuse_actors`): the next trial
begins in seconds. Tune asks for the next step only when the search lets the trial continue, and the
client says so to the workers, who wait at a rung.
"""

from __future__ import annotations

import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune import Trainable

from sftray.trainers.ray_train.mailbox import Mailbox
from sftray.trainers.report_channel import next_report, tune_step
from sftray.trainers.runner import ToSpec, TuneConfig
from sftray.trial.trial_report import Report

if TYPE_CHECKING:
    from ray.actor import ActorHandle

MAILBOX_THREADS = 256
"""Each question of a worker or of the client is one, and waits for seconds."""
END_SECONDS = 30.0
"""How long workers may take to end when there are no more trials."""


class WorkerConfig(TypedDict):
    """What Ray Train hands to every worker."""

    mailbox: ActorHandle


class TrainClient(Trainable):  # type: ignore[misc]  # Ray is untyped
    """The trial of a Tune config, on workers of its own."""

    _last: Report
    """Its newest report."""

    def setup(
        self,
        config: TuneConfig,
        *,
        to_spec: ToSpec,
        scaling: Mapping[str, object],
        max_failures: int,
        hang_seconds: float,
        work: Callable[[WorkerConfig], None] | None = None,
    ) -> None:
        """`scaling` describes the workers. One that dies is started again, with all others, and
        continues its trial up to `max_failures` times; as often as it takes where it ran out of
        memory and next time takes less, or where its machine was taken back. Workers that are
        silent for `hang_seconds` are taken for dead. `work` is what a worker runs, by default
        `worker.work_for`."""
        self._to_spec = to_spec
        remote = ray.remote(Mailbox).options(num_cpus=0, max_concurrency=MAILBOX_THREADS)
        self._mailbox = remote.remote(max_failures, hang_seconds)
        arguments = (self._mailbox, dict(scaling), work or _work)
        self._run = threading.Thread(target=_fit, args=arguments, daemon=True)
        self._run.start()
        self._enter(config)

    def step(self) -> Mapping[str, object]:
        following = partial(next_report, self._mailbox, self._trial, self._last)
        self._last, values = tune_step(self._last, following)
        return values

    def reset_config(self, new_config: TuneConfig) -> bool:
        self._mailbox.drop.remote(self._trial)
        self._enter(new_config)
        return True

    def cleanup(self) -> None:
        self._mailbox.close.remote()
        self._run.join(timeout=END_SECONDS)

    def _enter(self, config: TuneConfig) -> None:
        spec = self._to_spec(config)
        self._trial, self._last = spec.trial, Report()
        ray.get(self._mailbox.send.remote(spec))


def _fit(
    mailbox: ActorHandle, scaling: Mapping[str, object], work: Callable[[WorkerConfig], None]
) -> None:
    """The Ray Train run, until its workers hear that there are no more trials."""
    # Train polls its workers at this pace, and sees so late that they have ended
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    try:
        with tempfile.TemporaryDirectory() as scratch:  # no checkpoint goes through Ray
            TorchTrainer(
                work,
                train_loop_config={"mailbox": mailbox},
                scaling_config=ScalingConfig(**scaling),
                run_config=RunConfig(
                    name=f"sftray-{uuid.uuid4().hex[:8]}",
                    storage_path=scratch,
                    failure_config=FailureConfig(max_failures=-1),  # the mailbox counts by trial
                ),
            ).fit()
    except Exception as error:  # noqa: BLE001 – whatever it is, the client has to hear of it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        mailbox.broken.remote(lines[-1] if lines else type(error).__name__)


def _work(config: WorkerConfig) -> None:
    """Import torch and all that only in the worker: a client starts in a fifth of the time."""
    from sftray.trainers.ray_train.worker import work_for

    work_for(config["mailbox"])
