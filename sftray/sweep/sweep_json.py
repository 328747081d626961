"""sweep.json: what a sweep was asked to do and with what, written before its first trial."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from typing import Any

from sftray.config import SweepConfig
from sftray.config.config_json import differing_fields, to_json
from sftray.data.packs.manifest import counts_of
from sftray.data.packs.packs import Packs
from sftray.errors import ConfigError
from sftray.storage import files
from sftray.storage.paths import SweepPaths

RECORDED_PACKAGES = (
    "sftray", "ray", "torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "optuna",
    "pyarrow", "tokenizers", "flash-attn",
)  # fmt: skip

_MAY_CHANGE = (
    "num_trials",
    "confirm_top",
    "confirm_seeds",
    "confirm_trainer",
    "max_concurrent_trials",
    "max_failures",
    "hang_minutes",
    "max_hours",
    "max_gpu_hours",
    "max_cost",
    "price_per_gpu_hour",
    "wandb",
    "wandb_project",
    "wandb_samples",
    "wandb_adapter",
    "tensorboard",
    "num_samples_generated",
    "sample_prompts",
    "sample_at",
    "storage",
)
"""Fields that a resumed sweep may change without making its trials incomparable."""


def refuse_other_config(sweep: SweepConfig, paths: SweepPaths) -> None:
    """Raise ConfigError where the sweep exists with a configuration that differs."""
    if not files.exists(paths.sweep):
        return
    old = json.loads(files.read_text(paths.sweep))["config"]
    new = json.loads(json.dumps(to_json(sweep)))
    differing = [name for name in differing_fields(old, new) if name not in _MAY_CHANGE]
    if differing:
        raise ConfigError(
            f"{paths.root}: this sweep exists with another configuration; it differs in "
            f"{', '.join(differing)}. Use --name for a new sweep, or --fresh to delete this one"
        )


def write_record(
    given: SweepConfig, sweep: SweepConfig, paths: SweepPaths, packs: Packs
) -> dict[str, Any]:
    """Write sweep.json and return it; one that is there already is returned unchanged.

    `given` is the configuration as the user wrote it, `sweep` the same fitted to the packs.
    """
    if files.exists(paths.sweep):
        existing: dict[str, Any] = json.loads(files.read_text(paths.sweep))
        return existing
    record = {
        "uid": os.urandom(4).hex(),
        "config": to_json(given),
        "search_space": to_json(sweep)["search_space"],
        "packs": packs.root,
        "data": counts_of(packs.manifest),
        "versions": _versions(),
        "python": platform.python_version(),
        "git_revision": _git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    files.write_text(paths.sweep, json.dumps(record, indent=1))
    return record


def _versions() -> dict[str, str]:
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _git_revision() -> str | None:
    """The revision of the repository that the sweep was started in, if it is one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git
        return None
    return done.stdout.strip() or None
