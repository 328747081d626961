"""Our search spaces as Optuna's distributions, and points there and back.

Promise: `to_point(spaces, to_params(spaces, point)) == point` for every point of the space, after
its way through JSON as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sftray.config import Choice, RandInt, Space
from sftray.config.checks import is_number
from sftray.config.points import Point, label


def distributions(spaces: Mapping[str, Space]) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every field that is searched."""
    return {name: _distribution(space) for name, space in spaces.items()}


def to_params(spaces: Mapping[str, Space], point: Mapping[str, Any]) -> Point:
    """A point as Optuna names its values: of a choice among numbers their place in order."""
    return {name: _to_param(space, point[name]) for name, space in spaces.items()}


def to_point(spaces: Mapping[str, Space], params: Mapping[str, Any]) -> Point:
    """Optuna's values as the fields of a TrialConfig."""
    return {name: _to_value(space, params[name]) for name, space in spaces.items()}


def _to_param(space: Space, value: Any) -> Any:
    if not isinstance(space, Choice):
        return value
    order = _order(space)
    return order.index(value) if order else label(value)


def _to_value(space: Space, param: Any) -> Any:
    if not isinstance(space, Choice):
        return param
    order = _order(space)
    return order[param] if order else next(v for v in space.values if label(v) == param)


def _order(space: Choice) -> list[Any]:
    """The values of a choice among three or more numbers, in order: TPE learns that neighbours are
    alike. None of other choices."""
    ordered = len(space.values) > 2 and all(is_number(value) for value in space.values)
    return sorted(space.values) if ordered else []


def _distribution(space: Space) -> BaseDistribution:
    if isinstance(space, Choice) and _order(space):
        return IntDistribution(0, len(space.values) - 1)
    if isinstance(space, Choice):
        return CategoricalDistribution([label(value) for value in space.values])
    if isinstance(space, RandInt):
        return IntDistribution(space.low, space.high)
    return FloatDistribution(space.low, space.high, log=space.log)
