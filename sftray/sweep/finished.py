"""A sweep that has all that is asked of it is recognised without Ray."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sftray import results
from sftray.config import SweepConfig
from sftray.config.config_json import to_json
from sftray.errors import SftrayError
from sftray.results import Results
from sftray.storage import files
from sftray.storage.paths import SweepPaths
from sftray.winner.bundle import open_bundle

_MORE = ("num_trials", "trainings", "stop_at_odds", "confirm_top", "confirm_seeds")
"""Fields that give a sweep more to do."""


def finished(sweep: SweepConfig, paths: SweepPaths) -> Results | None:
    """The sweep, where it has ended with as many trials as `sweep` asks for, an undamaged winner
    and a report; else None."""
    if not (files.exists(paths.sweep) and files.exists(paths.report)):
        return None
    found = results.load(paths.root)
    if not found.ended or found.leaderboard.get("budget_spent"):
        return None
    asked, recorded = to_json(sweep), found.record["config"]
    if any(asked[name] != recorded.get(name) for name in _MORE):
        repeated = sum(trial.confirms is not None for trial in found.records)
        searched = len(found.records) - repeated
        if searched < sweep.total_trials or repeated < sweep.confirm_top * sweep.confirm_seeds:
            return None
    try:
        with tempfile.TemporaryDirectory(prefix="sftray-") as scratch:
            open_bundle(paths.best, Path(scratch))
    except SftrayError:
        return None
    return found
