"""Our search spaces as Optuna's distributions, and points there and back.

Promise: `to_point(spaces, to_params(spaces, point)) == point` for every point of the space, after
its way through JSON as well.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from random import Random
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sftray.config import Choice, RandInt, Space
from sftray.config.checks import is_number

Point = dict[str, Any]


def distributions(spaces: Mapping[str, Space]) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every field that is searched."""
    return {name: _distribution(space) for name, space in spaces.items()}


def to_params(spaces: Mapping[str, Space], point: Mapping[str, Any]) -> Point:
    """A point as Optuna names its values: of a choice among numbers their place in order."""
    return {name: _to_param(space, point[name]) for name, space in spaces.items()}


def to_point(spaces: Mapping[str, Space], params: Mapping[str, Any]) -> Point:
    """Optuna's values as the fields of a TrialConfig."""
    return {name: _to_value(space, params[name]) for name, space in spaces.items()}


def spread_point(spaces: Mapping[str, Space], number: int, seed: int) -> Point:
    """Point `number` of a sequence that fills the space evenly, shifted by `seed`.

    The additive recurrence on the generalised golden ratio (Roberts 2018, "The unreasonable
    effectiveness of quasirandom sequences"): any few points of it lie apart on every axis, where
    as many random ones leave whole decades of a learning rate untried.
    """
    ratio = 2.0
    for _ in range(40):  # the root of x^(d + 1) = x + 1
        ratio = (1 + ratio) ** (1 / (len(spaces) + 1))
    return {
        name: _at(space, (Random(f"{seed}/{name}").random() + number * ratio**-axis) % 1)
        for axis, (name, space) in enumerate(sorted(spaces.items()), start=1)
    }


def all_points(spaces: Mapping[str, Space]) -> list[Point]:
    """Every point of a space without continuous ranges; none where there is one."""
    axes: list[list[Any]] = []
    for space in spaces.values():
        if isinstance(space, Choice):
            axes.append(list(space.values))
        elif isinstance(space, RandInt):
            axes.append(list(range(space.low, space.high + 1)))
        else:
            return []
    return [dict(zip(spaces, values, strict=True)) for values in itertools.product(*axes)]


def nearest_point(spaces: Mapping[str, Space], wanted: Mapping[str, Any]) -> Point:
    """The point of a space nearest to `wanted`, which has a number for every field, axis by axis;
    of a choice among other things than numbers the first that is equal, else the first."""
    return {name: _nearest(space, wanted[name]) for name, space in spaces.items()}


def in_space(spaces: Mapping[str, Space], point: Mapping[str, Any]) -> bool:
    """Whether a point has exactly the searched fields, each with a value that can be drawn."""
    return point.keys() == spaces.keys() and all(
        _label(point[name]) in map(_label, space.values)
        if isinstance(space, Choice)
        else space.contains(point[name])
        for name, space in spaces.items()
    )


def _nearest(space: Space, wanted: Any) -> Any:
    if not isinstance(space, Choice):
        return min(max(wanted, space.low), space.high)
    if is_number(wanted) and all(is_number(value) for value in space.values):
        return min(
            space.values, key=lambda value: abs(math.log((value or 1e-9) / (wanted or 1e-9)))
        )
    return wanted if space.contains(wanted) else space.values[0]


def _at(space: Space, share: float) -> Any:
    """The value a share 0 … 1 of the way through a space."""
    if isinstance(space, Choice):
        return space.values[int(share * len(space.values))]
    if isinstance(space, RandInt):
        return space.low + int(share * (space.high - space.low + 1))
    if space.log:
        return space.low * (space.high / space.low) ** share
    return space.low + (space.high - space.low) * share


def _to_param(space: Space, value: Any) -> Any:
    if not isinstance(space, Choice):
        return value
    order = _order(space)
    return order.index(value) if order else _label(value)


def _to_value(space: Space, param: Any) -> Any:
    if not isinstance(space, Choice):
        return param
    order = _order(space)
    return order[param] if order else next(v for v in space.values if _label(v) == param)


def _order(space: Choice) -> list[Any]:
    """The values of a choice among three or more numbers, in order: TPE learns that neighbours are
    alike. None of other choices."""
    ordered = len(space.values) > 2 and all(is_number(value) for value in space.values)
    return sorted(space.values) if ordered else []


def _distribution(space: Space) -> BaseDistribution:
    if isinstance(space, Choice) and _order(space):
        return IntDistribution(0, len(space.values) - 1)
    if isinstance(space, Choice):
        return CategoricalDistribution([_label(value) for value in space.values])
    if isinstance(space, RandInt):
        return IntDistribution(space.low, space.high)
    return FloatDistribution(space.low, space.high, log=space.log)


def _label(value: Any) -> Any:
    """A choice as Optuna takes it: scalars as they are, lists and the like by their JSON."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value)
