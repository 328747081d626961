"""What a trial in a bank costs: its rows, whatever trained beside it."""

from __future__ import annotations

from typing import Any

import pytest
from events import an_event

from sftray.results.records import Records


def told(trial: str, rows: int, gpu_seconds: float, **start: Any) -> list[Any]:
    metrics = {"tokens": 100 * rows, "supervised_tokens": rows, "eval_loss": 2.0, "seconds": 9.0}
    first = {**metrics, "step": 0, "rows": 0, "gpu_seconds": 0.0, **start}
    last = {**metrics, "step": 10, "rows": rows, "gpu_seconds": gpu_seconds}
    return [
        an_event("trial_suggested", trial, point={}),
        an_event("result", trial, step=0, metrics=first),
        an_event("result", trial, step=10, metrics=last),
    ]


def test_two_trials_of_equal_rows_cost_the_same_in_a_bank() -> None:
    """One trained alone (12 s), one beside three others (3 s of the passes' time)."""
    banked = {"bank_slots": 4}
    records = Records([*told("t0000", 40, 12.0, **banked), *told("t0001", 40, 3.0, **banked),
                       *told("t0002", 20, 5.0, **banked)])  # fmt: skip
    costs = {one.trial: one.gpu_seconds for one in records.trials}
    assert costs["t0000"] == costs["t0001"] == pytest.approx(8.0)
    assert costs["t0002"] == pytest.approx(4.0)
    assert sum(costs.values()) == pytest.approx(20.0), "what the bank took"


def test_outside_of_a_bank_a_trial_costs_its_own_time() -> None:
    records = Records([*told("t0000", 40, 12.0), *told("t0001", 40, 3.0)])
    assert [one.gpu_seconds for one in records.trials] == [12.0, 3.0]
