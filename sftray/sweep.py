"""A sweep from its configuration to its winner: start, resume, finish.

Promise: whatever is known to be wrong is said before anything starts; whatever has been reported is
in the journal; running the same sweep again goes on where it was.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune
from ray.tune import CheckpointConfig

from sftray import bundle, results, storage
from sftray.budget import (
    TrialPlan,
    default_micro_batch_size,
    fit_batch_sizes,
    plan_trial,
    rung_ladder,
)
from sftray.config import SweepConfig, TrialConfig, differing_fields, to_json
from sftray.data.packs import Packs
from sftray.data.pipeline import build_packs
from sftray.errors import ConfigError, SweepFailedError
from sftray.journal import Journal
from sftray.paths import SweepPaths, is_uri
from sftray.plan import check_plans
from sftray.recorder import Recorder, TuneRecorder
from sftray.search.state import STOP, Search, Suggestion
from sftray.search.tune import SftrayScheduler, SftraySearcher
from sftray.tracking import Tracking
from sftray.train.spec import TrialSpec

Log = Callable[[str], None]

RECORDED_PACKAGES = (
    "sftray", "ray", "torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "optuna",
    "pyarrow", "tokenizers", "flash-attn",
)  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """What there is to run trials on."""

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

    def use_gpu(self, sweep: SweepConfig) -> bool:
        return self.gpus > 0 if sweep.use_gpu is None else sweep.use_gpu


def run_sweep(sweep: SweepConfig, *, local: bool = False, log: Log) -> results.Results:
    """Run a sweep, or go on with it, to its bundle. One trial at a time in this process if `local`.

    Raises ConfigError or DataError before anything starts, SweepFailedError when no trial finished.
    KeyboardInterrupt leaves a folder that the same call resumes.
    """
    sweep = _with_absolute_storage(sweep)
    paths = SweepPaths.of(sweep.storage, sweep.name)
    cluster = connect(log)
    cluster.concurrency(sweep)
    _refuse_other_config(sweep, paths)
    packs = build_packs(
        sweep.data,
        sweep.trial.model,
        storage=sweep.storage,
        model_revision=sweep.trial.model_revision,
        trust_remote_code=sweep.trial.trust_remote_code,
        log=log,
    )
    given, sweep = sweep, fit_batch_sizes(sweep, packs.rows("train"))
    plan = _planner(sweep, packs, cluster)
    for warning in check_plans(sweep, plan):
        log(f"warning: {warning}")
    record = write_record(given, sweep, paths, packs)
    with Journal(paths.journal) as journal:
        journal.append("sweep_started", uid=record["uid"])
        search = Search(sweep, journal, plan)
        recorder = Recorder(sweep, paths, journal, search, log)
        tracking = Tracking.start(sweep, paths, log)
        try:
            if _anything_to_do(sweep, search, journal):
                run = _run_locally if local else _run_on_cluster
                run(sweep, paths, packs, plan, search, recorder, cluster)
            recorder.finish_trials()
            recorder.reap(after_seconds=0)  # the winner is checked on the workers that are now free
            if search.unfinished():
                raise KeyboardInterrupt
            journal.append("sweep_ended")
        finally:
            recorder.write_leaderboard()
            tracking.finish()
        found = results.load(paths.root)
        if found.leaderboard["best"] is None:
            raise SweepFailedError(_no_trial_finished(found))
        bundle.collect(sweep, paths, packs, found, log=log, use_gpu=cluster.use_gpu(sweep))
    return found


def connect(log: Log) -> Cluster:
    """Join the Ray cluster that RAY_ADDRESS or `ray start` names, or start one on this machine."""
    if not ray.is_initialized():
        os.environ.update({name: os.environ.get(name, value) for name, value in _RAY_SETTINGS})
        for name in _LOUD_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        quiet = {"logging_level": "WARNING", "log_to_driver": False}
        if "RAY_ADDRESS" in os.environ or _standing_cluster():
            ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), **quiet)
            log(f"joined the Ray cluster at {ray.get_runtime_context().gcs_address}")
        else:
            # the dashboard serves the State API, by which Ray Train frees a stopped trial's GPUs;
            # without it (ray without [default]) the recorder frees them, some seconds later
            ray.init("local", include_dashboard=dashboard_installed(), **quiet)
            log("started Ray on this machine")
    total = ray.cluster_resources()
    return Cluster(total.get("CPU", 0.0), total.get("GPU", 0.0))


_LOUD_LOGGERS = (
    "ray._private.authentication.authentication_token_setup",  # token authentication is on: good
    "ray.tune.analysis.experiment_analysis",  # misses Tune's result files, which nobody reads
)

_RAY_SETTINGS = (
    ("RAY_USAGE_STATS_ENABLED", "0"),
    ("RAY_AIR_NEW_OUTPUT", "0"),  # Tune prints nothing; our own lines tell
    ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),  # nor does it write CSV and TensorBoard files
)


def dashboard_installed() -> bool:
    """Whether Ray came with its `default` extra."""
    try:
        import ray.dashboard.optional_deps  # noqa: F401
    except ImportError:
        return False
    return True


def _standing_cluster() -> bool:
    """Whether `ray start` has put up a cluster here.

    A cluster that lives inside another Python process (`ray.init`) would die with it under us, so
    it is not joined.
    """
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "gcs_server":
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                if parent is None or parent.pid == 1 or "start" in parent.cmdline():
                    return True
    return False


def write_record(
    given: SweepConfig, sweep: SweepConfig, paths: SweepPaths, packs: Packs
) -> dict[str, Any]:
    """sweep.json: written once, before the first trial; the existing one is returned unchanged."""
    if storage.exists(paths.sweep):
        existing: dict[str, Any] = json.loads(storage.read_text(paths.sweep))
        return existing
    record = {
        "uid": os.urandom(4).hex(),
        "config": to_json(given),
        "search_space": to_json(sweep)["search_space"],
        "packs": packs.root,
        "data": {split: _counts(packs.manifest["splits"][split]) for split in ("train", "eval")},
        "versions": _versions(),
        "python": platform.python_version(),
        "git_revision": _git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    storage.write_text(paths.sweep, json.dumps(record, indent=1))
    return record


def _planner(
    sweep: SweepConfig, packs: Packs, cluster: Cluster
) -> Callable[[TrialConfig], TrialPlan]:
    rows = packs.rows("train")
    return functools.partial(
        plan_trial,
        rows_per_epoch=rows,
        ladder=rung_ladder(sweep, rows),
        evals_per_trial=sweep.evals_per_trial,
        micro_batch_size=default_micro_batch_size(
            sweep.data.max_length, use_gpu=cluster.use_gpu(sweep)
        ),
    )


def _spec(
    sweep: SweepConfig,
    paths: SweepPaths,
    packs_root: str,
    plan: Callable[[TrialConfig], TrialPlan],
    suggestion: Suggestion,
) -> TrialSpec:
    trial = sweep.trial.at(suggestion.point)
    return TrialSpec(
        trial=suggestion.trial,
        config=trial,
        plan=plan(trial),
        packs=packs_root,
        folder=paths.trial(suggestion.trial).root,
        leaderboard=None if "base_precision" in sweep.search_space else paths.leaderboard,
        num_samples_generated=sweep.num_samples_generated,
    )


def _run_on_cluster(
    sweep: SweepConfig,
    paths: SweepPaths,
    packs: Packs,
    plan: Callable[[TrialConfig], TrialPlan],
    search: Search,
    recorder: Recorder,
    cluster: Cluster,
) -> None:
    from sftray.train.trial import train_trial

    scaling = {
        "num_workers": sweep.trial.num_workers,
        "use_gpu": cluster.use_gpu(sweep),
        "resources_per_worker": {
            "CPU": sweep.cpus_per_worker,
            **({"GPU": 1} if cluster.use_gpu(sweep) else {}),
        },
    }
    to_spec = functools.partial(_spec, sweep, paths, packs.root, plan)
    with tempfile.TemporaryDirectory(prefix="sftray-tune-") as scratch:  # Tune's own, never read
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    train_trial, to_spec=to_spec, scaling=scaling, max_failures=sweep.max_failures
                ),
                {"node:__internal_head__": 0.001},  # a driver holds no CPU that a worker could have
            ),
            tune_config=tune.TuneConfig(
                search_alg=SftraySearcher(search),
                scheduler=SftrayScheduler(search),
                num_samples=-1,
                max_concurrent_trials=cluster.concurrency(sweep),
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


def _run_locally(
    sweep: SweepConfig,
    paths: SweepPaths,
    packs: Packs,
    plan: Callable[[TrialConfig], TrialPlan],
    search: Search,
    recorder: Recorder,
    cluster: Cluster,
) -> None:
    """Trials one after another in this process: an exception stops the sweep with its traceback,
    and a debugger works."""
    import torch

    from sftray.train.worker import run_trial

    device = torch.device("cuda" if cluster.use_gpu(sweep) else "cpu")
    waiting = search.unfinished()
    while suggestion := waiting.pop(0) if waiting else search.suggest():
        search.attempt(suggestion.trial)
        report = functools.partial(_report_locally, search, recorder, suggestion.trial)
        with contextlib.suppress(_StoppedError):
            run_trial(_spec(sweep, paths, packs.root, plan, suggestion), report, device)
        if search.outcome_of(suggestion.trial) is None:
            search.returned(suggestion.trial)
        recorder.finish_trials()


class _StoppedError(Exception):
    """Ends a local trial that the search has stopped."""


def _report_locally(
    search: Search, recorder: Recorder, trial: str, metrics: Mapping[str, Any]
) -> None:
    values = dict(metrics)
    outcome, message = values.pop("outcome", None), values.pop("message", "")
    decision = search.record(trial, values, outcome, message)
    recorder.result(trial, metrics)
    if decision == STOP and outcome is None:
        raise _StoppedError


def _anything_to_do(sweep: SweepConfig, search: Search, journal: Journal) -> bool:
    suggested = sum(event["event"] == "trial_suggested" for event in journal.events())
    return bool(search.unfinished()) or suggested < (len(sweep.points) or sweep.num_trials)


def _with_absolute_storage(sweep: SweepConfig) -> SweepConfig:
    """Workers run in folders of their own: a relative path would mean another place there."""
    changes: dict[str, Any] = {}
    if not is_uri(sweep.storage):
        changes["storage"] = os.path.abspath(os.path.expanduser(sweep.storage))
    if Path(sweep.trial.model).is_dir():
        changes["trial"] = replace(sweep.trial, model=os.path.abspath(sweep.trial.model))
    return replace(sweep, **changes)


def _refuse_other_config(sweep: SweepConfig, paths: SweepPaths) -> None:
    if not storage.exists(paths.sweep):
        return
    old = json.loads(storage.read_text(paths.sweep))["config"]
    new = json.loads(json.dumps(to_json(sweep)))
    differing = [name for name in differing_fields(old, new) if name not in _MAY_CHANGE]
    if differing:
        raise ConfigError(
            f"{paths.root}: this sweep exists with another configuration; it differs in "
            f"{', '.join(differing)}. Use --name for a new sweep, or --fresh to delete this one"
        )


_MAY_CHANGE = (
    "num_trials",
    "max_concurrent_trials",
    "wandb",
    "wandb_project",
    "wandb_samples",
    "storage",
)
"""Fields that a resumed sweep may change without making its trials incomparable."""


def _no_trial_finished(found: results.Results) -> str:
    reasons = [f"  {trial.trial}: {trial.outcome}: {trial.message}" for trial in found.trials]
    return "\n".join([f"{found.folder}: no trial finished", *reasons])


def _counts(split: Mapping[str, Any]) -> dict[str, Any]:
    return {name: split[name] for name in ("conversations", "rows", "tokens", "supervised_tokens")}


def _versions() -> dict[str, str]:
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _git_revision() -> str | None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
