"""Packs built in this process: the tasks of both passes one after another, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sftray.config import DataConfig
from sftray.data.packs.packs import Packs
from sftray.data.pipeline import packs_from
from sftray.data.recipe import make_recipe
from sftray.errors import Log

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def build_packs_here(
    data: DataConfig, model: str, *, storage: str, log: Log = lambda line: None, **sizes: Any
) -> Packs:
    """What Ray builds, byte by byte (`test_packs_built_here_are_those_of_ray`)."""
    recipe = make_recipe(data, model, **sizes)
    return packs_from(recipe, storage=storage, log=log, each=each_here)


def each_here(task: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    return [task(item) for item in items]
