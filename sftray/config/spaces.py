"""Search spaces: what values a field of a trial may take, and where in them a value lies."""

from __future__ import annotations

import itertools
import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from sftray.config.checks import is_number, require

Value = str | int | float | bool | None | tuple[str, ...]
"""What a field of a trial holds."""
FURTHER = 1 / 3
"""A range is widened by this share of itself, in the logarithm on a log axis."""


@dataclass(frozen=True)
class _Range:
    """All numbers from `low` to `high`, both included."""

    low: float
    high: float

    fitting: ClassVar[bool] = False
    near_end: ClassVar[float] = 0.10
    """At the end within this share of the space; a sampler rarely hits the very end."""

    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        return self.low, self.high

    corners = param_ends = ends
    """Where every value is possible if these are; the range from which a sampler draws."""

    def order(self) -> Sequence[float]:
        """None: the values are numbers that a sampler takes as they are."""
        return ()

    def nearest(self, wanted: Value) -> float:
        """The value nearest to a number."""
        assert is_number(wanted)
        return min(max(wanted, self.low), self.high)

    def share(self, value: float) -> float:
        """How far through the space a value lies, 0 … 1."""
        return (value - self.low) / (self.high - self.low)

    def widened(self, end: float, *, upper: bool) -> Self:
        """The space with another end."""
        return replace(self, **{"high" if upper else "low": end})

    def as_code(self) -> str:
        """As a sweep file has it."""
        return f"{self._name()}({value_code(self.low)}, {value_code(self.high)})"

    def _name(self) -> str:
        return type(self).__name__.lower()

    def _require_ends(self, kind: type | types.UnionType, must: str, fix: str) -> None:
        for end, value in (("low", self.low), ("high", self.high)):
            fits = is_number(value) and isinstance(value, kind) and math.isfinite(value)
            hint = f"write {value} without quotes" if isinstance(value, str) else fix
            require(fits, self._name(), f"{end}={value!r}", must, hint)
        got = f"low={self.low}, high={self.high}"
        require(
            self.low < self.high, self._name(), got, "low < high", "swap them, or hold one value"
        )


