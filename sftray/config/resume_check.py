"""A start under a name that another sweep has, or something else, is refused with what differs."""

from __future__ import annotations

import json

from sftray.config.config_json import differing_fields, to_json
from sftray.config.sweep_config import BUDGETS, SweepConfig
from sftray.errors import ConfigError
from sftray.storage import files
from sftray.storage.paths import SweepPaths, name_of

_MAY_CHANGE = (
    *BUDGETS, "num_trials", "trainings", "stop_at_odds", "confirm_top", "confirm_seeds",
    "confirm_trainer",
    "max_concurrent_trials", "max_failures", "on_broken_base", "hang_minutes", "wandb",
    "wandb_project", "wandb_samples", "wandb_adapter", "tensorboard", "num_samples_generated",
    "sample_prompts", "sample_at", "storage", "data.source", "data.eval_source", "data.revision",
    "data.chat_template", "trial.model", "trial.model_revision",
)  # fmt: skip
"""Fields that a resumed sweep may change without making its trials incomparable: paths, names and
revisions only name what `plan.identities` compares."""


def refuse_other_config(sweep: SweepConfig, paths: SweepPaths) -> None:
    """Raise ConfigError where the sweep exists with a configuration that differs."""
    if not files.exists(paths.sweep):
        return
    old = files.read_object(paths.sweep).get("config", {})
    new = json.loads(json.dumps(to_json(sweep)))
    differing = [name for name in differing_fields(old, new) if name not in _MAY_CHANGE]
    if differing:
        raise ConfigError(
            f"{paths.root}: this sweep exists with another configuration; it differs in "
            f"{', '.join(differing)}",
            "use --name for a new sweep, or --fresh to delete this one",
        )


def require_no_stranger(paths: SweepPaths) -> None:
    """Raise ConfigError where something else than a sweep lies under its name."""
    marks = (paths.sweep, paths.journal, paths.lock, paths.lease, paths.deleting)
    known = {name_of(path) for path in marks}  # one of them is there from the first moment on
    names = {""} if files.is_file(paths.root) else set(files.list_names(paths.root))
    if names and not names & known:
        raise ConfigError(
            f"name: got {name_of(paths.root)!r}, but {paths.root} is there and no sweep's",
            "give the sweep another --name, or another --storage",
        )
