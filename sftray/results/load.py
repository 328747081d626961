"""Read a sweep's folder.

Promise: no pickle is read; everything is computed from `sweep.json` and the journal (samples from
their files), so it is right while the sweep runs, too.
"""

from __future__ import annotations

import os

from sftray.config.config_json import sweep_from_json
from sftray.errors import SftrayError
from sftray.results.leaderboard import leaderboard
from sftray.results.records import read_records
from sftray.results.sweep_folder import read_record
from sftray.results.tables import Results
from sftray.storage import files
from sftray.storage.paths import SweepPaths, is_uri, join, name_of


def load(folder: str) -> Results:
    """Read the sweep in `folder`, finished or running. Raises SftrayError if there is none."""
    require_sweep(folder)
    paths = SweepPaths(folder)
    record = read_record(paths.sweep)
    records = read_records(paths.journal)
    return Results(
        folder=folder,
        record=record,
        records=records.trials,
        leaderboard=leaderboard(sweep_from_json(record["config"]), records),
        ended=records.ended and all(trial.outcome is not None for trial in records.trials),
    )


def require_sweep(folder: str) -> None:
    """Raise SftrayError where a folder holds no sweep, with those beside it that do."""
    paths, above = SweepPaths(folder), SweepPaths(os.path.dirname(os.path.abspath(folder)))
    if not is_uri(folder) and name_of(above.best) == name_of(folder) and files.exists(above.sweep):
        what = "got the folder of a winner, must be that of its sweep"
        raise SftrayError(
            f"{folder}: {what}", f"name {os.path.dirname(folder.rstrip('/')) or '..'}"
        )
    if files.exists(paths.sweep):
        return
    beside = os.path.dirname(folder.rstrip("/")) or "."
    names = [] if is_uri(folder) or not os.path.isdir(beside) else sorted(os.listdir(beside))
    there = [name for name in names if os.path.exists(SweepPaths(join(beside, name)).sweep)]
    got = "no sweep.json" if is_uri(folder) or os.path.isdir(folder) else "no such folder"
    hint = f"sweeps there: {', '.join(there)}" if there else ""
    raise SftrayError(f"{folder}: got {got}, must be a sweep's folder (<storage>/<name>)", hint)
