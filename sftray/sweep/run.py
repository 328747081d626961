"""A sweep from its configuration to its winner: start, resume, finish.

Promise: whatever is known to be wrong is said before anything starts; whatever has been reported is
in the journal; running the same sweep again continues where it was.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from sftray import results
from sftray.cluster.connect import connect
from sftray.cluster.node_sight import Sight, ask_nodes
from sftray.cluster.ray_errors import plain
from sftray.config import SweepConfig
from sftray.config.points import Point, point_text
from sftray.data.packs.packs import Packs
from sftray.data.packs.ray_passes import each_on_ray
from sftray.data.pipeline import packs_from
from sftray.data.recipe import Recipe, make_recipe
from sftray.errors import BrokenBaseError, DataError, Log, OutageError, SweepFailedError
from sftray.plan.device_fit import DeviceFit
from sftray.plan.disk import disk_needed, require_space
from sftray.plan.identities import Identities, identities
from sftray.plan.preflight import (
    absolute,
    check_code,
    check_sweep,
    checked_base,
    require_place,
    require_same,
)
from sftray.plan.prior_points import prior_points, published_rate
from sftray.plan.trainer_choice import pick_trainer
from sftray.plan.trial_plan import planner, resolve_batch_sizes
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.search.search_trials import KnownTrial
from sftray.storage import files
from sftray.storage.faults import plainly
from sftray.storage.journal import Journal, held
from sftray.storage.journal.event_types import OUTAGE, EventName, SweepEnded, SweepStarted
from sftray.storage.model_files import BaseConfig
from sftray.storage.paths import SweepPaths
from sftray.sweep.active_trainer import ActiveTrainer, refitted
from sftray.sweep.finished import finished
from sftray.sweep.fresh import delete_sweep, require_whole
from sftray.sweep.spending_meter import Meter
from sftray.sweep.sweep_json import write_record
from sftray.sweep.warm_start import learn_from
from sftray.trainers.runner import FittedTrainer, Runner, TrialSpecs
from sftray.views.tracking.mirror_processes import Tracking
from sftray.winner.collect import collect


def run_sweep(
    sweep: SweepConfig,
    *,
    local: bool = False,
    fresh: bool = False,
    log: Log,
    clock: Callable[[], float] = time.monotonic,
) -> results.Results:
    """Run a sweep, or continue it, to its bundle. One trial at a time in this process if `local`;
    `fresh` deletes the sweep of this name once all else has been checked. `clock` is what its
    budgets are measured by, in seconds.

    Raises ConfigError or DataError before anything starts, SweepFailedError when no trial finished,
    JournalError where another driver runs the sweep or its folder is no longer the same.
    KeyboardInterrupt, and OutageError for a full disk or storage that is away, leave a folder that
    the same call resumes.
    """
    sweep = absolute(sweep)
    with plainly(sweep.storage, plain):
        return _run(sweep, local=local, fresh=fresh, log=log, clock=clock)


def _run(
    sweep: SweepConfig, *, local: bool, fresh: bool, log: Log, clock: Callable[[], float]
) -> results.Results:
    began = clock()
    paths = SweepPaths.of(sweep.storage, sweep.name)
    fresh = fresh or files.exists(paths.deleting)  # by a start that was cut off
    base = _checked_base(sweep, paths, fresh, log)
    choice = pick_trainer(sweep, base)
    recipe = _recipe(sweep)
    now = identities(recipe)
    if not fresh:
        require_same(sweep, lambda: now)
        if found := finished(sweep, paths):
            return _say_finished(found, sweep, paths, log)
    given, sweep = sweep, _at_one_commit(sweep, recipe)
    cluster = connect(log, dashboard=choice[0] == "train")
    trainer = ActiveTrainer(choice, sweep, base, cluster, local, log)
    usable = trainer.gpus()
    sight = Sight.of(sweep.storage, recipe.files, sweep.trial.model)
    try:
        packs = _packs(recipe, sight, log)
        rows = packs.rows("train")
        sweep = resolve_batch_sizes(sweep, rows)
        trials = trainer.fit(sweep)
        fit = trials.fit
        plan = planner(sweep, rows, execution=fit.execution)
        specs = TrialSpecs(sweep, paths, packs.root, plan, sight)
        _check(specs, packs, base, fit, trainer.runner.gpus, log)
        if fresh:
            delete_sweep(paths, log)
        log(f"trainer: {trainer}")
        with Journal(paths.journal, log=log) as journal, ExitStack() as at_the_end:
            require_same(given, lambda: now)  # nobody else writes it any more
            require_whole(paths, begun=any(event["trial"] for event in journal.events()))
            uid = write_record(given, sweep, paths, packs, now)["uid"]
            meter = Meter(sweep, journal, trainer.gpus, log, clock, (began, usable))
            search = _begin(specs, base, journal, fit, meter, (now, uid), log)
            entropy = packs.target_entropy
            recorder = Recorder(sweep, paths, journal, log, meter.look, entropy)
            at_the_end.callback(Tracking.start(sweep, paths, log).finish)
            at_the_end.callback(meter.record)
            try:
                recorder.finish_trials()  # those that the driver before did not get to
                if search.searching() and not search.stopped:
                    trainer.run(trials, specs, rows, search, recorder)
                    _settle(search, recorder, meter)
                if _confirms(sweep, search):
                    _run_again(specs, rows, search, recorder, trainer, trials)
                    _settle(search, recorder, meter)
                _end(sweep, journal, search, meter, log)
            finally:
                journal.require_same()
                recorder.write_leaderboard()
            found = _finish(sweep, paths, packs, trainer.runner, log)
            journal.require_same()
            return found
    finally:
        trainer.runner.close()
        sight.remove()


def _say_finished(
    found: results.Results, sweep: SweepConfig, paths: SweepPaths, log: Log
) -> results.Results:
    """Have W&B get what the start before did not come to."""
    log("the sweep has ended: --num-trials N runs more trials, --fresh deletes it and begins again")
    Tracking.start(sweep, paths, log).finish()
    return found


def _recipe(sweep: SweepConfig) -> Recipe:
    trial = sweep.trial
    return make_recipe(
        sweep.data,
        trial.model,
        revision=trial.model_revision,
        trust_remote_code=trial.trust_remote_code,
    )


def _packs(recipe: Recipe, sight: Sight, log: Log) -> Packs:
    """The packs, after all nodes have been asked what they see."""
    sight.write()
    ask_nodes(sight)
    return packs_from(
        recipe, storage=sight.storage, log=log, each=partial(each_on_ray, sight=sight)
    )


def _checked_base(sweep: SweepConfig, paths: SweepPaths, fresh: bool, log: Log) -> BaseConfig:
    """The base's config.json, after what can be checked without the data."""
    for warning in check_code(sweep.trial):
        log(f"warning: {warning}")
    require_place(sweep, fresh=fresh)
    if files.exists(paths.lock):
        with held(paths.journal):
            pass  # nobody runs it
    base = checked_base(sweep)
    require_space(sweep, disk_needed(sweep, base, {}, at_once=1), paths.root)
    return base


