"""Base and winner measured on the same conversations: values and intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sftray.metrics import exact_match
from sftray.winner.measured import measured_text, of_metric, of_ratio


def test_an_interval_is_that_of_the_delta_method_where_conversations_are_many() -> None:
    random = np.random.default_rng(5)
    tokens = random.integers(5, 60, size=400).astype(float)
    base = tokens * random.normal(2.0, 0.5, size=400)
    winner = base - tokens * random.normal(0.3, 0.1, size=400)
    found = of_ratio("eval loss", base.tolist(), winner.tolist(), tokens.tolist())
    for name, sums in (("base", base), ("winner", winner), ("difference", winner - base)):
        ours, ratio = found[name], sums.sum() / tokens.sum()  # type: ignore[literal-required]
        half = 1.96 * np.sqrt(((sums - ratio * tokens) ** 2).sum()) / tokens.sum()  # Cochran 1977
        assert ours["value"] == pytest.approx(ratio)
        assert ours["low"] == pytest.approx(ratio - half, abs=0.15 * half)
        assert ours["high"] == pytest.approx(ratio + half, abs=0.15 * half)
    assert found["difference"]["high"] < 0


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(6)
    held = 0
    for _ in range(200):
        right = (random.random(120) < 0.3).astype(float).tolist()
        one = of_ratio("x", right, right, [1.0] * 120)["winner"]
        held += one["low"] <= 0.3 <= one["high"]  # type: ignore[operator]
    assert 180 <= held <= 198


def test_a_metric_that_is_no_mean_has_no_interval() -> None:
    def longest(answers: Sequence[str], references: Sequence[str]) -> float:
        return float(max(map(len, answers)))

    found = of_metric("m:longest", longest, ["a", "bb"], ["ccc", "d"], ["", ""])
    assert (found["base"]["value"], found["winner"]["value"]) == (2.0, 3.0)
    assert found["difference"] == {"value": 1.0, "low": None, "high": None}
    text = "m:longest of 2 conversations: base 2.0000, adapter 3.0000, difference +1.0000"
    assert measured_text(found, "adapter") == text


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_a_share_has_the_interval_of_newcombes_table(
    right: int, number: int, low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    answers, references = ["a"] * right + ["b"] * (number - right), ["a"] * number
    found = of_metric("m:e", exact_match, answers, references, references)
    interval = [found["base"]["low"], found["base"]["high"]]
    assert interval == pytest.approx([low, high], abs=6e-5)
    assert found["winner"] == {
        "value": 1.0,
        "low": pytest.approx(1 / (1 + 1.96**2 / number)),
        "high": pytest.approx(1),
    }
