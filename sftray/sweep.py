"""A sweep from its configuration to its winner: start, resume, finish.

Promise: whatever is known to be wrong is said before anything starts; whatever has been reported is
in the journal; running the same sweep again goes on where it was.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import CheckpointConfig

from sftray import bundle, results
from sftray.budget import TrialPlan, fit_batch_sizes, planner
from sftray.cluster import Cluster, connect
from sftray.config import SweepConfig, TrialConfig
from sftray.data.pipeline import build_packs
from sftray.errors import SweepFailedError
from sftray.journal import Journal
from sftray.paths import SweepPaths, is_uri
from sftray.plan import check_plans
from sftray.record import refuse_other_config, write_record
from sftray.recorder import Recorder, TuneRecorder
from sftray.search.state import STOP, Search, Suggestion
from sftray.search.tune import SftrayScheduler, SftraySearcher
from sftray.tracking import Tracking
from sftray.trial.spec import TrialSpec

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Specs:
    """A suggestion as the trial that a worker runs; travels to the trials' drivers."""

    sweep: SweepConfig
    paths: SweepPaths
    packs: str
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
        )


def run_sweep(sweep: SweepConfig, *, local: bool = False, log: Log) -> results.Results:
    """Run a sweep, or go on with it, to its bundle. One trial at a time in this process if `local`.

    Raises ConfigError or DataError before anything starts, SweepFailedError when no trial finished.
    KeyboardInterrupt leaves a folder that the same call resumes.
    """
    sweep = _with_absolute_storage(sweep)
    paths = SweepPaths.of(sweep.storage, sweep.name)
    cluster = connect(log)
    cluster.concurrency(sweep)
    refuse_other_config(sweep, paths)
    packs = build_packs(
        sweep.data,
        sweep.trial.model,
        storage=sweep.storage,
        model_revision=sweep.trial.model_revision,
        trust_remote_code=sweep.trial.trust_remote_code,
        log=log,
    )
    rows = packs.rows("train")
    given, sweep = sweep, fit_batch_sizes(sweep, rows)
    plan = planner(sweep, rows, use_gpu=cluster.use_gpu(sweep))
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
                specs = _Specs(sweep, paths, packs.root, plan)
                run = _run_locally if local else _run_on_cluster
                run(specs, search, recorder, cluster)
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


def _run_on_cluster(specs: _Specs, search: Search, recorder: Recorder, cluster: Cluster) -> None:
    from sftray.train.trial import train_trial

    sweep, use_gpu = specs.sweep, cluster.use_gpu(specs.sweep)
    scaling = {
        "num_workers": sweep.trial.num_workers,
        "use_gpu": use_gpu,
        "resources_per_worker": {"CPU": sweep.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
    }
    with tempfile.TemporaryDirectory(prefix="sftray-tune-") as scratch:  # Tune's own, never read
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    train_trial, to_spec=specs.of, scaling=scaling, max_failures=sweep.max_failures
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


def _run_locally(specs: _Specs, search: Search, recorder: Recorder, cluster: Cluster) -> None:
    """Trials one after another in this process: an exception stops the sweep with its traceback,
    and a debugger works."""
    import torch

    from sftray.train.worker import run_trial

    device = torch.device("cuda" if cluster.use_gpu(specs.sweep) else "cpu")
    waiting = search.unfinished()
    while suggestion := waiting.pop(0) if waiting else search.suggest():
        search.attempt(suggestion.trial)
        report = functools.partial(_report_locally, search, recorder, suggestion.trial)
        with contextlib.suppress(_StoppedError):
            run_trial(specs.of(suggestion), report, device)
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
    return bool(search.unfinished()) or suggested < sweep.total_trials


def _with_absolute_storage(sweep: SweepConfig) -> SweepConfig:
    """Workers run in folders of their own: a relative path would mean another place there."""
    changes: dict[str, Any] = {}
    if not is_uri(sweep.storage):
        changes["storage"] = os.path.abspath(os.path.expanduser(sweep.storage))
    if Path(sweep.trial.model).is_dir():
        changes["trial"] = replace(sweep.trial, model=os.path.abspath(sweep.trial.model))
    return replace(sweep, **changes)


def _no_trial_finished(found: results.Results) -> str:
    reasons = [f"  {trial.trial}: {trial.outcome}: {trial.message}" for trial in found.trials]
    return "\n".join([f"{found.folder}: no trial finished", *reasons])