def _at_one_commit(sweep: SweepConfig, recipe: Recipe) -> SweepConfig:
    """All workers load the base of the commit that its name stands for now."""
    if Path(sweep.trial.model).expanduser().is_dir():
        return sweep
    revision = recipe.model_revision or sweep.trial.model_revision
    return replace(sweep, trial=replace(sweep.trial, model_revision=revision))


def _check(
    specs: TrialSpecs, packs: Packs, base: BaseConfig, fit: DeviceFit, gpus: float, log: Log
) -> None:
    """Warn of what is doubtful. Raises ConfigError where a point cannot run, or the disk is too
    small."""
    sweep = specs.sweep
    for warning in check_sweep(sweep, packs.manifest, base, specs.plan, gpus=gpus):
        log(f"warning: {warning}")
    needed = disk_needed(sweep, base, packs.manifest["splits"], at_once=fit.at_once)
    require_space(sweep, needed, specs.paths.root)


def _begin(
    specs: TrialSpecs,
    base: BaseConfig,
    journal: Journal,
    fit: DeviceFit,
    meter: Meter,
    ours: tuple[Identities, str],
    log: Log,
) -> Search:
    """The search as its journal has it. ours: what the sweep's names stand for, and its uid."""
    sweep = specs.sweep
    earlier = [results.load(folder) for folder in sweep.warm_start]
    known, theirs = learn_from(sweep, ours[0], earlier, log)
    priors = prior_points(sweep, base)
    usual = published_rate(base, sweep.trial)
    start = SweepStarted(
        event=EventName.SWEEP_STARTED, trial=None, uid=ours[1], first=[*theirs, *priors]
    )
    first = cast(SweepStarted, journal.append(start)).get("first", [])
    search = Search(sweep, journal, specs.plan, fit.too_large, first, meter.look, usual)
    search.take_over(known)
    for line in _begins_with(known, theirs, priors):
        log(line)
    return search


