"""A sweep from its configuration to its winner: start, resume, finish.

Promise: whatever is known to be wrong is said before anything starts; whatever has been reported is
in the journal; running the same sweep again goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftray import bundle, faults, results
from sftray.bank.support import pick_trainer, without_bank
from sftray.budget import fit_batch_sizes, planner
from sftray.cluster import Cluster, connect
from sftray.config import SweepConfig
from sftray.data.manifest import counts_of
from sftray.data.pipeline import packs_from
from sftray.data.recipe import make_recipe
from sftray.data.tokenizer import model_config, require_safetensors
from sftray.errors import ConfigError, DataError, OutageError, SweepFailedError
from sftray.fit import Fit
from sftray.journal import Journal
from sftray.metrics import load_metric
from sftray.paths import SweepPaths, is_uri
from sftray.plan import check_code, check_evaluation, check_plans
from sftray.record import refuse_other_config, write_record
from sftray.recorder import Recorder
from sftray.runner import LocalRunner, Runner, Specs
from sftray.search.earlier import learn_from
from sftray.search.priors import prior_points
from sftray.search.space import Point
from sftray.search.state import KnownTrial, Search
from sftray.tracking import Tracking

Log = Callable[[str], None]


def run_sweep(sweep: SweepConfig, *, local: bool = False, log: Log) -> results.Results:
    """Run a sweep, or go on with it, to its bundle. One trial at a time in this process if `local`.

    Raises ConfigError or DataError before anything starts, SweepFailedError when no trial finished.
    KeyboardInterrupt, and OutageError for a full disk or storage that is away, leave a folder that
    the same call resumes.
    """
    sweep = _with_absolute_storage(sweep)
    with faults.plainly(sweep.storage):
        return _run(sweep, local=local, log=log)


def _run(sweep: SweepConfig, *, local: bool, log: Log) -> results.Results:
    paths = SweepPaths.of(sweep.storage, sweep.name)
    for warning in check_code(sweep.trial):
        log(f"warning: {warning}")
    base = model_config(sweep.trial.model, sweep.trial.model_revision)
    require_safetensors(sweep.trial.model, sweep.trial.model_revision)
    trainer, why = pick_trainer(sweep, base)
    refuse_other_config(sweep, paths)
    if sweep.metric:
        load_metric(sweep.metric)
    recipe = make_recipe(
        sweep.data,
        sweep.trial.model,
        revision=sweep.trial.model_revision,
        trust_remote_code=sweep.trial.trust_remote_code,
    )
    cluster = connect(log, dashboard=trainer == "train")
    runner = _runner("local" if local else trainer, sweep, cluster, log)
    try:
        packs = packs_from(recipe, storage=sweep.storage, log=log)
        rows = packs.rows("train")
        given, sweep = sweep, fit_batch_sizes(sweep, rows)
        fit = runner.fit(sweep, base)
        if fit is None:
            trainer, why = without_bank(sweep)
            runner.close()
            runner = _runner(trainer, sweep, cluster, log)
            fit = runner.fit(sweep, base)
            assert fit is not None  # `train` has raised
        plan = planner(sweep, rows, execution=fit.execution)
        evaluation = counts_of(packs.manifest)["eval"]
        for warning in [*check_evaluation(evaluation), *check_plans(sweep, plan)]:
            log(f"warning: {warning}")
        record = write_record(given, sweep, paths, packs)
        log(f"trainer: {'in this process' if local else f'{trainer} ({why})'}")
        with Journal(paths.journal, log=log) as journal:
            journal.append("sweep_started", uid=record["uid"])
            earlier = [results.load(folder) for folder in sweep.warm_start]
            known, theirs = learn_from(sweep, packs.root, earlier)
            priors = prior_points(sweep, base)
            first = [*theirs, *priors]
            search = Search(sweep, journal, plan, fit.too_large, first)
            search.take_over(known)
            for line in _begins_with(known, theirs, priors):
                log(line)
            recorder = Recorder(sweep, paths, journal, search, log)
            tracking = Tracking.start(sweep, paths, log)
            try:
                if search.remaining():
                    runner.run(Specs(sweep, paths, packs.root, plan), search, recorder)
                _settle(search, recorder)
                if sweep.confirm_top and search.confirm():
                    log(f"the best points are run again with {sweep.confirm_seeds} new seeds each")
                    other = None if local else sweep.confirm_trainer
                    if other not in (None, trainer):
                        runner.close()
                        runner = _runner(other, sweep, cluster, log)
                        plan = planner(sweep, rows, execution=_fit(runner, sweep, base).execution)
                    runner.run(Specs(sweep, paths, packs.root, plan), search, recorder)
                    _settle(search, recorder)
                journal.append("sweep_ended")
            finally:
                try:
                    recorder.write_leaderboard()
                finally:
                    tracking.finish()
            found = results.load(paths.root)
            if found.leaderboard["best"] is None:
                _report(paths, log)
                raise SweepFailedError(_no_trial_finished(found))
            bundle.collect(sweep, paths, packs, found, log=log, submit=runner.submit)
            _report(paths, log)
    finally:
        runner.close()
    return found


def _runner(trainer: str, sweep: SweepConfig, cluster: Cluster, log: Log) -> Runner:
    """The trainer at work; a bank begins to load its base."""
    if trainer == "local":
        return LocalRunner(cluster, sweep)
    if trainer == "train":
        from sftray.train.run import TrainRunner

        return TrainRunner(cluster, sweep)
    from sftray.bank.banks import Banks

    return Banks(cluster, sweep, log)


def _begins_with(
    known: Sequence[KnownTrial], theirs: Sequence[Point], priors: Sequence[Point]
) -> Iterator[str]:
    """What a search does not begin from nothing with."""
    for one in known:
        shown = results.point_text(one.point)
        yield f"known: {shown} ({one.outcome} in {one.sweep}, not run again)"
    for point in theirs:
        yield f"first: {results.point_text(point)} (among the best of an earlier sweep)"
    for point in priors:
        yield f"first: {results.point_text(point)} (published as good for bases of this size)"


def _settle(search: Search, recorder: Recorder) -> None:
    """After trials have run. Raises DataError where the data was damaged, OutageError where a disk
    was full or storage away, KeyboardInterrupt where trials were cut off."""
    recorder.finish_trials()
    recorder.free_workers()
    if search.damaged:
        raise DataError(f"{search.damaged}. The sweep stopped; mended, the same command goes on")
    if search.outage:
        raise OutageError(search.outage)
    if search.unfinished():
        raise KeyboardInterrupt


def _fit(runner: Runner, sweep: SweepConfig, base: Mapping[str, Any]) -> Fit:
    fit = runner.fit(sweep, base)
    if fit is None:
        raise ConfigError("confirm_trainer: got 'bank', must be 'train': no bank fits the memory")
    return fit


def _report(paths: SweepPaths, log: Log) -> None:
    try:
        from sftray.report import write_report

        log(f"report: {write_report(paths.root)}")
    except ModuleNotFoundError as error:  # a sweep is not lost with its picture
        log(
            f"report.html is not written: {error}; pip install '{error.name}', then "
            f"`sftray report {paths.root}`"
        )


def _with_absolute_storage(sweep: SweepConfig) -> SweepConfig:
    """Workers run in folders of their own: a relative path would mean another place there."""
    changes: dict[str, Any] = {}
    if not is_uri(sweep.storage):
        changes["storage"] = os.path.abspath(os.path.expanduser(sweep.storage))
    if Path(sweep.trial.model).is_dir():
        changes["trial"] = replace(sweep.trial, model=os.path.abspath(sweep.trial.model))
    return replace(sweep, **changes)


def _no_trial_finished(found: results.Results) -> str:
    reasons = [f"  {trial.trial}: {trial.outcome}: {trial.message}" for trial in found.records]
    return "\n".join([f"{found.folder}: no trial finished", *reasons])
