"""The disk that a sweep takes, from the base's config.json and the number of packed rows: shown by
`--plan`, and checked before a sweep starts.

Promise: without torch. What is left of a trial that has ended is its best checkpoint, and its last
where the search is after a metric of that.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sftray.config import SweepConfig
from sftray.config.checks import refuse
from sftray.config.points import largest_value
from sftray.data.packs.manifest import Counts
from sftray.errors import ConfigError
from sftray.plan.model_shape import ModelShape, adapter_parameters
from sftray.storage.faults import in_bytes
from sftray.storage.model_files import BaseConfig
from sftray.storage.paths import is_uri, nearest_there

POSITION_BYTES = 8
"""A token and its label in the packs."""
MOMENTS_BYTES = 12
"""A parameter in a checkpoint: itself and AdamW's two moments."""
UNKNOWN = 1_000_000_000
"""Parameters of a model whose config.json has no sizes; all of them are trained of small ones."""
KEPT = 4
"""Checkpoints of a trial that runs: the last, the one before, the best, and the one that is being
written."""


@dataclass(frozen=True)
class Disk:
    """Bytes, by what they are for."""

    packs: float
    checkpoints: float
    bundle: float
    free: float | None
    """In the sweep's storage; None for a URI."""

    @property
    def total(self) -> float:
        return self.packs + self.checkpoints + self.bundle


def disk_needed(
    sweep: SweepConfig, base: BaseConfig, splits: Mapping[str, Counts], *, at_once: int
) -> Disk:
    """`splits`: the packs' counts, nothing where they are not known; `at_once`: how many trials run
    at a time."""
    positions = sum(counts["rows"] for counts in splits.values()) * sweep.data.max_length
    trials = sweep.total_trials + sweep.confirm_top * sweep.confirm_seeds
    running = min(at_once, trials)
    parameters = _trained_parameters(sweep, base)
    local = None if is_uri(sweep.storage) else nearest_there(sweep.storage)
    of_ended = 2 if sweep.takes_last else 1
    kept = of_ended * (trials - running) + KEPT * running
    return Disk(
        packs=float(POSITION_BYTES * positions),
        checkpoints=float(MOMENTS_BYTES * parameters * kept),
        bundle=4.0 * parameters,
        free=None if local is None else float(shutil.disk_usage(local).free),
    )


def require_storage(storage: str) -> None:
    """Raise ConfigError where a sweep could write nothing."""
    if is_uri(storage):
        return
    there = nearest_there(storage)
    if not there.is_dir():
        refuse("storage", f"{storage!r}, but {there} is a file", "a folder, or a new one")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return  # `require_space` says how much is missing
        got = f"{storage!r}, but {there} cannot be written ({error.strerror})"
        refuse("storage", got, "a folder that this user may write", "name another --storage")


def require_space(sweep: SweepConfig, needed: Disk, folder: str) -> None:
    """Raise ConfigError where a sweep whose packs are there would fill the disk; what its `folder`
    has already is counted as taken."""
    there = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    wanted = needed.checkpoints + needed.bundle - there
    if needed.free is not None and wanted > needed.free:
        raise ConfigError(
            f"storage: got {in_bytes(needed.free)} free at {sweep.storage}, must have "
            f"{in_bytes(wanted)} for the sweep's checkpoints and winner",
            "make room, give another --storage, or lower num_trials or lora_r",
        )


def _trained_parameters(sweep: SweepConfig, base: BaseConfig) -> int:
    """Parameters of an adapter of the largest rank, or of the whole model."""
    rank = int(largest_value(sweep, "lora_r"))
    shape = ModelShape.of(base)
    if sweep.trial.finetune == "full":
        return UNKNOWN if shape is None else shape.parameters
    if shape is None:
        return 2_600_000 * rank  # as on an 8B base: 42M parameters at rank 16
    trial = sweep.trial
    return adapter_parameters(shape, trial.lora_target_modules, rank, trial.lora_target_parameters)
