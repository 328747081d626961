"""Read a sweep's folder, and compare sweeps.

Promise: no pickle is read; everything is computed from `sweep.json` and the journal (samples from
their files), so it is right while the sweep runs, too. pandas is imported when the first table is
asked for.
"""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import TYPE_CHECKING

from sftray.config.config_json import sweep_from_json
from sftray.errors import SftrayError
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.results.sweep_folder import SweepFolder, SweepRecord
from sftray.storage import files
from sftray.storage.journal import read_events
from sftray.storage.paths import SweepPaths, is_uri, join

if TYPE_CHECKING:
    import pandas as pd


class Results(SweepFolder):
    """A sweep's folder with its pandas tables, each made when it is first asked for and described
    in tables.py."""

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial: its point, losses, cost, outcome, verdict."""
        from sftray.results import tables

        return tables.trials(self)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an optimizer step of a trial; eval losses where it was evaluated."""
        from sftray.results import tables

        return tables.curves(self)

    @cached_property
    def rungs(self) -> pd.DataFrame:
        """One row a decision: the loss at a rung, the cutoff, and whether the trial continued."""
        from sftray.results import tables

        return tables.rungs(self)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row an answer to a fixed prompt, the untrained base's first."""
        from sftray.results import tables

        return tables.samples(self)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The best trial's row of `trials`, beside the base's loss; no row before there is one."""
        from sftray.results import tables

        return tables.best(self)


def load(folder: str) -> Results:
    """Read the sweep in `folder`, finished or running. Raises SftrayError if there is none."""
    paths = SweepPaths(folder)
    if not files.exists(paths.sweep):
        raise SftrayError(no_sweep(folder))
    record: SweepRecord = json.loads(files.read_text(paths.sweep))
    records = Records(read_events(paths.journal))
    return Results(
        folder=folder,
        record=record,
        records=records.trials,
        leaderboard=leaderboard(sweep_from_json(record["config"]), records),
        ended=records.ended and all(trial.outcome is not None for trial in records.trials),
    )


def no_sweep(folder: str) -> str:
    """What to say of a folder that holds no sweep, with those beside it that do."""
    beside = os.path.dirname(folder.rstrip("/")) or "."
    names = [] if is_uri(folder) or not os.path.isdir(beside) else sorted(os.listdir(beside))
    there = [name for name in names if os.path.exists(SweepPaths(join(beside, name)).sweep)]
    got = "no sweep.json" if is_uri(folder) or os.path.isdir(folder) else "no such folder"
    hint = f"; sweeps there: {', '.join(there)}" if there else ""
    return f"{folder}: got {got}, must be a sweep's folder (<storage>/<name>){hint}"


def compare(*sweeps: Results) -> pd.DataFrame:
    """One row a sweep: its best loss, what it cost, and whether its losses may be held against the
    first one's, because base and packs are the same."""
    from sftray.results import tables

    return tables.compare(*sweeps)


def differences(*sweeps: Results) -> pd.DataFrame:
    """The configuration's fields in which sweeps differ, a column a sweep."""
    from sftray.results import tables

    return tables.differences(*sweeps)
