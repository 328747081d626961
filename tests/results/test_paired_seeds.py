"""Differences in pairs of one seed, against published tables and a least-squares fit by hand."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from sftray.results.paired_seeds import MIN_SEEDS, compare, critical_value

STUDENT = {1: 12.706, 2: 4.303, 4: 2.776, 10: 2.228, 30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980}
"""Two-sided 95 %, from the usual tables."""
TUKEY = {
    (3, 2): 8.331, (3, 4): 5.040, (3, 10): 3.877, (4, 20): 3.958, (5, 60): 3.977, (10, 30): 4.824
}  # fmt: skip
"""The studentised range at 95 %, from the usual tables."""


@pytest.mark.parametrize("freedom", STUDENT)
def test_of_two_points_it_is_students_t(freedom: int) -> None:
    assert critical_value(2, freedom) == pytest.approx(STUDENT[freedom], abs=6e-4)


@pytest.mark.parametrize(("points", "freedom"), TUKEY)
def test_of_more_points_it_is_tukeys_range(points: int, freedom: int) -> None:
    wanted = TUKEY[points, freedom]
    assert critical_value(points, freedom) * math.sqrt(2) == pytest.approx(wanted, abs=1e-3)


def test_two_points_are_compared_as_a_paired_t_test_does() -> None:
    a, b = [1.0, 1.1, 1.3, 1.2], [1.1, 1.25, 1.35, 1.31]
    pairs = compare({"a": dict(enumerate(a)), "b": dict(enumerate(b))}, "a")
    assert pairs is not None
    apart = [two - one for one, two in zip(a, b, strict=True)]
    found = pairs.differences["b"]
    assert found.above == pytest.approx(statistics.fmean(apart))
    half = 3.182 * statistics.stdev(apart) / math.sqrt(4)
    assert found.half_width == pytest.approx(half, rel=1e-3)
    assert found.worse


def test_a_run_that_is_missing_does_not_shift_the_difference() -> None:
    """Of b the best seed is missing: its mean is too high by that, the difference is not."""
    seeds = {0: 0.0, 1: 0.5, 2: -0.5, 3: 0.1}
    rng = np.random.default_rng(0)
    losses = {
        name: {seed: 1 + level + moved + rng.normal(0, 0.001) for seed, moved in seeds.items()}
        for name, level in {"a": 0.0, "b": 0.2, "c": 0.3}.items()
    }
    del losses["b"][2]
    pairs = compare(losses, "a")
    assert pairs is not None
    assert pairs.differences["b"].above == pytest.approx(0.2, abs=0.005)


def test_seeds_that_no_two_points_share_are_no_pairs() -> None:
    losses = {"a": {0: 1.0, 1: 1.1, 2: 1.05}, "b": {3: 2.0, 4: 2.1, 5: 2.05}}
    pairs = compare(losses, "a")
    assert pairs is not None
    assert pairs.own_spread == pytest.approx(0.05)
    assert pairs.differences["b"].worse


@pytest.mark.parametrize("seeds", [1, MIN_SEEDS - 1])
def test_with_fewer_than_three_seeds_nothing_is_decided(seeds: int) -> None:
    losses = {"a": {n: 1.0 + 1e-6 * n for n in range(seeds)}, "b": dict.fromkeys(range(seeds), 9.0)}
    pairs = compare(losses, "a")
    assert pairs is None or not pairs.differences["b"].worse


def test_the_lowest_of_equal_means_is_too_low_by_what_is_said() -> None:
    rng = np.random.default_rng(0)
    lowest, said = [], []
    for _ in range(2000):
        runs = rng.normal(0, 0.02, (3, 3)) + rng.normal(0, 0.02, 3)
        common = runs.mean()
        lowest.append(common - runs.mean(axis=1).min())
        best = str(int(runs.mean(axis=1).argmin()))
        pairs = compare({str(n): dict(enumerate(row)) for n, row in enumerate(runs.tolist())}, best)
        assert pairs is not None
        said.append(pairs.too_low)
    assert statistics.fmean(said) == pytest.approx(statistics.fmean(lowest), rel=0.1)


def test_equal_points_are_called_different_in_five_of_a_hundred_sweeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import pairing

    overlap, pairs = pairing.told_apart(0.02, 0.02, difference=0.0, seeds=3, sweeps=1000)
    assert 0.03 < pairs < 0.07
    assert overlap < pairs
    overlap, pairs = pairing.told_apart(0.033, 0.005, difference=0.033, seeds=3, sweeps=300)
    assert pairs > 0.9 > 0.3 > overlap
