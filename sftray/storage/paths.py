"""Every file and folder that a sweep writes, in one place."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

BUNDLED = "sftray/demo"
"""What the base and the chats that come with sftray are called, from every folder."""
PACKS = "packs"
"""The name in a storage that is no sweep's."""
_URI = re.compile(r"^[a-z][a-z0-9+.-]*://")


def is_uri(path: str) -> bool:
    """Whether a path names object storage rather than a local folder."""
    return _URI.match(path) is not None


def name_of(path: str) -> str:
    """The last part of a path or URI."""
    return path.rstrip("/").rpartition("/")[2]


def join(root: str, *parts: str) -> str:
    """Join with '/', for local paths and URIs alike."""
    return "/".join([root.rstrip("/"), *parts])


def resolved(folder: str, recorded: str) -> str:
    """The path or URI that a file in a folder means: each ../ at its start takes a part off."""
    if not recorded.startswith("../"):
        return recorded
    root = folder.rstrip("/") if is_uri(folder) else str(Path(folder).expanduser().resolve())
    while recorded.startswith("../"):
        root, recorded = root.rpartition("/")[0], recorded[3:]
    return join(root, recorded)


def with_bundled(path: str) -> str:
    """A path, or what BUNDLED stands for where nothing else has that name."""
    parts = path.rstrip("/").split("/")
    if parts[:2] != BUNDLED.split("/") or Path(path).exists():
        return path
    return str(Path(__file__).parents[1].joinpath(*parts[1:]))


def beside(path: str, folder: Path) -> str:
    """A local path or glob as it is from `folder`, absolute, where something lies there."""
    if is_uri(path) or os.path.isabs(os.path.expanduser(path)):
        return path
    there = os.path.abspath(folder / path)
    return there if glob.glob(there) else path


def seen_from(path: str, folder: Path) -> str:
    """A relative path or glob of what is there, as a file in `folder` writes it."""
    if is_uri(path) or os.path.isabs(os.path.expanduser(path)) or not glob.glob(path):
        return path
    return os.path.relpath(path, folder)


def nearest_there(path: str | Path) -> Path:
    """A local path, or the nearest folder above it that is there already."""
    whole = Path(path).expanduser().absolute()
    return next(one for one in (whole, *whole.parents) if one.exists())


class _In:
    """The attribute of a folder that is the path of what has this name in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: _Folder, owner: type[_Folder]) -> str:
        return join(folder.root, self._name)


@dataclass(frozen=True)
class _Folder:
    root: str

    @classmethod
    def of(cls, storage: str, name: str) -> Self:
        """The folder of that name in a storage."""
        return cls(join(storage, name))


class PacksPaths(_Folder):
    """<storage>/packs/<key>: one dataset packed for one tokenizer, shared by sweeps."""

    manifest = _In("manifest.json")
    tokenizer = _In("tokenizer.json")

    @classmethod
    def of(cls, storage: str, name: str) -> Self:
        """The packs of that key in a storage."""
        return cls(join(storage, PACKS, name))

    def part(self, split: str, number: int) -> str:
        return join(self.root, split, f"{number:05d}.arrow")


class TrialPaths(_Folder):
    """<sweep>/trials/<id>: what one trial leaves."""

    config = _In("config.json")
    metrics = _In("metrics.jsonl")
    outcome = _In("outcome.json")
    execution = _In("execution.json")
    """How the trial continues after it has run out of memory."""
    samples = _In("samples.jsonl")
    checkpoints = _In("checkpoint")

    def checkpoint(self, step: int) -> str:
        return join(self.checkpoints, f"step-{step:07d}")

    def checkpoint_manifest(self, step: int) -> str:
        """Written last: with it the checkpoint is whole."""
        return join(self.checkpoint(step), "manifest.json")


class SweepPaths(_Folder):
    """<storage>/<name>: the folder that is the record of a sweep."""

    sweep = _In("sweep.json")
    journal = _In("journal.jsonl")
    lock = _In("journal.jsonl.lock")
    lease = _In("journal.jsonl.lease")
    deleting = _In("deleting")
    """There while the sweep is being deleted."""
    leaderboard = _In("leaderboard.json")
    best = _In("best")
    base_samples = _In("base_samples.jsonl")
    """The untrained base's answers to the prompts that the trials answer, too."""
    report = _In("report.html")
    banks = _In("banks.json")
    """What the banks of the last run spent their time on."""
    tracking = _In("wandb")
    tensorboard = _In("tensorboard")
    """A folder a trial, of TensorBoard's event files."""

    trials = _In("trials")

    def trial(self, trial: str) -> TrialPaths:
        return TrialPaths(join(self.trials, trial))


def node_cache() -> Path:
    """This node's own disk, for copies of what lies on object storage."""
    return Path(os.environ.get("SFTRAY_CACHE", "~/.cache/sftray")).expanduser()
