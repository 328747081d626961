"""How far the best value lies from the ends of what was searched.

A best value at an end of its range says that the search was cut off there: the optimum may lie
beyond. Log axes are measured in the logarithm, ordered choices by their index.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sftray.config import Choice, RandInt, Space, TrialConfig, Uniform
from sftray.config.checks import is_number
from sftray.config.points import short
from sftray.errors import ConfigError
from sftray.results.findings.comparisons import ComparedTrial, Sweep

NEAR = 0.10
"""At the edge within this share of the range; a sampler rarely hits the very end."""
FURTHER = 1 / 3
"""A range is widened by this share of itself, in the logarithm on a log axis."""


@dataclass(frozen=True)
class Edge:
    """Where the best trial stands on a numeric axis."""

    name: str
    best: float
    low: float
    high: float
    position: float
    """0 at the lower end, 1 at the upper."""
    at: str | None
    """"lower" or "upper" where it is at an end."""
    widen_to: float | None
    """The end to search to next; None where there is nothing to widen, or no way to."""
    says: str


def edges(sweep: Sweep, best: ComparedTrial) -> tuple[Edge, ...]:
    """The best trial's place on every numeric axis."""
    return tuple(
        _edge(sweep, best, name, space)
        for name, space in sweep.spaces.items()
        if is_number(best.point[name]) and _ends(space) is not None
    )


def _ends(space: Space) -> tuple[float, float] | None:
    """The lowest and highest value; None without an order, or with one value."""
    if not isinstance(space, Choice):
        return space.low, space.high
    if len(space.values) < 2 or not all(map(is_number, space.values)):
        return None
    return min(space.values), max(space.values)


def _edge(sweep: Sweep, best: ComparedTrial, name: str, space: Space) -> Edge:
    ends, value = _ends(space), best.point[name]
    assert ends is not None
    position = _position(space, value)
    at = _at(space, position)
    beyond = None if at is None else _beyond(space, upper=at == "upper")
    widen_to = beyond if beyond is not None and _can_run(sweep, best, name, beyond) else None
    return Edge(name, value, *ends, position, at, widen_to, _says(name, value, at, widen_to))


def _position(space: Space, value: float) -> float:
    if isinstance(space, Choice):
        return sorted(space.values).index(value) / (len(space.values) - 1)
    if isinstance(space, Uniform) and space.log:
        return math.log(value / space.low) / math.log(space.high / space.low)
    return (value - space.low) / (space.high - space.low)


def _at(space: Space, position: float) -> str | None:
    near = 0.0 if isinstance(space, Choice) else NEAR
    if position <= near:
        return "lower"
    return "upper" if position >= 1 - near else None


def _beyond(space: Space, *, upper: bool) -> float:
    """The next end to search to, in two digits at most."""
    if isinstance(space, Choice):
        return _next_choice(sorted(space.values, reverse=not upper))
    if isinstance(space, Uniform) and space.log:
        ratio = (space.high / space.low) ** FURTHER
        return float(f"{space.high * ratio if upper else space.low / ratio:.1g}")
    step = (space.high - space.low) * FURTHER
    if isinstance(space, RandInt):
        return space.high + math.ceil(step) if upper else space.low - math.ceil(step)
    return float(f"{space.high + step if upper else space.low - step:.2g}")


def _next_choice(values: Sequence[Any]) -> float:
    """What would come after the last: by the last ratio where all ratios are equal, else by the
    last difference."""
    ratios = {b / a if a else math.inf for a, b in itertools.pairwise(values)}
    last, before = values[-1], values[-2]
    if len(ratios) > 1 or not before:
        return float(last + (last - before)) if isinstance(last, float) else last + (last - before)
    following = last * last / before
    return int(following) if isinstance(last, int) and following == int(following) else following


def _can_run(sweep: Sweep, best: ComparedTrial, name: str, value: float) -> bool:
    """Whether the best trial could be run with that value."""
    if isinstance(best.point[name], int) and value != int(value):
        return False
    try:
        config: TrialConfig = best.config.at({name: value})
        sweep.plan(config)
    except ConfigError:
        return False
    return True


def _says(name: str, value: float, at: str | None, widen_to: float | None) -> str:
    if at is None:
        return f"{name}: {short(value)} lies within its range"
    edge = f"{name}: {short(value)} is at the {at} edge of its range"
    if widen_to is None:
        return (
            f"{edge}, and a trial cannot have less"
            if at == "lower"
            else (f"{edge}, and a trial on this data cannot have more")
        )
    return f"{edge}: widen it to {short(widen_to)}"
