"""The last training: the point that a sweep recommends on all its data, as a sweep of one trial.

Promise: it starts, resumes, and leaves a checked bundle as every sweep does, because it is one.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import cast

from sftray.config import SweepConfig
from sftray.config.spaces import Value
from sftray.errors import SftrayError
from sftray.results import load
from sftray.storage.paths import is_uri
from sftray.winner.bundle import open_bundle


def last_training(
    folder: str,
    *,
    epochs: float | None = None,
    hold_out: bool = True,
    trust_remote_code: bool = False,
) -> SweepConfig:
    """The training of the recommended point of the finished sweep in `folder`, beside that: on
    every conversation but those that `hold_out` keeps apart, for as many `epochs` as the point has
    or as are given. Raises SftrayError where there is no such sweep."""
    _, facts = open_bundle(folder)
    searched = load(folder).config
    if not searched.data.has_eval_loss:
        raise SftrayError(f"{folder}: got a last training, must be the sweep that found its point")
    folder = folder.rstrip("/") if is_uri(folder) else os.path.abspath(folder)
    data = replace(searched.data, hold_out=hold_out, max_conversations=None)
    point = {name: cast(Value, value) for name, value in facts.point.items()}
    if epochs is not None:
        point["num_train_epochs"] = epochs
    return replace(
        searched,
        name=f"{searched.name}-final",
        storage=os.path.dirname(folder),
        searched_in=folder,
        data=data,
        trial=facts.as_trained(folder, trust_remote_code),
        points=(point,),
        search_space={},
        trainings=None,
        warm_start=(),
        scheduler="none",
        rungs=(),
        early_stopping_patience=None,
        confirm_top=0,
        objective="eval_loss",
        metric=searched.metric if data.has_eval_loss else None,
        metric_at="end",
        max_hours=None,
        max_gpu_hours=None,
        max_cost=None,
    )