def _begins_with(
    known: Sequence[KnownTrial], theirs: Sequence[Point], priors: Sequence[Point]
) -> Iterator[str]:
    """What a search does not begin from nothing with."""
    for one in known:
        shown = point_text(one.point)
        yield f"known: {shown} ({one.outcome} in {one.sweep}, not run again)"
    for point in theirs:
        yield f"first: {point_text(point)} (among the best of an earlier sweep)"
    for point in priors:
        yield f"first: {point_text(point)} (published as good for bases of this size)"


def _settle(search: Search, recorder: Recorder, meter: Meter) -> None:
    """After trials have run, not before: what a start finds unfinished has yet to run. Raises
    DataError where the data was damaged, OutageError where a disk was full or storage away,
    KeyboardInterrupt where trials were cut off otherwise than by the sweep's budget."""
    recorder.finish_trials()
    if search.damaged:
        raise DataError(
            f"{search.damaged}. The sweep stopped", "mend it; the same command continues"
        )
    if search.halted:
        what, message = search.halted
        raise (OutageError if what == OUTAGE else BrokenBaseError)(message)
    if search.broken:
        raise BrokenBaseError(
            f"{search.broken}. The sweep stopped",
            "look at `sftray inspect` and the base's answers, or take another base; "
            "on_broken_base='warn' continues the same sweep",
        )
    if search.unfinished() and not meter.used_up:
        raise KeyboardInterrupt


def _confirms(sweep: SweepConfig, search: Search) -> bool:
    """Whether points are to be run again now. They are chosen when the search has come to its end,
    and wait where its budget is used up."""
    if not sweep.confirm_top or (search.stopped and search.searching()):
        return False
    return search.confirm() and not search.stopped


def _run_again(
    specs: TrialSpecs,
    rows: int,
    search: Search,
    recorder: Recorder,
    trainer: ActiveTrainer,
    trials: FittedTrainer,
) -> None:
    """Run the best points with other seeds, by `trials` or by the trainer that confirms. rows: of
    the packs."""
    sweep = specs.sweep
    recorder.log(f"the best points are run again with {sweep.confirm_seeds} new seeds each")
    if other := trainer.change_to(sweep.confirm_trainer, sweep):
        trials = other
        specs = refitted(specs, rows, other)
    trainer.run(trials, specs, rows, search, recorder)


def _end(sweep: SweepConfig, journal: Journal, search: Search, meter: Meter, log: Log) -> None:
    """Journal that the sweep has ended: all of it, or as much as its budget allowed."""
    meter.record()
    left = search.remaining()
    if search.enough:
        log(search.enough)
    if not (meter.used_up and left):
        journal.append(SweepEnded(event=EventName.SWEEP_ENDED, trial=None))
        return
    meter.end()
    budget, limit = meter.used_up, getattr(sweep, meter.used_up)
    begun = {one.trial: search.last_step(one.trial) for one in search.unfinished()}
    cut = [f"{trial} at step {step}" for trial, step in begun.items() if step is not None]
    where = f" ({', '.join(cut)})" if cut else ""
    log(
        f"{budget}={limit:g} is used up ({meter.spent}): raise it and run the same command to "
        f"continue. Trials cut off: {len(cut)}{where}; not begun: {left - len(cut)}"
    )


def _finish(
    sweep: SweepConfig, paths: SweepPaths, packs: Packs, runner: Runner, log: Log
) -> results.Results:
    """Write the winner's folder and the report. Raises SweepFailedError where no trial finished."""
    found = results.load(paths.root)
    if found.leaderboard["best"] is None:
        _report(paths, log)
        raise SweepFailedError(_no_trial_finished(found))
    collect(sweep, paths, packs, found, log=log, submit=runner.submit)
    _report(paths, log)
    return found


def _report(paths: SweepPaths, log: Log) -> None:
    try:
        from sftray.views.report.report import write_report

        log(f"report: {write_report(paths.root)}")
    except ModuleNotFoundError as error:  # a sweep is not lost with its picture
        log(
            f"report.html is not written: {error}; pip install '{error.name}', then "
            f"`sftray report {shlex.quote(paths.root)}`"
        )


def _no_trial_finished(found: results.Results) -> str:
    if budget := found.leaderboard.get("budget_spent"):
        return f"{found.folder}: {budget} was used up before a trial was evaluated; raise it"
    reasons = [f"  {trial.trial}: {trial.outcome}: {trial.message}" for trial in found.records]
    return "\n".join([f"{found.folder}: no trial finished", *reasons])
