"""Search spaces: what values a field of a trial may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sftray.config.checks import is_number, require


@dataclass(frozen=True)
class Uniform:
    """A float drawn evenly from [low, high], evenly in its logarithm if `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        name = "loguniform" if self.log else "uniform"
        require(self.low < self.high, name, f"low={self.low}, high={self.high}", "low < high")
        require(not self.log or self.low > 0, name, f"low={self.low}", "low > 0")

    def contains(self, value: Any) -> bool:
        return is_number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class RandInt:
    """A whole number drawn evenly from low … high, both included (as in Optuna)."""

    low: int
    high: int

    def __post_init__(self) -> None:
        require(self.low < self.high, "randint", f"low={self.low}, high={self.high}", "low < high")

    def contains(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of the listed values."""

    values: tuple[Any, ...]
    fitting: bool = False
    """Keep only what the dataset has rows for; see `fitting`."""

    def __post_init__(self) -> None:
        require(len(self.values) > 0, "choice", "no values", "at least one value")
        require(
            len(set(map(repr, self.values))) == len(self.values),
            "choice",
            str(list(self.values)),
            "different values",
        )

    def contains(self, value: Any) -> bool:
        return value in self.values


Space = Uniform | RandInt | Choice


def uniform(low: float, high: float) -> Uniform:
    """Search evenly between low and high."""
    return Uniform(low, high)


def loguniform(low: float, high: float) -> Uniform:
    """Search evenly in the logarithm, as learning rates want."""
    return Uniform(low, high, log=True)


def randint(low: int, high: int) -> RandInt:
    """Search whole numbers from low to high, both included."""
    return RandInt(low, high)


def choice(values: Sequence[Any]) -> Choice:
    """Search among the listed values."""
    return Choice(tuple(values))


def fitting(batch_sizes: Sequence[int]) -> Choice:
    """Search among those of the batch sizes that leave enough optimizer steps on the dataset.

    Where fewer than two do, the largest powers of two that do (`trial_plan.resolve_batch_sizes`).
    """
    return Choice(tuple(batch_sizes), fitting=True)
