"""sweep.json: what a sweep was asked to do and with what, written before its first trial."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping

from sftray.config import SweepConfig
from sftray.config.config_json import to_json
from sftray.data.packs.manifest import counts_of
from sftray.data.packs.packs import Packs
from sftray.results.sweep_folder import SweepRecord, read_record
from sftray.storage import files
from sftray.storage.paths import SweepPaths, name_of

RECORDED_PACKAGES = (
    "sftray", "ray", "torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "optuna",
    "pyarrow", "tokenizers", "flash-attn",
)  # fmt: skip


def write_record(
    given: SweepConfig,
    sweep: SweepConfig,
    paths: SweepPaths,
    packs: Packs,
    identities: Mapping[str, str],
) -> SweepRecord:
    """Write sweep.json and return it; one that is there already is returned unchanged.

    `given` is the configuration as the user wrote it, `sweep` the same fitted to the packs.
    """
    if files.exists(paths.sweep):
        return read_record(paths.sweep)
    record: SweepRecord = {
        "uid": os.urandom(4).hex(),
        "config": to_json(given),
        "search_space": to_json(sweep)["search_space"],
        "packs": f"../packs/{name_of(packs.root)}",
        "identities": identities,
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
