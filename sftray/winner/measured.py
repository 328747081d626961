"""Base and winner measured on the same conversations, each with an interval over them.

Promise: the interval is a percentile bootstrap (Efron 1979) that draws whole conversations, since
the tokens of one depend on each other; that of the difference draws the same ones for both. A share
of right answers has Wilson's interval. Price: numpy, 0.1 s for 1,000 conversations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from sftray.data.source.eval_split import TESTED_FROM
from sftray.metrics import Metric
from sftray.results.records import Floats

DRAWS = 2000
"""Of conversations, with replacement."""
LEVELS = (2.5, 97.5)
AT_ONCE = 2**22
"""Numbers drawn at once."""


class Interval(TypedDict):
    """A value, and its interval of 95 %; None where there is none."""

    value: float
    low: float | None
    high: float | None


class Measured(TypedDict):
    """What base and winner got."""

    what: str
    """"eval loss", or the metric's name."""
    number: int
    """Of conversations."""
    base: Interval
    winner: Interval
    difference: Interval
    """The winner's less the base's."""


def of_ratio(
    what: str, base: Sequence[float], winner: Sequence[float], weights: Sequence[float]
) -> Measured:
    """From sums by conversation over weights: token losses over tokens, or scores over ones."""
    sums, over = np.array([base, winner], dtype=float), np.array(weights, dtype=float)
    sums = np.vstack([sums, sums[1] - sums[0]])
    values = (sums.sum(1) / over.sum()).tolist()
    lows, highs = np.percentile(_drawn(sums, over), LEVELS, axis=0).tolist()
    each: list[Interval] = [
        {"value": value, "low": low, "high": high}
        for value, low, high in zip(values, lows, highs, strict=True)
    ]
    return {
        "what": what,
        "number": len(over),
        "base": each[0],
        "winner": each[1],
        "difference": each[2],
    }


def _drawn(sums: Floats, weights: Floats) -> Floats:
    """The ratios of each draw of conversations, [DRAWS, sums]."""
    random, number = np.random.default_rng(0), len(weights)
    share, ratios = np.full(number, 1 / number), []
    for start in range(0, DRAWS, step := max(1, AT_ONCE // number)):
        times = random.multinomial(number, share, size=min(step, DRAWS - start)).astype(float)
        ratios.append((times @ sums.T) / (times @ weights)[:, None])
    return np.concatenate(ratios)


def of_metric(
    name: str,
    metric: Metric,
    base: Sequence[str],
    winner: Sequence[str],
    references: Sequence[str],
) -> Measured:
    """A metric's scores. There are intervals where it is the mean of its scores of single answers;
    else it is called for the whole alone."""
    whole = [float(metric(list(answers), list(references))) for answers in (base, winner)]
    single = [
        [float(metric([one], [r])) for one, r in zip(answers, references, strict=True)]
        for answers in (base, winner)
    ]
    if np.allclose([np.mean(scores) for scores in single], whole):
        found = of_ratio(name, single[0], single[1], [1.0] * len(references))
        if {*single[0], *single[1]} <= {0.0, 1.0}:
            found["base"], found["winner"] = (_share(sum(of), len(of)) for of in single)
        return found
    values = (*whole, whole[1] - whole[0])
    plain: list[Interval] = [{"value": value, "low": None, "high": None} for value in values]
    return {
        "what": name,
        "number": len(references),
        "base": plain[0],
        "winner": plain[1],
        "difference": plain[2],
    }


def _share(right: float, number: int) -> Interval:
    """So many of a number, with Wilson's interval (1927), which none and all of them have, too."""
    share, square = right / number, 1.96**2 / number
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return {"value": share, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def test_set_text(one: Measured | None, winner: str, conversations: int) -> str:
    """What the test set says; or that there is none, and why. conversations: in all."""
    if one is not None:
        return f"On a test set that no decision has seen: {measured_text(one, winner)}."
    why = "data.test_fraction=0.05 holds one out"
    if conversations < TESTED_FROM:
        why = f"{conversations:,} conversations are fewer than the {TESTED_FROM} that it takes"
    return (
        "There is no test set: the evaluation set has chosen checkpoint, point and winner, so its "
        f"loss on it is too low ({why})."
    )


def interval_text(one: Interval, form: str = ".4f") -> str:
    """`3.3625 (3.3010 to 3.4240)`."""
    if one["low"] is None or one["high"] is None:
        return format(one["value"], form)
    return f"{one['value']:{form}} ({one['low']:{form}} to {one['high']:{form}})"


def measured_text(one: Measured, winner: str) -> str:
    """In one sentence."""
    sure = "; 95 %, over conversations" if one["base"]["low"] is not None else ""
    difference = one["difference"]
    return (
        f"{one['what']} of {one['number']:,} conversations: base {interval_text(one['base'])}, "
        f"{winner} {interval_text(one['winner'])}, difference "
        f"{interval_text(difference, '+.4f')}{sure}"
    )
