"""How far the best value lies from the ends of what was searched.

A best value at an end of its range says that the search was cut off there: the optimum may lie
beyond. Log axes are measured in the logarithm, ordered choices by their index.
"""

from __future__ import annotations

from dataclasses import dataclass

from sftray.config import Space, TrialConfig
from sftray.config.checks import is_number
from sftray.config.points import short
from sftray.config.shares import source_of
from sftray.errors import ConfigError
from sftray.results.findings.comparisons import ComparedTrial, Sweep


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
        _edge(sweep, best, name, value, space, ends)
        for name, space in sweep.spaces.items()
        if is_number(value := best.point[name]) and (ends := space.ends()) and ends[0] < ends[1]
    )


def _edge(
    sweep: Sweep,
    best: ComparedTrial,
    name: str,
    value: float,
    space: Space,
    ends: tuple[float, float],
) -> Edge:
    position = space.share(value)
    upper = position >= 1 - space.near_end
    at = "lower" if position <= space.near_end else "upper" if upper else None
    beyond = None if at is None else space.beyond(upper=upper)
    if beyond is not None and beyond >= 1 and source_of(name) is not None:
        beyond = (ends[1] + 1) / 2  # a share is below 1
    widen_to = beyond if beyond is not None and _can_run(sweep, best, name, beyond) else None
    return Edge(name, value, *ends, position, at, widen_to, _says(name, value, at, widen_to))


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
