"""Which hyper-parameter decides, in simulated sweeps of the real search."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "tests" / "fakes")
    import importance

    return importance.named


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "least"),
    [
        ("learning rate, of 3 axes", 6),
        ("batch of 4 choices, of 3 axes", 6),
        ("learning rate, of 12 axes", 5),
    ],
)
def test_the_axis_that_decides_is_named_under_tpe_and_asha(named, case: str, least: int) -> None:  # type: ignore[no-untyped-def]
    found, wrong = named(case, trials=24, sweeps=10, asha=True)
    assert found >= least  # 36 of 60 are 6 of 10
    assert wrong <= 1


@pytest.mark.slow
@pytest.mark.parametrize("case", ["nothing, of 3 axes", "nothing, of 12 axes"])
def test_where_nothing_decides_hardly_an_axis_is_named(named, case: str) -> None:  # type: ignore[no-untyped-def]
    assert named(case, trials=24, sweeps=10, asha=True)[1] <= 2
