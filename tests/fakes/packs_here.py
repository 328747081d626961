"""Packs built in this process: the tasks of both passes one after another, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from sftray.config import DataConfig
from sftray.data import pipeline
from sftray.data.packs import ray_passes
from sftray.data.packs.packs import Packs

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def build_packs_here(data: DataConfig, model: str, *, storage: str) -> Packs:
    """What `build_packs` gives, byte by byte (`test_packs_built_here_are_those_of_ray`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_passes, "_map", _one_after_another)
        patch.setattr(pipeline, "wake_workers", lambda source: None)
        return pipeline.build_packs(data, model, storage=storage)


def _one_after_another(task: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    return [task(item) for item in items]
