"""A trial of the `train` trainer as Ray Tune sees it: a client of workers that train one trial
after another.

Promise: a Ray Train run is started once and keeps its workers, with all that they have imported and
the base that they have loaded, for as long as there are trials (`reuse_actors`): the next trial
begins in seconds. Tune asks for the next step only when the search lets the trial go on, and that
is what the workers wait for at a rung.
"""

from __future__ import annotations

import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune import Trainable

from sftray.search.search_trials import Suggestion
from sftray.trainers.ray_train.mailbox import Mailbox
from sftray.trial.trial_spec import TrialSpec

MAILBOX_THREADS = 256
"""Each question of a worker or of the client is one, and waits for seconds."""
END_SECONDS = 30.0
"""How long workers may take to end when there are no more trials."""


class TrainClient(Trainable):  # type: ignore[misc]  # Ray is untyped
    """The trial {"trial", "point"} of a Tune config, on workers of its own."""

    _trial: str
    _last: dict[str, Any]
    """Its newest report."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        to_spec: Callable[[Suggestion], TrialSpec],
        scaling: Mapping[str, Any],
        max_failures: int,
        hang_seconds: float,
        work: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """`scaling` describes the workers. One that dies is started again, with all others, and
        goes on with its trial up to `max_failures` times; as often as it takes where it ran out of
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

    def step(self) -> dict[str, Any]:
        if "outcome" in self._last:  # told before; now Tune may end the trial
            return {**self._last, "done": True}
        metrics = None
        while metrics is None:
            metrics = ray.get(self._mailbox.next_report.remote(self._trial))
        self._last = metrics
        return dict(metrics)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._mailbox.drop.remote(self._trial)
        self._enter(new_config)
        return True

    def cleanup(self) -> None:
        self._mailbox.close.remote()
        self._run.join(timeout=END_SECONDS)

    def _enter(self, config: Mapping[str, Any]) -> None:
        spec = self._to_spec(Suggestion(config["trial"], config["point"]))
        self._trial, self._last = spec.trial, {}
        ray.get(self._mailbox.send.remote(spec.to_json()))


def _fit(mailbox: Any, scaling: Mapping[str, Any], work: Callable[[dict[str, Any]], None]) -> None:
    """The Ray Train run, until its workers are told that there are no more trials."""
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


def _work(config: dict[str, Any]) -> None:
    """Import torch and all that only in the worker: a client starts in a fifth of the time."""
    from sftray.trainers.ray_train.worker import work_for

    work_for(config["mailbox"])
