"""What a field's value must be, as its annotation says: `Annotated[int | None, AtLeast(1)]`.

Text behind a bound is what a message says of None, as "or None for all".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Bound:
    """What a field's value must be, beside its type."""

    holds: Callable[..., bool]
    must: str


def Between(low: float, high: float, unit: str = "") -> Bound:
    """A number from low to high, both included."""
    return Bound(lambda value: low <= value <= high, f"{low:,} … {high:,} {unit}".rstrip())


def AtLeast(low: float) -> Bound:
    """A finite number of at least `low`."""
    whole = "a whole number of " if isinstance(low, int) else ""
    return Bound(lambda value: low <= value < math.inf, f"{whole}at least {low:g}")


def Above(low: float, high: float = math.inf) -> Bound:
    """A finite number above `low`, and below `high`."""
    must = f"a finite number above {low}" if high == math.inf else f"{low} < x < {high}"
    return Bound(lambda value: low < value < high, must)


def Share() -> Bound:
    """A number from 0 to below 1."""
    return Bound(lambda value: 0 <= value < 1, "0 <= x < 1")


def Shares() -> Bound:
    """Numbers between 0 and 1, ascending."""

    def holds(values: Sequence[float]) -> bool:
        inside = all(isinstance(one, int | float) and 0 < one < 1 for one in values)
        return inside and list(values) == sorted(set(values))

    return Bound(holds, "ascending numbers between 0 and 1")


def ShareByName() -> Bound:
    """Numbers from 0 to below 1 by text."""

    def holds(shares: Mapping[object, float]) -> bool:
        numbers = all(type(one) in (int, float) and 0 <= one < 1 for one in shares.values())
        return numbers and all(isinstance(name, str) and name for name in shares)

    return Bound(holds, "names with shares 0 <= x < 1")


def OneOf(*names: str) -> Bound:
    """One of some names."""
    return Bound(lambda value: value in names, f"one of {', '.join(names)}")


def Maps(*names: str) -> Bound:
    """Texts by text, each one of some names and none twice."""

    def holds(value: object) -> bool:
        if not isinstance(value, Mapping) or not value:
            return False
        known = all(isinstance(key, str) and value[key] in names for key in value)
        return known and len(set(value.values())) == len(value)

    return Bound(holds, f"names mapped to one each of {', '.join(names)}")


def Weighted() -> Bound:
    """Texts with weights of at least 0, not all of them 0, each text once."""

    def holds(pairs: object) -> bool:
        if not isinstance(pairs, tuple | list):
            return False
        if not all(isinstance(one, tuple | list) and len(one) == 2 for one in pairs):
            return False
        if not all(isinstance(text, str) and text.strip() for text, _ in pairs):
            return False
        weights = [weight for _, weight in pairs]
        if not all(type(one) in (int, float) and 0 <= one < math.inf for one in weights):
            return False
        return len({text for text, _ in pairs}) == len(pairs) and (not pairs or any(weights))

    return Bound(holds, "pairs of a path and a weight of 0 or more, not all 0, each path once")


def Either(one: Bound, other: Bound) -> Bound:
    """What one of two bounds holds of."""
    return Bound(
        lambda value: one.holds(value) or other.holds(value), f"{one.must}, or {other.must}"
    )


def Matches(pattern: str, words: str) -> Bound:
    """Text that a regular expression matches as a whole, which is `words`."""
    return Bound(lambda value: re.fullmatch(pattern, value) is not None, words)


def Seed() -> Bound:
    """A whole number that all generators take: PyTorch's, and numpy's of 32 bits."""
    return Between(0, MAX_SEED)


def Date() -> Bound:
    """A date as YYYY-MM-DD."""

    def holds(value: str) -> bool:
        try:
            return date.fromisoformat(value).isoformat() == value
        except ValueError:
            return False

    return Bound(holds, "YYYY-MM-DD, a date that there is")


def Filled() -> Bound:
    """Text that is not empty."""
    return Bound(lambda value: value.strip() != "", "a text that is not empty")


def Texts(words: str) -> Bound:
    """A list of texts, none of them empty."""
    return Bound(
        lambda texts: (
            not isinstance(texts, str)
            and all(isinstance(one, str) and one.strip() for one in texts)
        ),
        f"a list of {words}, none of them empty",
    )
