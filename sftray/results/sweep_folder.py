"""A finished or running sweep as plain values.

Promise: neither ray, torch nor pandas is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypedDict, cast

from sftray.config import SweepConfig, TrialConfig
from sftray.config.checks import is_number
from sftray.config.config_json import sweep_from_json
from sftray.data.packs.manifest import Counts
from sftray.errors import SftrayError
from sftray.results.leaderboard import Leaderboard
from sftray.results.records import TrialRecord
from sftray.storage import files
from sftray.storage.paths import name_of, resolved


class SweepRecord(TypedDict):
    """sweep.json: what a sweep was asked to do, and with what."""

    uid: str
    config: dict[str, dict[str, object]]
    """As the user wrote it."""
    search_space: object
    """As it was fitted to the packs."""
    packs: str
    """Their root, as seen from the sweep's folder, so that both may be moved."""
    identities: Mapping[str, str]
    """What the names in the configuration stood for, as `plan.identities` has it."""
    data: Mapping[str, Counts]
    """By split."""
    versions: dict[str, str]
    """By package."""
    python: str
    git_revision: str | None
    started: str
    """ISO 8601, UTC."""


def read_record(path: str) -> SweepRecord:
    """A sweep's record. Raises SftrayError where the file holds none."""
    record = files.read_object(path)
    train = record.get("data", {})
    train = train.get("train") if isinstance(train, dict) else None
    needed = {
        "config": isinstance(record.get("config"), dict),
        "search_space": isinstance(record.get("search_space"), dict),
        "packs": isinstance(record.get("packs"), str),
        "data": isinstance(train, dict) and is_number(train.get("rows")) and train["rows"] > 0,
        "started": "started" not in record or _is_time(record["started"]),
    }
    if wrong := [name for name, holds in needed.items() if not holds]:
        raise SftrayError(
            f"{path}: got {record.get(wrong[0])!r:.60} under {wrong[0]!r}, must be what a sweep "
            "writes there",
            "restore the file from a copy, or start the sweep afresh under another --name",
        )
    return cast(SweepRecord, record)


def fitted_sweep(record: SweepRecord) -> SweepConfig:
    """The configuration of a sweep as it was fitted to the data: the record's own space has the
    batch sizes that the number of rows allowed."""
    return sweep_from_json({**record["config"], "search_space": record["search_space"]})


def _is_time(value: object) -> bool:
    try:
        return bool(datetime.fromisoformat(str(value)))
    except ValueError:
        return False


@dataclass(frozen=True, eq=False)
class SweepFolder:
    """A sweep's folder, read."""

    folder: str
    record: SweepRecord
    records: list[TrialRecord]
    """The trials, in the order they were suggested."""
    leaderboard: Leaderboard
    ended: bool = False
    """Whether the sweep has come to its end, and no trial runs."""

    @cached_property
    def config(self) -> SweepConfig:
        """The sweep's configuration, as it was fitted to the data."""
        return fitted_sweep(self.record)

    @property
    def packs(self) -> str:
        """The packs' root."""
        return resolved(self.folder, self.record["packs"])

    @property
    def packs_key(self) -> str:
        """The packs' fingerprint: of the data's content, the tokenizer, template and options."""
        return name_of(self.record["packs"])

    @cached_property
    def trial_configs(self) -> dict[str, TrialConfig]:
        """What each trial ran as."""
        return {one.trial: self.config.trial.at(one.point) for one in self.records}

    @cached_property
    def axes(self) -> list[str]:
        """The TrialConfig fields that the trials differ in, in the search's order; not the seed
        that repetitions of a point have."""
        names = dict.fromkeys(self.config.search_space if not self.config.points else ())
        for record in self.records:
            names |= dict.fromkeys(record.point)
        if "seed" not in self.config.search_space:
            names.pop("seed", None)
        return list(names)
