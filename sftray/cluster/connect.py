"""The Ray cluster that a sweep runs on: the one found, or one started on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sftray.cluster import ray_private, ray_watch
from sftray.cluster.addresses import no_cluster, standing_clusters, to_join
from sftray.cluster.autoscaler_limits import reachable
from sftray.cluster.gpus import smallest_gpu
from sftray.config import SweepConfig
from sftray.errors import ConfigError, Log

NO_TOKEN = (
    "Ray asks for no token here: whoever reaches its ports can run code on all its machines. "
    "Unset RAY_AUTH_MODE, or start the cluster with RAY_AUTH_MODE=token (docs/security.md)"
)

GPU_SECONDS = 900.0
"""How long a cluster may take to bring its first GPU."""


@dataclass(frozen=True)
class Cluster:
    """What there is to run trials on, or may come: with an autoscaler, all that it may start."""

    cpus: float
    gpus: float

    def concurrency(self, sweep: SweepConfig) -> int:
        """How many trials fit at once. Raises ConfigError where not even one does."""
        workers = sweep.trial.num_workers
        fits = int(self.cpus / (sweep.cpus_per_worker * workers))
        if self.use_gpu(sweep):
            fits = min(fits, int(self.gpus // workers))
        if fits < 1:
            raise ConfigError(
                f"one trial: got a cluster of {self.cpus:g} CPUs and {self.gpus:g} GPUs, must have "
                f"{workers} × {sweep.cpus_per_worker:g} CPUs"
                + (f" and {workers} GPUs" if self.use_gpu(sweep) else "")
                + "; lower trial.num_workers or cpus_per_worker, or join a larger cluster"
            )
        return min(fits, sweep.max_concurrent_trials or fits)

    def gpu_memory(self, sweep: SweepConfig) -> float | None:
        """Bytes of the smallest GPU that trials may get; None where they run on CPUs.

        Asks every node with GPUs, or the first to come where none is there yet. Raises ConfigError
        where none has answered within GPU_SECONDS.
        """
        if not self.use_gpu(sweep):
            return None
        nodes = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("GPU")]
        ask = ray.remote(num_cpus=0, num_gpus=1)(_gpu_here)
        places = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
        asked = [ask.options(scheduling_strategy=place).remote() for place in places or [None]]
        try:
            return float(min(ray.get(asked, timeout=GPU_SECONDS)))
        except ray.exceptions.GetTimeoutError as error:
            raise ConfigError(
                f"use_gpu: got no GPU from the cluster within {GPU_SECONDS:.0f} s, must have one "
                "that is free or comes; see `ray status`"
            ) from error

    def gpus_up(self) -> float:
        """GPUs that are there now."""
        return float(ray.cluster_resources().get("GPU", 0.0))

    def use_gpu(self, sweep: SweepConfig) -> bool:
        return self.gpus > 0 if sweep.use_gpu is None else sweep.use_gpu


def _gpu_here() -> float:
    """Bytes of the GPU that a task was given."""
    size = smallest_gpu()
    if size is None:  # a container without nvidia-smi
        import torch

        size = float(torch.cuda.get_device_properties(0).total_memory)
    return size


def connect(log: Log, *, dashboard: bool) -> Cluster:
    """Join the Ray cluster that RAY_ADDRESS names, or that this user's `ray start` has put up here,
    or start one: with its dashboard, which costs seconds, where that is wanted and installed. Where
    it ends, this process does (`ray_watch`). Raises ConfigError where RAY_ADDRESS names no cluster
    that answers."""
    if not ray.is_initialized():
        os.environ.update({name: os.environ.get(name, value) for name, value in _RAY_SETTINGS})
        for name in _LOUD_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        quiet = {"logging_level": "WARNING", "log_to_driver": False}
        named = os.environ.get("RAY_ADDRESS", "")
        address, owner = to_join(named, standing_clusters(), log)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        if address:
            if address == named:
                _show_token(address)
            else:
                ray_private.use_token()  # as Ray does where it finds the cluster itself
            try:
                ray.init(address=address, **quiet)
            except ConnectionError as error:
                raise no_cluster(address, error) from error
            log(f"joined the Ray cluster at {ray.get_runtime_context().gcs_address} {owner}")
        else:
            # it serves the State API, by which Ray Train frees a stopped trial's GPUs; without it
            # the recorder frees them, some seconds later
            ray.init(
                "local",
                include_dashboard=dashboard and ray_private.dashboard_installed(),
                dashboard_host="127.0.0.1",
                **quiet,
            )
            with contextlib.suppress(OSError):  # Ray leaves its token for all users to read
                (Path.home() / ".ray" / "auth_token").chmod(0o600)
            log("started Ray on this machine")
        if callable(on_sigterm):  # Ray's own would end this process wherever it is
            signal.signal(signal.SIGTERM, on_sigterm)
        # by now Ray has set it, unless it is set otherwise or the cluster it joined has no token
        if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            log(f"warning: {NO_TOKEN}")
        _watch(started=not address)
    total = reachable()
    return Cluster(total.get("CPU", 0.0), total.get("GPU", 0.0))


def _watch(*, started: bool) -> None:
    context = ray.get_runtime_context()
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    raylet = here["NodeManagerAddress"], here["NodeManagerPort"]
    ray_watch.watch(context.gcs_address, raylet, started=started)


def _show_token(address: str) -> None:
    """Show the cluster at `address` this machine's token, if the cluster asks for one; Ray does so
    by itself only for a cluster that it finds. Raises ConfigError where there is no token, or where
    something else than a cluster answers."""
    try:
        ray_private.gcs_client()(address=address)
    except ray.exceptions.RpcError as error:
        raise no_cluster(address, error) from error
    except ray.exceptions.AuthenticationError as error:
        if not ray_private.use_token():
            raise ConfigError(
                f"RAY_ADDRESS: the cluster at {address} asks for a token, and this machine has "
                "none; copy ~/.ray/auth_token of the machine that started it, mode 600, or set "
                "RAY_AUTH_TOKEN"
            ) from error


_LOUD_LOGGERS = (
    ray_private.AUTH_LOGGER,  # token authentication is on: good
    "ray.tune.analysis.experiment_analysis",  # misses Tune's result files, which nobody reads
    "ray.tune.tune",  # after Ctrl-C advises Tuner.restore, which knows nothing of the journal
)

_RAY_SETTINGS = (
    ("RAY_USAGE_STATS_ENABLED", "0"),
    ("RAY_AIR_NEW_OUTPUT", "0"),  # Tune prints nothing; our own lines tell
    ("TUNE_GLOBAL_CHECKPOINT_S", "inf"),  # nor writes all its trials again every ten seconds
    ("TUNE_PRINT_ALL_TRIAL_ERRORS", "0"),  # the journal and our lines have them
    ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),  # nor does it write CSV and TensorBoard files
)


def head_has_cpus() -> bool:
    """Whether the cluster's head may train."""
    heads = (n for n in ray.nodes() if n["Alive"] and "node:__internal_head__" in n["Resources"])
    return any(head["Resources"].get("CPU", 0) > 0 for head in heads)
