"""How the loss of each source moves with a share, from trials whose losses are formulas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_trials import ROWS, TRIAL

from sftray.config import DataConfig, Space, SweepConfig, choice, loguniform, uniform
from sftray.config.config_json import to_json
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.results import Results
from sftray.results.findings import learn, text
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records

DATA = DataConfig(sources=[("a.jsonl", 1.0), ("b.jsonl", 1.0)])


def losses_at(share: float, rate: float) -> dict[str, float]:
    """b falls with its share, a rises; a wrong rate costs both."""
    return {"a": 2 + share + rate, "b": 3 - 2 * share + rate}


def found_on(axes: dict[str, Space], points: list[dict[str, float]]) -> Results:
    """A sweep of trials that came to their end, each after the one before."""
    sweep = SweepConfig("x", DATA, TRIAL, axes, scheduler="none")
    plan, events = planner(sweep, ROWS, execution=ONE_ROW), list[dict[str, Any]]()
    for number, point in enumerate(points):
        trial = {"trial": f"t{number:04d}"}
        events.append({"event": "trial_suggested", "point": point, **trial})
        steps = plan(sweep.trial.at(point)).steps
        for step in (0, steps):
            share, rate = point["mixture.b"] * (step > 0), point["learning_rate"]
            of = losses_at(share, rate)
            rows = step * sweep.trial.effective_batch_size
            metrics = {
                "step": step, "rows": rows, "tokens": rows, "supervised_tokens": rows,
                "seconds": rows, "eval_loss": sum(of.values()) / 2,
                "eval_loss_by_source": [(name, loss, 100) for name, loss in of.items()],
            }  # fmt: skip
            events.append({"event": "result", "step": step, "metrics": metrics, **trial})
        events.append({"event": "trial_ended", "outcome": "completed", "message": "", **trial})
    records = Records(events)  # type: ignore[arg-type]
    config = json.loads(json.dumps(to_json(sweep)))
    record = {"config": config, "search_space": config["search_space"]}
    record |= {"data": {"train": {"rows": ROWS}}, "started": "2025-01-01T00:00:00Z"}
    return Results("nowhere", record, records.trials, leaderboard(sweep, records))


def points_of(shares: list[float], rates: list[float]) -> list[dict[str, float]]:
    return [{"mixture.b": share, "learning_rate": rate} for share in shares for rate in rates]


@pytest.mark.parametrize(
    "space", [uniform(0, 0.9), choice([0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9])]
)
def test_a_range_has_three_parts_with_the_losses_of_the_best_trial_of_each(space: Space) -> None:
    rates = {"learning_rate": loguniform(1e-3, 1e-1)}
    shares = [0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9]
    found = found_on({"mixture.b": space, **rates}, points_of(shares, [1e-3, 1e-1]))
    (effect,) = learn(found).shares
    assert [(part.low, part.high, part.trials) for part in effect.parts] == [
        (0, 0.2, 6), (0.35, 0.5, 4), (0.7, 0.9, 6)
    ]  # fmt: skip
    for part in effect.parts:
        assert part.by_source == pytest.approx(losses_at(part.high, 1e-3))  # b counts for more
        assert part.eval_loss == pytest.approx(sum(part.by_source.values()) / 2)
    said = " ".join(text(learn(found)).split())
    assert "shares mixture.b, from 16 losses at the end of the budget" in said
    assert "0 … 0.2: a 2.2010, b 2.6010 (t0004, the best of 6)" in said


def test_a_choice_of_few_shares_has_a_part_each_and_one_share_says_nothing() -> None:
    rates = {"learning_rate": loguniform(1e-3, 1e-1)}
    axes = {"mixture.b": choice([0, 0.5]), **rates}
    found = found_on(axes, points_of([0, 0.5], [1e-2, 1e-3]))
    assert found.trials["mixture.b"].tolist() == [0, 0, 0.5, 0.5]
    (effect,) = learn(found).shares
    assert [(part.low, part.high, part.best) for part in effect.parts] == [
        (0, 0, "t0001"), (0.5, 0.5, "t0003")
    ]  # fmt: skip
    assert "0.5: a 2.5010, b 2.0010" in text(learn(found))
    wide = found_on({"mixture.b": uniform(0, 0.8), **rates}, points_of([0, 0.8], [1e-3]))
    assert "mixture.b: 0.8 is at the upper edge of its range: widen it to 0.9" in text(learn(wide))
    assert learn(found_on(axes, points_of([0.5], [1e-2, 1e-3]))).shares == ()
