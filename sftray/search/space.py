"""Our search spaces as Optuna's distributions, and points there and back.

Promise: `to_point(spaces, to_params(spaces, point)) == point` for every point of the space, after
its way through JSON as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sftray.config import Choice, RandInt, Space

Point = dict[str, Any]


def distributions(spaces: Mapping[str, Space]) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every field that is searched."""
    return {name: _distribution(space) for name, space in spaces.items()}


def to_params(spaces: Mapping[str, Space], point: Mapping[str, Any]) -> Point:
    """A point as Optuna names its values."""
    return {
        name: _label(point[name]) if isinstance(space, Choice) else point[name]
        for name, space in spaces.items()
    }


def to_point(spaces: Mapping[str, Space], params: Mapping[str, Any]) -> Point:
    """Optuna's values as the fields of a TrialConfig."""
    point = {}
    for name, space in spaces.items():
        value = params[name]
        if isinstance(space, Choice):
            value = next(one for one in space.values if _label(one) == value)
        point[name] = value
    return point


def in_space(spaces: Mapping[str, Space], point: Mapping[str, Any]) -> bool:
    """Whether a point has exactly the searched fields, each with a value that can be drawn."""
    return point.keys() == spaces.keys() and all(
        _label(point[name]) in map(_label, space.values)
        if isinstance(space, Choice)
        else space.contains(point[name])
        for name, space in spaces.items()
    )


def _distribution(space: Space) -> BaseDistribution:
    if isinstance(space, Choice):
        return CategoricalDistribution([_label(value) for value in space.values])
    if isinstance(space, RandInt):
        return IntDistribution(space.low, space.high)
    return FloatDistribution(space.low, space.high, log=space.log)


def _label(value: Any) -> Any:
    """A choice as Optuna takes it: scalars as they are, lists and the like by their JSON."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value)
