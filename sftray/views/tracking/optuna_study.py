"""Sweeps as studies in an SQLite file that Optuna and Optuna Dashboard open.

Promise: every trial of the journal is there, repetitions too, with its values as a TrialConfig has
them; the file is there whole or not at all. Price: 10 ms a trial; optuna and SQLAlchemy.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from sftray.config import Space, choice
from sftray.config.points import setting_of
from sftray.config.spaces import RandInt, Uniform, Value, label
from sftray.errors import SftrayError
from sftray.results import Results
from sftray.results.leaderboard import RankedTrial
from sftray.results.leaderboard_text import recommended
from sftray.results.records import TrialRecord
from sftray.storage.journal.event_types import Outcome

_STATES: Mapping[str | None, TrialState] = {
    None: TrialState.RUNNING,
    Outcome.COMPLETED: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
}
"""By outcome; of all others FAIL."""


def write_studies(sweeps: Sequence[Results], file: str) -> list[str]:
    """Write the sweeps as studies into a new SQLite file; returns their names: the sweep's, or its
    folder where several have one name. Raises SftrayError where the file cannot be made."""
    target = Path(file).absolute()
    if target.exists() or not target.parent.is_dir():
        got = "a file that exists" if target.exists() else "no folder there"
        raise SftrayError(f"--optuna {file}: got {got}, must be a new file in a folder")
    names = [sweep.config.name for sweep in sweeps]
    if max(Counter(names).values()) > 1:
        names = [sweep.folder for sweep in sweeps]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        partial = Path(scratch, "studies.db")
        storage = optuna.storages.RDBStorage(f"sqlite:///{partial}")
        for name, sweep in zip(names, sweeps, strict=True):
            _add_study(storage, name, sweep)
        storage.remove_session()
        storage.engine.dispose()
        beside = target.with_name(f".{target.name}.partial")
        shutil.copyfile(partial, beside)
        os.replace(beside, target)
    return names


def _add_study(storage: optuna.storages.RDBStorage, name: str, sweep: Results) -> None:
    config = sweep.config
    by_metric = config.objective == "metric"
    higher = by_metric and config.metric_is_better == "higher"
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize" if higher else "minimize"
    )
    study.set_user_attr("objective", config.metric if by_metric else "eval_loss")
    study.set_user_attr("model", config.trial.model)
    if sweep.leaderboard["best"] is not None:
        study.set_user_attr("recommended", recommended(sweep.leaderboard))
    spaces = {axis: config.search_space.get(axis) or _tried(sweep, axis) for axis in sweep.axes}
    drawn = {axis: _distribution(space) for axis, space in spaces.items()}
    rows = {row["trial"]: row for row in sweep.leaderboard["trials"]}
    for record in sweep.records:
        study.add_trial(_frozen(sweep, record, rows[record.trial], drawn))


def _tried(sweep: Results, axis: str) -> Space:
    """What points that were given, and not drawn, have on an axis."""
    values = [setting_of(sweep.config, one, axis) for one in sweep.trial_configs.values()]
    return choice([*{label(value): value for value in values}.values()])


def _distribution(space: Space) -> BaseDistribution:
    """Of a choice its values, not their places in order that the search draws."""
    if isinstance(space, Uniform):
        return FloatDistribution(space.low, space.high, log=space.log)
    if isinstance(space, RandInt):
        return IntDistribution(space.low, space.high)
    return CategoricalDistribution([label(value) for value in space.values])


def _frozen(
    sweep: Results, record: TrialRecord, row: RankedTrial, drawn: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    config = sweep.trial_configs[record.trial]
    by_metric = sweep.config.objective == "metric"
    value = record.metric if by_metric else row["eval_loss"]
    value = None if value is None or not math.isfinite(value) else value
    state: TrialState = _STATES.get(record.outcome, TrialState.FAIL)
    if state == TrialState.COMPLETE and value is None:
        state = TrialState.FAIL
    known = {
        "trial": record.trial,
        "repetition_of": record.confirms,
        "seed": config.seed,
        "outcome": record.outcome,
        "message": record.message or None,
        "verdict": row["verdict"],
        "eval_loss": row["eval_loss"],
        "step": row["step"],
        "metric": record.metric,
        "tokens": record.last["tokens"],
        "gpu_seconds": record.gpu_seconds,
        "ran_in": record.folder,
    }
    frozen = create_trial(
        state=state,
        value=value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params={
            axis: _param(drawn[axis], setting_of(sweep.config, config, axis)) for axis in drawn
        },
        distributions=dict(drawn),
        intermediate_values=_at_rungs(sweep, record),
        user_attrs={name: value for name, value in known.items() if _is_known(value)},
    )
    times = [one.get("time") for one in record.attempts] + record.times + [record.ended]
    seen = [datetime.fromtimestamp(time) for time in times if time is not None]
    if seen:
        frozen.datetime_start = min(seen)
        frozen.datetime_complete = None if record.outcome is None else max(seen)
    return frozen


def _param(drawn: BaseDistribution, value: Value) -> Value:
    return label(value) if isinstance(drawn, CategoricalDistribution) else value


def _at_rungs(sweep: Results, record: TrialRecord) -> dict[int, float]:
    """Rows of a rung → what the trial was judged by there."""
    results = {result["step"]: result for result in record.results}
    judged = {
        one["rung"]: one.get("metric") if sweep.config.judges_metric else at.get("eval_loss")
        for one in record.decisions
        if (at := results.get(one["step"]))
    }
    return {rows: value for rows, value in judged.items() if value is not None}


def _is_known(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
