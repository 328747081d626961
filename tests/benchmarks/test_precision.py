"""What benchmarks/precision.py says of two precisions, on losses of which it is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from precision import _kendall, _regret  # noqa: E402

FIRST = np.array([3.0, 1.0, 2.0, np.nan])


def test_the_order_is_that_of_points_that_diverged_in_neither() -> None:
    assert _kendall(FIRST, np.array([30.0, 10.0, 20.0, 5.0])) == 1
    assert _kendall(FIRST, np.array([1.0, 3.0, 2.0, 5.0])) == -1
    assert _kendall(FIRST, np.array([3.0, 2.0, 1.0, 5.0])) == pytest.approx(1 / 3)


def test_the_regret_is_what_the_best_of_the_one_loses_in_the_other() -> None:
    assert _regret(FIRST, np.array([0.5, 0.75, 1.0, np.nan])) == 0.25
    assert _regret(FIRST, FIRST) == 0
    assert np.isnan(_regret(FIRST, np.array([1.0, np.nan, 2.0, 3.0])))
