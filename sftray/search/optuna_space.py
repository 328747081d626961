"""Our search spaces as Optuna's distributions, and points there and back.

Promise: `to_point(spaces, to_params(spaces, point)) == point` for every point of the space, after
its way through JSON as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sftray.config import Space
from sftray.config.points import Point
from sftray.config.spaces import Value, label


def distributions(spaces: Mapping[str, Space]) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every field that is searched."""
    return {name: _distribution(space) for name, space in spaces.items()}


def to_params(spaces: Mapping[str, Space], point: Mapping[str, Value]) -> Point:
    """A point as Optuna names its values: of a choice among numbers their place in order."""
    return {name: _to_param(space, point[name]) for name, space in spaces.items()}


def to_point(spaces: Mapping[str, Space], params: Mapping[str, Value]) -> Point:
    """Optuna's values as the fields of a TrialConfig."""
    return {name: _to_value(space, params[name]) for name, space in spaces.items()}


def _to_param(space: Space, value: Value) -> Value:
    order: Sequence[Value] = space.order()
    return order.index(value) if order else label(value)


def _to_value(space: Space, param: Value) -> Value:
    order = space.order()
    return order[param] if order and isinstance(param, int) else space.nearest(param)


def _distribution(space: Space) -> BaseDistribution:
    values, ends = space.finite_values(), space.param_ends()
    if ends is None:
        return CategoricalDistribution([label(value) for value in values or ()])
    if values is None:
        return FloatDistribution(*ends, log=space.log)
    return IntDistribution(*ends)
