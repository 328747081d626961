"""What a new sweep learns from earlier ones.

Promise: a trial is taken over only where this sweep would have run exactly it: the same packs and
base, by their content, the same seed, and every field that changes what is learnt. Of other sweeps
only the order of their points is taken, because their losses are of something else, and a line
says of what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sftray.config import SweepConfig, TrialConfig
from sftray.config.points import Point, in_space, setting_of
from sftray.config.shares import at_shares
from sftray.errors import Log
from sftray.plan.identities import Identities, changes
from sftray.results import Results
from sftray.results.records import TrialRecord, as_reported
from sftray.search.search_trials import KnownTrial
from sftray.storage.journal.event_types import Outcome
from sftray.storage.paths import SweepPaths

TOP = 3
"""Points of a sweep on other data or another base to begin with."""


def learn_from(
    sweep: SweepConfig, now: Identities, earlier: Sequence[Results], log: Log
) -> tuple[list[KnownTrial], list[Point]]:
    """The trials of earlier sweeps that need not be run again, and points to begin with.

    now: what this sweep's data and base are, of which each earlier one has a record.
    """
    known: list[KnownTrial] = []
    first: list[Point] = []
    for found in earlier:
        if other := changes(found.record.get("identities", {}), now):
            log(f"warm_start: {found.folder} differs ({other}): only its points count")
            first += _best_points(sweep, found)
            continue
        taken = [one for trial in found.records if (one := _taken(sweep, found, trial)) is not None]
        known += [one for one in taken if one.point not in [other.point for other in known]]
        if not taken:
            first += _best_points(sweep, found)
    return known, first


def _taken(sweep: SweepConfig, found: Results, trial: TrialRecord) -> KnownTrial | None:
    """A trial of another sweep as one of this; None where this would not have run it."""
    if trial.outcome not in (Outcome.COMPLETED, Outcome.DIVERGED):
        return None
    theirs = found.config.trial.at(trial.point)
    point = {name: setting_of(found.config, theirs, name) for name in sweep.search_space}
    if not in_space(sweep.search_space, point):
        return None
    ours = sweep.trial.at(point)
    if _learned_from(sweep, ours) != _learned_from(found.config, theirs):
        return None
    results = [as_reported(metrics) for metrics in trial.results]
    folder = trial.folder or SweepPaths(found.folder).trial(trial.trial).root
    return KnownTrial(point, results, trial.outcome, found.folder, folder)


def _learned_from(sweep: SweepConfig, config: TrialConfig) -> tuple[TrialConfig, list[float]]:
    """A configuration without what says how a trial is run, not what it learns, and its sources'
    shares."""
    drawn = at_shares(sweep.data.mixture, config.mixture)
    plain = replace(
        config,
        model="the same",  # its identity is
        model_revision=None,
        num_workers=1,
        micro_batch_size=None,
        activation_checkpointing=None,
        attention=None,
        shard_base=False,
        mixture={},
    )
    return plain, [round(one.share, 9) for one in drawn]


def _best_points(sweep: SweepConfig, found: Results) -> list[Point]:
    """The best points of a sweep whose losses say nothing here, as far as they lie in the space."""
    baseline = found.config.trial
    ended = sorted(
        (best["eval_loss"], trial.trial, trial.point)
        for trial in found.records
        if trial.confirms is None and (best := trial.best) is not None
    )
    points = [
        {name: setting_of(found.config, baseline.at(point), name) for name in sweep.search_space}
        for _, _, point in ended
    ]
    return [point for point in points if in_space(sweep.search_space, point)][:TOP]
