"""The winner's folder: an ordinary PEFT adapter, checked, with its story beside it; or a whole
model, where all weights were trained. What one does with it then is in `winner/`.

Promise: `best/` is written from the best evaluation, not the last, and what is in it has been
loaded again with plain transformers and PEFT and given the recorded eval loss to 1e-3, or to what
rounding to bfloat16 makes of a short eval set, or the sweep says so loudly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftray.config import TrialConfig
from sftray.errors import SftrayError
from sftray.storage import files as storage_files
from sftray.storage.paths import join
from sftray.winner.loading_code import is_whole

TOLERANCE = 1e-3
"""How far the reloaded adapter's eval loss may lie from the recorded one, in nats."""

BFLOAT16_TOLERANCE = 0.2
"""The same over the square root of the supervised tokens, where activations are bfloat16: another
order of the same products moves each token's loss by some 0.05 nats, up or down; four sigmas."""

WORKER_MINUTES = 60
"""How long the check may take, the wait for a free worker and the base's download included."""

SHOWN_TRIALS = 5
"""Trials of the leaderboard that the card shows, and what of each."""
SHOWN = ("trial", "point", "eval_loss", "tokens", "outcome")

POLL_SECONDS = 60

Files = dict[str, bytes | None]
"""By name; None for what is too large to come by value and is copied from the checkpoint."""

WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
"""What a bundle has one of: an adapter, a model, or a model in many files."""


def require_adapter(folder: str, facts: Mapping[str, Any]) -> None:
    """Raise SftrayError where a bundle holds a whole model."""
    if is_whole(facts):
        raise SftrayError(
            f"{folder}: got a whole model (finetune='full'), must be an adapter; there is nothing "
            "to merge, transformers loads the bundle as it is (`sftray best` says how)"
        )


def as_trained(folder: str, facts: Mapping[str, Any], trust_remote_code: bool) -> TrialConfig:
    """The trial that a bundle is of. A folder, which somebody else may have written, cannot have
    code run: that is for who reads it to say."""
    trial = TrialConfig(**facts["config"])
    if trial.trust_remote_code and not trust_remote_code:
        raise SftrayError(
            f"{folder}: its base {trial.model} wants to run Python code of its repository, must be "
            "allowed here, too; read the code, then say --trust-remote-code"
        )
    return trial


def open_bundle(folder: str) -> tuple[Path, dict[str, Any]]:
    """A local copy of a bundle and its sweep.json; `folder` is the bundle or its sweep."""
    for candidate in (folder, join(folder, "best")):
        if any(storage_files.exists(join(candidate, name)) for name in WEIGHTS):
            local = storage_files.get_folder(candidate)
            facts: dict[str, Any] = json.loads((local / "sweep.json").read_text(encoding="utf-8"))
            return local, facts
    raise SftrayError(
        f"{folder}: got no {' or '.join(WEIGHTS[:2])} there nor in best/, must be a finished "
        "sweep's folder or its best/"
    )
