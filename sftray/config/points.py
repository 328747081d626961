"""Points of the search space: their text, their neighbours, the values a field can reach."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from random import Random

from sftray.config.checks import is_number
from sftray.config.shares import at_shares, source_of
from sftray.config.spaces import Space, Value
from sftray.config.sweep_config import SweepConfig
from sftray.config.trial_config import TrialConfig

Point = dict[str, Value]
"""Values of TrialConfig fields and of sources' shares, by the names of their axes."""


def short(value: object) -> str:
    """A hyper-parameter's value, three digits of a float."""
    return f"{value:.3g}" if isinstance(value, float) else str(value if value is not None else "")


def point_text(point: Mapping[str, object]) -> str:
    """A point in one line."""
    return ", ".join(f"{name}={short(value)}" for name, value in point.items())


def spread_point(spaces: Mapping[str, Space], number: int, seed: int) -> Point:
    """Point `number` of a sequence that fills the space evenly, shifted by `seed`.

    The additive recurrence on the generalised golden ratio (Roberts 2018, "The unreasonable
    effectiveness of quasirandom sequences"): any few points of it lie apart on every axis, where
    as many random ones leave whole decades of a learning rate untried.
    """
    ratio = 2.0
    for _ in range(40):  # the root of x^(d + 1) = x + 1
        ratio = (1 + ratio) ** (1 / (len(spaces) + 1))
    axes = {name: axis for axis, name in enumerate(sorted(spaces), start=1)}
    return {
        name: space.at((Random(f"{seed}/{name}").random() + number * ratio ** -axes[name]) % 1)
        for name, space in spaces.items()
    }


def all_points(spaces: Mapping[str, Space]) -> list[Point]:
    """Every point of a space without continuous ranges; none where there is one."""
    axes = [values for space in spaces.values() if (values := space.finite_values()) is not None]
    if len(axes) < len(spaces):
        return []
    return [dict(zip(spaces, values, strict=True)) for values in itertools.product(*axes)]


def nearest_point(spaces: Mapping[str, Space], wanted: Mapping[str, Value]) -> Point:
    """The point of a space nearest to `wanted`, which has a number for every field, axis by axis;
    of a choice among other things than numbers the first that is equal, else the first."""
    return {name: space.nearest(wanted[name]) for name, space in spaces.items()}


def in_space(spaces: Mapping[str, Space], point: Mapping[str, object]) -> bool:
    """Whether a point has exactly the searched fields, each with a value that can be drawn."""
    return point.keys() == spaces.keys() and all(
        space.contains(point[name]) for name, space in spaces.items()
    )


def setting_of(sweep: SweepConfig, trial: TrialConfig, name: str) -> Value:
    """A trial's value on an axis; None of the share of a source that the sweep has not."""
    if (source := source_of(name)) is None:
        value: Value = getattr(trial, name)
        return value
    drawn = at_shares(sweep.data.mixture, trial.mixture)
    return next((one.share for one in drawn if one.name == source), None)


def field_values(sweep: SweepConfig, name: str) -> list[float] | None:
    """All values that a numeric field can take in a sweep; None if that is a continuous range."""
    default = setting_of(sweep, sweep.trial, name)
    if sweep.points:
        given = {point.get(name, default) for point in sweep.points}
        return sorted(filter(is_number, given))
    space = sweep.search_space.get(name)
    values = [default] if space is None else space.finite_values()
    return None if values is None else sorted(filter(is_number, values))


def all_values(sweep: SweepConfig, name: str) -> set[Value]:
    """All values that a field can take in a sweep, but those within a continuous range."""
    default = getattr(sweep.trial, name)
    if sweep.points:
        return {getattr(sweep.trial.at(point), name) for point in sweep.points}
    space = sweep.search_space.get(name)
    return {default} if space is None else set(space.finite_values() or ())


def reachable(sweep: SweepConfig, name: str) -> list[float]:
    """All values of a field, or the ends of its continuous range."""
    values = field_values(sweep, name)
    return values if values is not None else list(sweep.search_space[name].ends() or ())


def largest_value(sweep: SweepConfig, name: str) -> float:
    """The largest value of a numeric field in a sweep."""
    return max(reachable(sweep, name))