@dataclass(frozen=True)
class Uniform(_Range):
    """A float drawn evenly from [low, high], evenly in its logarithm if `log`."""

    log: bool = False

    def __post_init__(self) -> None:
        self._require_ends(int | float, "a finite number", "take the last value worth a trial")
        fix = "use uniform, or begin above 0"
        require(not self.log or self.low > 0, self._name(), f"low={self.low}", "low > 0", fix)

    def _name(self) -> str:
        return f"log{super()._name()}" if self.log else super()._name()

    def finite_values(self) -> None:
        """Every value of the space; None: they are without number."""

    def contains(self, value: object) -> bool:
        return is_number(value) and self.low <= value <= self.high

    def at(self, share: float) -> float:
        """The value a share 0 … 1 of the way through the space."""
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + (self.high - self.low) * share

    def share(self, value: float) -> float:
        """How far through the space a value lies, 0 … 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return super().share(value)

    def beyond(self, *, upper: bool) -> float:
        """The next end to search to, in two digits at most."""
        if self.log:
            ratio = (self.high / self.low) ** FURTHER
            return float(f"{self.high * ratio if upper else self.low / ratio:.1g}")
        step = (self.high - self.low) * FURTHER
        return float(f"{self.high + step if upper else self.low - step:.2g}")


@dataclass(frozen=True)
class RandInt(_Range):
    """A whole number drawn evenly from low … high, both included (as in Optuna)."""

    low: int
    high: int

    log: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._require_ends(int, "a whole number", "use uniform for other numbers")

    def finite_values(self) -> Sequence[int]:
        """Every value of the space."""
        return range(self.low, self.high + 1)

    def contains(self, value: object) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high

    def at(self, share: float) -> int:
        """The value a share 0 … 1 of the way through the space."""
        return self.low + int(share * (self.high - self.low + 1))

    def beyond(self, *, upper: bool) -> float:
        """The next end to search to."""
        step = math.ceil((self.high - self.low) * FURTHER)
        return self.high + step if upper else self.low - step


@dataclass(frozen=True)
class Choice:
    """One of the listed values."""

    values: tuple[Value, ...]
    fitting: bool = False
    """Keep only what the dataset has rows for; see `fitting`."""

    log: ClassVar[bool] = False
    near_end: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        values = tuple(tuple(v) if isinstance(v, list) else v for v in self.values)
        object.__setattr__(self, "values", values)
        require(len(values) > 0, "choice", "no values", "at least one value")
        for first, second in itertools.combinations(values, 2):  # 1, 1.0 and True are equal
            got = f"{first!r} and {second!r}"
            fix = "leave one of them out"
            require(label(first) != label(second), "choice", got, "different values", fix)

    def _numbers(self) -> list[float]:
        """The values in order; none where one of them is no number."""
        numbers = list(filter(is_number, self.values))
        return sorted(numbers) if len(numbers) == len(self.values) else []

    def ends(self) -> tuple[float, float] | None:
        """The lowest and the highest value; None where they have no order."""
        numbers = self._numbers()
        return (numbers[0], numbers[-1]) if numbers else None

    def finite_values(self) -> Sequence[Value]:
        """Every value of the space, as listed."""
        return self.values

    corners = finite_values

    def order(self) -> Sequence[float]:
        """The values in order where three or more are numbers: a sampler draws a place in it, and
        learns that neighbours are alike. None of other choices: it draws a label."""
        return self._numbers() if len(self.values) > 2 else ()

    def param_ends(self) -> tuple[float, float] | None:
        """The least and the greatest parameter that a sampler draws; None where it draws labels."""
        return (0, len(self.values) - 1) if self.order() else None

    def contains(self, value: object) -> bool:
        return label(value) in map(label, self.values)

    def nearest(self, wanted: Value) -> Value:
        """The value that is equal, or has that label; else of numbers the one nearest in the
        logarithm, and of other values the first."""
        equal = [value for value in self.values if label(value) == label(wanted)]
        if equal or not (self._numbers() and is_number(wanted)):
            return (equal or self.values)[0]
        scale = wanted or 1e-9
        numbers = filter(is_number, self.values)
        return min(numbers, key=lambda value: abs(math.log((value or 1e-9) / scale)))

    def at(self, share: float) -> Value:
        """The value a share 0 … 1 of the way through the list."""
        return self.values[int(share * len(self.values))]

    def share(self, value: float) -> float:
        """How far through the ordered numbers a value lies, 0 … 1."""
        return self._numbers().index(value) / (len(self.values) - 1)

    def beyond(self, *, upper: bool) -> float:
        """What would come next: by the last ratio where all ratios are equal, else by the last
        difference."""
        values = self._numbers()[:: 1 if upper else -1]
        ratios = {b / a if a else math.inf for a, b in itertools.pairwise(values)}
        last, before = values[-1], values[-2]
        if len(ratios) > 1 or not before:
            return last + (last - before)
        following = last * last / before
        whole = isinstance(last, int) and following == int(following)
        return int(following) if whole else following

    def widened(self, end: float, *, upper: bool) -> Choice:
        """The list with another value at an end."""
        return Choice((*self.values, end) if upper else (end, *self.values))

    def as_code(self) -> str:
        """As a sweep file has it."""
        name = "fitting" if self.fitting else "choice"
        return f"{name}([{', '.join(map(value_code, self.values))}])"


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


def choice(values: Sequence[Value]) -> Choice:
    """Search among the listed values."""
    return Choice(_listed("choice", values))


def fitting(batch_sizes: Sequence[int]) -> Choice:
    """Search among those of the batch sizes that leave enough optimizer steps on the dataset.

    Where fewer than two do, the largest powers of two that do (`trial_plan.resolve_batch_sizes`).
    """
    return Choice(_listed("fitting", batch_sizes), fitting=True)


def _listed(name: str, values: Sequence[Value]) -> tuple[Value, ...]:
    must = f"a list, as in {name}([8, 16])"
    require(isinstance(values, list | tuple), name, repr(values), must)
    return tuple(values)


def label(value: object) -> str | float | None:
    """A choice as Optuna takes it: scalars as they are, lists and the like by their JSON."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def value_code(value: object) -> str:
    """As one writes it: 1e-05 as 1e-5, text in double quotes."""
    if isinstance(value, str):
        quoted = repr(value)
        return f'"{value}"' if quoted == f"'{value}'" and '"' not in value else quoted
    if isinstance(value, float):
        return repr(value).replace("e-0", "e-")
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{value_code(k)}: {value_code(v)}' for k, v in value.items())}}}"
    if isinstance(value, tuple | list):
        inner = ", ".join(map(value_code, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)
