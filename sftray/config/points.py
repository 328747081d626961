"""Points of the search space: their text, their neighbours, the values a field can reach."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from random import Random
from typing import Any

from sftray.config.checks import is_number
from sftray.config.spaces import Choice, RandInt, Space, Uniform
from sftray.config.sweep_config import SweepConfig


def short(value: Any) -> str:
    """A hyper-parameter's value, three digits of a float."""
    return f"{value:.3g}" if isinstance(value, float) else str(value if value is not None else "")


def point_text(point: Mapping[str, Any]) -> str:
    """A point in one line."""
    return ", ".join(f"{name}={short(value)}" for name, value in point.items())


Point = dict[str, Any]


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
        label(point[name]) in map(label, space.values)
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


def label(value: Any) -> Any:
    """A choice as Optuna takes it: scalars as they are, lists and the like by their JSON."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def field_values(sweep: SweepConfig, name: str) -> list[float] | None:
    """All values that a numeric field can take in a sweep; None if that is a continuous range."""
    if sweep.points:
        default = getattr(sweep.trial, name)
        return sorted({point.get(name, default) for point in sweep.points})
    space: Space | None = sweep.search_space.get(name)
    if space is None:
        return [getattr(sweep.trial, name)]
    if isinstance(space, Choice):
        return sorted(space.values)
    if isinstance(space, RandInt):
        return list(range(space.low, space.high + 1))
    return None


def largest_value(sweep: SweepConfig, name: str) -> float:
    """The largest value of a numeric field in a sweep."""
    values = field_values(sweep, name)
    if values is not None:
        return max(values)
    space = sweep.search_space[name]
    assert isinstance(space, Uniform)
    return space.high


def reachable(sweep: SweepConfig, name: str) -> list[float]:
    """All values of a field, or the ends of its continuous range."""
    values = field_values(sweep, name)
    if values is not None:
        return values
    space = sweep.search_space[name]
    assert isinstance(space, Uniform)
    return [space.low, space.high]
