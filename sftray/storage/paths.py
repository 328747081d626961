"""Every file and folder that a sweep writes, in one place."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

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


def nearest_there(path: str | Path) -> Path:
    """A local path, or the nearest folder above it that is there already."""
    whole = Path(path).expanduser().absolute()
    return next(one for one in (whole, *whole.parents) if one.exists())


@dataclass(frozen=True)
class PacksPaths:
    """<storage>/packs/<key>: one dataset packed for one tokenizer, shared by sweeps."""

    root: str

    @classmethod
    def of(cls, storage: str, key: str) -> PacksPaths:
        return cls(join(storage, "packs", key))

    @property
    def manifest(self) -> str:
        return join(self.root, "manifest.json")

    @property
    def tokenizer(self) -> str:
        return join(self.root, "tokenizer.json")

    def part(self, split: str, number: int) -> str:
        return join(self.root, split, f"{number:05d}.arrow")


@dataclass(frozen=True)
class TrialPaths:
    """<sweep>/trials/<id>: what one trial leaves."""

    root: str

    @property
    def config(self) -> str:
        return join(self.root, "config.json")

    @property
    def metrics(self) -> str:
        return join(self.root, "metrics.jsonl")

    @property
    def outcome(self) -> str:
        return join(self.root, "outcome.json")

    @property
    def execution(self) -> str:
        """How the trial goes on after it has run out of memory."""
        return join(self.root, "execution.json")

    @property
    def samples(self) -> str:
        return join(self.root, "samples.jsonl")

    @property
    def checkpoints(self) -> str:
        return join(self.root, "checkpoint")

    def checkpoint(self, step: int) -> str:
        return join(self.checkpoints, f"step-{step:07d}")

    def checkpoint_manifest(self, step: int) -> str:
        """Written last: with it the checkpoint is whole."""
        return join(self.checkpoint(step), "manifest.json")


@dataclass(frozen=True)
class SweepPaths:
    """<storage>/<name>: the folder that is the record of a sweep."""

    root: str

    @classmethod
    def of(cls, storage: str, name: str) -> SweepPaths:
        return cls(join(storage, name))

    @property
    def sweep(self) -> str:
        return join(self.root, "sweep.json")

    @property
    def journal(self) -> str:
        return join(self.root, "journal.jsonl")

    @property
    def leaderboard(self) -> str:
        return join(self.root, "leaderboard.json")

    @property
    def best(self) -> str:
        return join(self.root, "best")

    @property
    def base_samples(self) -> str:
        """The untrained base's answers to the prompts that the trials answer, too."""
        return join(self.root, "base_samples.jsonl")

    @property
    def report(self) -> str:
        return join(self.root, "report.html")

    @property
    def banks(self) -> str:
        """What the banks of the last run spent their time on."""
        return join(self.root, "banks.json")

    @property
    def tracking(self) -> str:
        return join(self.root, "wandb")

    @property
    def tensorboard(self) -> str:
        """A folder a trial, of TensorBoard's event files."""
        return join(self.root, "tensorboard")

    def trial(self, trial: str) -> TrialPaths:
        return TrialPaths(join(self.root, "trials", trial))


def node_cache() -> Path:
    """This node's own disk, for copies of what lies on object storage."""
    return Path(os.environ.get("SFTRAY_CACHE", "~/.cache/sftray")).expanduser()
