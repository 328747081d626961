"""What a sweep has learned, from sweeps whose truth is known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fake_trials import ROWS, make_search, make_sweep, run
from hypothesis import given, settings
from hypothesis import strategies as st

from sftray.config import SweepConfig, TrialConfig, choice, loguniform, uniform
from sftray.config.config_json import to_json
from sftray.config.overrides import override
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.results import Results
from sftray.results.findings import Findings, learn, text
from sftray.results.findings.comparisons import comparisons, ranking, read
from sftray.results.findings.finding_costs import Cost, pareto_front
from sftray.results.findings.stopping import spearman
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.storage.journal import Event, Journal

BASE = 5.0
STARTED = "2025-01-01T00:00:00Z"
START = 1735689600.0

Point = dict[str, Any]


def record_of(sweep: SweepConfig, rows: int = ROWS) -> dict[str, Any]:
    config = json.loads(json.dumps(to_json(sweep)))
    data = {"train": {"rows": rows}}
    space = config["search_space"]
    return {"config": config, "search_space": space, "data": data, "started": STARTED}


def found_in(sweep: SweepConfig, events: Sequence[Event], rows: int = ROWS) -> Results:
    board = leaderboard(sweep, Records(events))
    return Results("nowhere", record_of(sweep, rows), Records(events).trials, board)


def story(
    sweep: SweepConfig,
    trials: Sequence[tuple[Point, Callable[[float], float], str | None, int | None]],
    rows: int = ROWS,
) -> Results:
    """A sweep of trials one after another: each its point, its loss by the share of its budget,
    its outcome, and the rows after which it had it (None: all)."""
    planned = planner(sweep, rows, execution=ONE_ROW)
    events: list[Event] = []
    clock = START
    for number, (point, loss, outcome, until) in enumerate(trials):
        name = f"t{number:04d}"
        config = sweep.trial.at(point)
        plan, batch = planned(config), config.effective_batch_size
        events.append({"event": "trial_suggested", "trial": name, "point": point})
        for step in (0, *plan.eval_steps):
            seen = step * batch
            if until is not None and seen > until:
                break
            value = BASE if step == 0 else loss(step / plan.steps)
            metrics = {"step": step, "rows": seen, "eval_loss": value, "tokens": 10 * seen}
            metrics |= {"supervised_tokens": 4 * seen, "seconds": seen / 2}
            metrics["gpu_seconds"] = seen / 2 * config.num_workers
            clock += 1
            event = {"event": "result", "trial": name, "step": step, "metrics": metrics}
            events.append({**event, "time": clock})
        if outcome:
            ended = {"event": "trial_ended", "trial": name, "outcome": outcome, "message": ""}
            events.append(ended)
    return found_in(sweep, events, rows)


def always(loss: float) -> Callable[[float], float]:
    return lambda share: loss


def falling(first: float, last: float) -> Callable[[float], float]:
    """From `first` at the start to `last` at the end, in a straight line."""
    return lambda share: first + (last - first) * share


def search(number: int, loss: Callable[[Point, random.Random], float], seed: int = 0) -> Results:
    """A sweep without ASHA of random points, whose losses are a formula of the point."""
    draw = random.Random(seed)
    points: list[Point] = [
        {
            "learning_rate": 10 ** draw.uniform(-5, -1),
            "effective_batch_size": draw.choice([2, 4, 8, 16]),
            "warmup_ratio": draw.uniform(0, 0.2),
        }
        for _ in range(number)
    ]
    sweep = make_sweep(
        scheduler="none",
        search_space={
            "learning_rate": loguniform(1e-5, 1e-1),
            "effective_batch_size": choice([2, 4, 8, 16]),
            "warmup_ratio": uniform(0, 0.2),
        },
    )
    return story(sweep, [(p, always(loss(p, draw)), "completed", None) for p in points])


def by_rate(point: Point, draw: random.Random) -> float:
    return 2 + abs(math.log10(point["learning_rate"] / 1e-3)) + draw.gauss(0, 0.05)


def by_batch(point: Point, draw: random.Random) -> float:
    return 2 + 0.3 * abs(math.log2(point["effective_batch_size"] / 4)) + draw.gauss(0, 0.02)


def by_chance(point: Point, draw: random.Random) -> float:
    return draw.gauss(3, 0.1)


# importance


@pytest.mark.parametrize("seed", range(3))
def test_the_axis_that_decides_is_found(seed: int) -> None:
    findings = learn(search(32, by_rate, seed))
    first, *others = findings.importances.axes
    assert first.name == "learning_rate"
    assert first.decides
    assert first.importance > 0.6
    assert not any(other.decides for other in others)
    assert sum(one.importance for one in findings.importances.axes) == pytest.approx(1)
    assert findings.verdict.startswith("learning_rate decides (importance ")


@pytest.mark.slow
def test_a_choice_that_decides_is_mostly_found_and_no_other_axis_in_its_place() -> None:
    learned = [learn(search(24, by_batch, seed)).importances.axes for seed in range(8)]
    assert sum(axes[0].name == "effective_batch_size" for axes in learned) >= 6
    deciding = [axis.name for axes in learned for axis in axes if axis.decides]
    assert deciding.count("effective_batch_size") >= 4
    assert len(deciding) <= deciding.count("effective_batch_size") + 1


@pytest.mark.slow
def test_losses_by_chance_name_no_axis() -> None:
    learned = [learn(search(16, by_chance, seed)) for seed in range(6)]
    deciding = [axis.name for one in learned for axis in one.importances.axes if axis.decides]
    assert len(deciding) <= 1  # of 18, at 0.05 over three axes
    said = [one.verdict for one in learned if not any(a.decides for a in one.importances.axes)]
    assert all(verdict.startswith("No hyper-parameter distinguishes the best") for verdict in said)


def test_with_few_trials_importance_says_what_is_missing_instead_of_a_number() -> None:
    findings = learn(search(11, by_rate))
    assert findings.importances.axes == ()
    missing = "too few trials to rank hyper-parameters: 11 comparable, 12 needed"
    assert findings.importances.missing == missing
    assert missing in " ".join(text(findings).split())


def test_trials_that_diverged_tell_of_the_learning_rate_too() -> None:
    """All that did not diverge are alike: what decides is where training breaks."""
    draw = random.Random(1)
    rates = [10 ** draw.uniform(-5, -1) for _ in range(20)]
    trials = [
        ({"learning_rate": rate}, always(draw.gauss(2, 0.1)), "completed", None)
        if rate < 1e-4
        else ({"learning_rate": rate}, always(math.nan), "diverged", 30)
        for rate in rates
    ]
    space = {"learning_rate": loguniform(1e-5, 1e-1)}
    findings = learn(story(make_sweep(scheduler="none", search_space=space), trials))
    assert findings.importances.trials == 20
    assert findings.importances.axes[0].decides


# which losses are compared


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_losses_are_compared_at_equal_data_only(order: int) -> None:
    sweep = make_sweep(scheduler="asha")
    with TemporaryDirectory() as folder, Journal(f"{folder}/journal.jsonl") as journal:
        run(sweep, make_search(sweep, journal), slots=4, order=order)
        events = journal.events()
    seen = read(found_in(sweep, events))
    by_name = {trial.name: trial for trial in seen.trials}
    assert comparisons(seen)
    for found in comparisons(seen):
        for name, loss in found.finite.items():
            trial = by_name[name]
            assert trial.plan.bracket == found.bracket
            rows = next(r["rows"] for r in trial.record.results if r["eval_loss"] == loss)
            if found.rows is None:
                assert rows == trial.plan.rows
            else:
                assert 0 <= rows - found.rows < trial.config.effective_batch_size
        for name in found.losses.keys() - found.finite.keys():
            assert by_name[name].outcome in ("pruned", "diverged")
            assert by_name[name].record.last["rows"] < (found.rows or by_name[name].plan.rows)


def one_bracket(**changes: Any) -> SweepConfig:
    """Rungs at 24, 72 and 216 rows of 240."""
    values: dict[str, Any] = {
        "search_space": {"learning_rate": loguniform(1e-5, 1e-1)},
        "trial": TrialConfig("none", effective_batch_size=4),
        "rungs": (0.1, 0.3, 0.9),
        "grace_steps": 1,
        "evals_per_trial": 2,
    }
    return make_sweep(**(values | changes))


def test_the_place_with_the_most_data_where_the_best_quarter_is_told_apart() -> None:
    stopped = [({"learning_rate": 1e-4 * n}, always(4 + n), "pruned", 24) for n in range(1, 10)]
    further = [({"learning_rate": 1e-2 * n}, always(2 + n), "pruned", 72) for n in range(1, 4)]
    ended = [({"learning_rate": 2e-5}, always(1.0), "completed", None)]
    found = ranking(
        read(story(one_bracket(), stopped + further + ended)), best_share=0.25, enough=12
    )
    assert found is not None
    assert found.rows == 72  # 4 of 13 came there, 1 to the end
    assert sorted(found.finite.values()) == [1, 3, 4, 5]
    assert len(found.losses) == 13
    assert str(found) == (
        "4 losses at 72 rows of the trials of 1 epochs, 9 stopped or diverged before"
    )


# edges


@pytest.mark.parametrize(
    ("field", "space", "best", "at", "widen_to"),
    [
        ("learning_rate", loguniform(1e-5, 1e-3), 9e-4, "upper", 5e-3),  # 1e-3 × 100^(1/3)
        ("learning_rate", loguniform(1e-5, 1e-3), 1.1e-5, "lower", 2e-6),
        ("learning_rate", loguniform(1e-5, 1e-3), 5e-4, None, None),  # 0.85 of the way
        ("learning_rate", uniform(1e-5, 1e-3), 9.5e-4, "upper", 1.3e-3),
        ("warmup_ratio", uniform(0.0, 0.3), 0.01, "lower", None),  # nothing is below 0
        ("warmup_ratio", uniform(0.0, 0.3), 0.29, "upper", 0.4),
        ("lora_r", choice([8, 16, 32]), 32, "upper", 64),
        ("lora_r", choice([32, 8, 16]), 8, "lower", 4),  # by value, not by place
        ("lora_r", choice([8, 16, 32]), 16, None, None),
        ("lora_r", choice([1, 2, 4]), 1, "lower", None),  # no rank of 0.5
        ("num_train_epochs", choice([1, 2, 3]), 3, "upper", 4),
        ("effective_batch_size", choice([6, 12, 24]), 24, "upper", None),  # 48 leave 5 steps
    ],
)
def test_the_best_value_at_an_edge_is_to_be_widened(
    field: str, space: Any, best: float, at: str | None, widen_to: float | None
) -> None:
    sweep = make_sweep(search_space={field: space}, scheduler="none")
    (edge,) = learn(story(sweep, [({field: best}, always(2.0), "completed", None)])).edges
    assert (edge.name, edge.best, edge.at) == (field, best, at)
    assert edge.widen_to == pytest.approx(widen_to)
    assert ("widen it" in edge.says) == (widen_to is not None)
    assert 0 <= edge.position <= 1


def test_a_choice_without_order_has_no_edge() -> None:
    space = {"base_precision": choice(["nf4", "bf16"])}
    found = story(
        make_sweep(search_space=space),
        [({"base_precision": "bf16"}, always(2.0), "completed", None)],
    )
    assert learn(found).edges == ()


# learning rate and batch size


def grid(exponent: float, batches: Sequence[int]) -> Results:
    """Losses whose best learning rate is 1e-3 × (batch / 4)^exponent."""
    trials = [
        (
            {"learning_rate": rate, "effective_batch_size": batch},
            always(2 + math.log(rate / (1e-3 * (batch / 4) ** exponent)) ** 2),
            "completed",
            None,
        )
        for batch in batches
        for rate in [10 ** (-4.5 + 3 * n / 24) for n in range(25)]
    ]
    space = {"learning_rate": loguniform(1e-5, 1), "effective_batch_size": choice(batches)}
    return story(make_sweep(scheduler="none", search_space=space), trials, rows=1000)


@pytest.mark.parametrize(
    ("exponent", "told"),
    [(0.0, "does not move"), (0.5, "square root"), (1.0, "in proportion")],
)
def test_the_scaling_of_the_learning_rate_is_found(exponent: float, told: str) -> None:
    found = learn(grid(exponent, [4, 16, 64])).scaling
    assert found is not None
    assert found.slope is not None
    assert found.interval is not None
    assert found.slope == pytest.approx(exponent, abs=0.06)
    assert found.interval[0] <= exponent <= found.interval[1]
    assert told in found.says
    assert [one.effective_batch_size for one in found.best] == [4, 16, 64]


def test_two_batch_sizes_are_no_line() -> None:
    found = learn(grid(0.5, [4, 16])).scaling
    assert found is not None
    assert found.slope is None
    assert found.says == "batch sizes with 4 comparable trials: 2; a slope needs 3"
    assert len(found.best) == 2


def test_scaling_needs_both_axes() -> None:
    assert learn(story(one_bracket(), [])).scaling is None


# cost


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_the_front_is_what_nothing_beats(pairs: list[tuple[int, int]]) -> None:
    front = {
        (cost.eval_loss, cost.gpu_seconds)
        for cost in pareto_front(Cost("t", loss, seconds) for loss, seconds in pairs)
    }
    beaten = {
        (loss, seconds)
        for loss, seconds in pairs
        if any(a <= loss and b <= seconds and (a, b) != (loss, seconds) for a, b in pairs)
    }
    assert front == set(pairs) - beaten


def test_a_trial_costs_its_seconds_times_its_workers() -> None:
    trials = [
        ({"num_workers": 1}, always(3.0), "completed", None),
        ({"num_workers": 2}, always(2.5), "completed", None),
        ({"num_workers": 4}, always(2.75), "completed", None),
    ]
    sweep = one_bracket(search_space={"num_workers": choice([1, 2, 4])}, scheduler="none")
    findings = learn(story(sweep, trials))
    assert [(c.trial, c.eval_loss, c.gpu_seconds) for c in findings.pareto] == [
        ("t0000", 3.0, 120.0),  # 240 rows of half a second
        ("t0001", 2.5, 240.0),
    ]


def test_regret_counts_the_tokens_of_all_trials_in_the_order_of_time() -> None:
    def result(trial: str, step: int, loss: float, tokens: int, time: float) -> Event:
        metrics = {"step": step, "rows": step * 4, "eval_loss": loss, "tokens": tokens}
        metrics |= {"seconds": 1.0, "gpu_seconds": 1.0, "supervised_tokens": 0}
        event = {"event": "result", "trial": trial, "step": step, "metrics": metrics}
        return {**event, "time": START + time}

    events: list[Event] = [
        {"event": "trial_suggested", "trial": name, "point": {"learning_rate": 1e-3}}
        for name in ("t0000", "t0001")
    ]
    events += [
        result("t0000", 0, BASE, 0, 5),
        result("t0000", 30, 3.0, 100, 10),
        result("t0001", 30, 4.0, 70, 20),
        result("t0000", 45, 3.5, 150, 30),  # worse
        result("t0001", 45, 2.5, 140, 40),  # 150 + 140
        result("t0000", 60, math.nan, 200, 50),
        result("t0001", 60, 2.75, 180, 60),
    ]
    events[1]["point"] = {"learning_rate": 2e-3}
    found = learn(found_in(one_bracket(), events))
    assert [(m.tokens, m.seconds, m.trial, m.eval_loss, m.regret) for m in found.regret] == [
        (100, 10, "t0000", 3.0, 0.5),
        (290, 40, "t0001", 2.5, 0.0),
        (380, 60, "t0001", 2.5, 0.0),
    ]
    # a ninth is 42 tokens, before the first evaluation; a third 127, with which t0000 leads
    assert [
        (c.tokens, c.trial, c.point["learning_rate"], c.eval_loss, c.trial_best)
        for c in found.anytime
    ] == [
        (127, "t0000", 1e-3, 3.0, 3.0),
        (380, "t0001", 2e-3, 2.5, 2.5),
    ]
    assert (
        "33% of the tokens choose t0000 (learning_rate=0.001): 3.0000 then, 3.0000 in the end"
        in " ".join(text(found).split())
    )
    assert found.odds is None  # of no trial that has ended
    by_metric = one_bracket(objective="metric", metric="sftray.metrics:exact_match")
    assert learn(found_in(by_metric, events)).anytime == ()


# stopping


def test_what_was_saved_is_the_rest_of_the_stopped_budgets() -> None:
    sweep = one_bracket(search_space={"num_workers": choice([1, 2])})
    trials = [
        ({"num_workers": 1}, always(2.0), "completed", None),  # 2,400 tokens, 120 s
        ({"num_workers": 1}, always(4.0), "pruned", 24),  # 240 tokens, 12 s
        ({"num_workers": 2}, always(3.0), "pruned", 72),  # 720 tokens, 36 s on two
        ({"num_workers": 1}, always(math.nan), "diverged", 24),  # saves nothing
    ]
    found = learn(story(sweep, trials)).stopping
    assert (found.stopped, found.trials) == (2, 4)
    assert found.tokens == 2400 + 240 + 720 + 240
    assert found.tokens_saved == (2400 - 240) + (2400 - 720)
    assert found.gpu_seconds == 120 + 12 + 2 * 36 + 12
    assert found.gpu_seconds_saved == pytest.approx((120 - 12) + 2 * (120 - 36))


def test_a_stopped_trial_that_could_have_won_is_named() -> None:
    """From 24 rows, a tenth of the budget, the three that went on gained 0.9, 1.8 and 0.45."""
    went_on = [falling(3.0, 2.0), falling(4.0, 2.0), falling(2.5, 2.0)]
    stopped = [3.7, 3.9]  # with a gain of 1.8: 1.9 and 2.1, where the best has 2.0
    found = learn(
        story(
            one_bracket(),
            [({"learning_rate": 1e-3}, loss, "completed", None) for loss in went_on]
            + [({"learning_rate": 1e-2}, always(loss), "pruned", 24) for loss in stopped],
        )
    ).stopping
    assert found.within_spread == ("t0003",)
    assert found.unknown == 0
    assert found.says == (
        "1 of 2 stopped trials (t0003) would be the best with the largest gain of those that "
        "continued; too few completed to say how well a rung foretells the end"
    )


def test_with_two_survivors_nothing_is_said_of_what_was_missed() -> None:
    went_on = [({"learning_rate": 1e-3}, always(2.0), "completed", None)] * 2
    stopped = [({"learning_rate": 1e-2}, always(2.1), "pruned", 24)] * 2
    found = learn(story(one_bracket(), went_on + stopped)).stopping
    assert (found.within_spread, found.unknown) == ((), 2)
    assert found.says.startswith("too few to estimate what it missed")


def test_how_well_a_rung_foretells_the_end() -> None:
    """At 24 rows the order of the end, reversed at 72 rows."""
    ends = [2.0, 2.1, 2.2, 2.3, 2.4]

    def loss(end: float) -> Callable[[float], float]:
        return lambda share: end if share < 0.2 or share == 1 else 10 - end

    trials = [({"learning_rate": 1e-3}, loss(end), "completed", None) for end in ends]
    agreement = learn(story(one_bracket(), trials)).stopping.agreement
    told = {one.rows: (one.trials, round(one.spearman or 0, 6)) for one in agreement}
    assert told == {24: (5, 1.0), 72: (5, -1.0), 216: (5, -1.0)}


def test_a_sweep_that_stops_nothing_says_what_stopping_would_have_gone_by() -> None:
    ends = [2.0, 2.1, 2.2, 2.3, 2.4]
    trials = [({"learning_rate": 1e-3}, falling(9 - end, end), "completed", None) for end in ends]
    found = learn(story(one_bracket(scheduler="none"), trials)).stopping
    assert found.tokens_saved == 0
    assert found.says == (
        "no trial was stopped; losses at 24 rows and at the end have rank agreement -1.00 "
        "(5 completed trials)"
    )


def test_spearman_as_published() -> None:
    """The example of SciPy's spearmanr, which has a tie."""
    assert spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) == pytest.approx(0.8207826816681233)
    assert spearman([1, 2, 3], [4, 4, 4]) is None


# the verdict


def verdict_of(trials: Sequence[Any], **changes: Any) -> Findings:
    return learn(story(one_bracket(**changes), trials))


def test_when_all_diverged_lower_learning_rates_are_advised() -> None:
    rates = [1e-2, 3e-3, 5e-2]
    found = verdict_of([({"learning_rate": r}, always(math.nan), "diverged", 30) for r in rates])
    assert found.verdict == "All 3 trials diverged."
    assert "learning_rate=loguniform(3e-5,0.003)" in found.advice
    assert found.pareto == found.regret == found.edges == ()


def test_when_all_but_one_were_stopped_more_grace_is_advised() -> None:
    stopped = [({"learning_rate": 1e-4}, always(4.0), "pruned", 24)] * 3
    found = verdict_of([({"learning_rate": 1e-3}, always(2.0), "completed", None), *stopped])
    assert found.verdict.startswith("All trials but t0000 (2.0000) were stopped early")
    assert "rungs" in found.advice


def test_when_the_base_is_better_the_verdict_says_so() -> None:
    found = verdict_of([({"learning_rate": 1e-2}, always(BASE + 1), "completed", None)] * 3)
    assert found.verdict == ("No trial is better than the base: t0000 has 6.0000, the base 5.0000.")
    assert "Lower learning_rate below 0.01" in found.advice


def test_what_seeds_alone_make_is_no_difference() -> None:
    points = [{"learning_rate": 1e-3, "seed": n} for n in range(3)] + [{"learning_rate": 3e-3}]
    losses = [2.0, 2.1, 2.2, 2.3]
    trials = [
        (point, always(loss), "completed", None) for point, loss in zip(points, losses, strict=True)
    ]
    found = verdict_of(trials, points=tuple(points), scheduler="none")
    assert found.noise == pytest.approx(0.1)  # of 2.0, 2.1 and 2.2
    assert found.verdict.startswith("No difference beyond noise: 4 completed trials end within 0.3")
    assert all(edge.name != "seed" for edge in found.edges)


def test_differences_far_above_what_seeds_make_are_not_called_noise() -> None:
    points = [{"learning_rate": 1e-3, "seed": n} for n in range(2)] + [{"learning_rate": 3e-3}]
    trials = [
        (point, always(loss), "completed", None)
        for point, loss in zip(points, [2.0, 2.001, 3.0], strict=True)
    ]
    found = verdict_of(trials, points=tuple(points), scheduler="none")
    assert found.verdict.startswith(
        "The best is t0000: eval loss 2.0000 at step 6, 3.0000 below the base; mean of 2 seeds "
        "2.0005 ± 0.0064"
    )


FOUR_POINTS = {1e-4: 0.1513, 3e-4: 0.1498, 1e-3: 0.1038, 3e-3: 0.1111}
"""Final losses by rate: t0002 is the best by twelve times what seeds make of a loss."""


@pytest.mark.parametrize("repeated", [False, True])
def test_a_difference_is_measured_by_noise_and_not_by_what_was_gained_on_the_base(
    repeated: bool,
) -> None:
    """Of a base of 5.0 the whole span is 1 %."""
    points: list[Point] = [{"learning_rate": rate} for rate in FOUR_POINTS]
    losses = list(FOUR_POINTS.values())
    if repeated:  # the noise is 0.0034
        points = [{**point, "seed": seed} for seed in range(2) for point in points]
        losses += [loss + 0.0034 * 2**0.5 for loss in losses]
    trials = [
        (point, always(loss), "completed", None) for point, loss in zip(points, losses, strict=True)
    ]
    found = story(one_bracket(points=tuple(points), scheduler="none"), trials)
    learned = learn(found)
    assert found.leaderboard["best"] == "t0002"
    assert learned.verdict.startswith("The best is t0002: eval loss 0.1038 at step")
    assert "difference" not in learned.verdict
    assert "cheap" not in learned.verdict + learned.advice
    assert learned.noise == (pytest.approx(0.0034) if repeated else None)


def test_of_points_that_differ_by_less_than_noise_and_cost_alike_the_lowest_is_taken() -> None:
    points = [{"learning_rate": rate, "seed": s} for rate in (1e-3, 3e-3) for s in range(3)]
    losses = [2.02, 2.12, 2.2, 2.0, 2.1, 2.22]
    trials = [
        (point, always(loss), "completed", None) for point, loss in zip(points, losses, strict=True)
    ]
    found = story(one_bracket(points=tuple(points), scheduler="none"), trials)
    learned = learn(found)
    assert found.leaderboard["best"] == "t0003"
    assert learned.verdict.startswith("No difference beyond noise")
    assert learned.advice.startswith("Take t0003: eval loss 2.0000 at step")
    assert "not distinguishable from t0000" in learned.advice


@pytest.mark.parametrize("last", [2.0, 2.1])
def test_where_most_trials_still_fall_more_epochs_are_advised_not_more_trials(last: float) -> None:
    """At 2.0 the last evaluation is 5 % below the one before, at 2.1 it is not."""
    rates = [1e-3 * 1.1**number for number in range(6)]

    def loss(number: int) -> Callable[[float], float]:
        return lambda share: (last if share == 1 else 2.1) + 0.01 * number

    trials = [({"learning_rate": rate}, loss(n), "completed", None) for n, rate in enumerate(rates)]
    space = {"learning_rate": loguniform(1e-5, 1e-1)}
    advice = learn(story(make_sweep(scheduler="none", search_space=space), trials)).advice
    if last == 2.0:
        assert advice.startswith("Train for longer than 1 epochs before more trials: 6 of 6")
    else:
        assert advice.startswith("Run 8 more trials")


def test_given_points_that_spell_one_number_in_two_ways_tried_one_value() -> None:
    epochs = (1, 1.0, 2, 2, 2, 2)
    points = [{"num_train_epochs": n, "lora_r": 8, "seed": k} for k, n in enumerate(epochs)]
    trials = [(point, always(2.0), "completed", None) for point in points]
    found = verdict_of(trials, points=tuple(points), scheduler="none")
    assert [(edge.name, edge.low, edge.high) for edge in found.edges] == [
        ("num_train_epochs", 1, 2)
    ]


def test_a_best_value_at_the_edge_of_the_deciding_axis_is_widened_by_a_flag_that_works() -> None:
    def truth(point: Point, draw: random.Random) -> float:
        return 3 - 0.2 * math.log10(point["learning_rate"] / 1e-5) + draw.gauss(0, 0.01)

    found = learn(search(24, truth))
    assert found.verdict.startswith("learning_rate decides")
    assert "the upper edge of its range" in found.verdict
    flag = "search_space.learning_rate=loguniform(1e-5,2.0)"
    assert flag in found.advice

    assert override(make_sweep(), flag).search_space["learning_rate"] == loguniform(1e-5, 2.0)


# a running sweep, and its words


def test_every_beginning_of_a_journal_can_be_learned_from(tmp_path: Path) -> None:
    sweep = make_sweep()
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        run(sweep, make_search(sweep, journal), slots=4)
        events = journal.events()
    for length in {*range(0, len(events), 9), len(events)}:
        findings = learn(found_in(sweep, events[:length]))
        assert json.loads(json.dumps(findings.to_json(), allow_nan=False))["sweep"] == sweep.name
        trials = Records(events[:length]).trials
        assert sum(findings.outcomes.values()) == len(trials)
        for line in text(findings).splitlines():
            assert len(line) <= 80 or "--set" in line or "search_space" in line
        if "running" in findings.outcomes:
            assert text(findings).startswith("So far, with")


# what it would have cost


def test_a_grid_and_random_orders_are_priced_by_the_sweeps_own_points() -> None:
    """Three points of equal budgets; the second was stopped at the rung of 24 rows of 240."""
    rates = (1e-3, 1e-4, 2e-3)
    losses = (falling(4.0, 2.0), falling(5.0, 4.0), falling(4.1, 2.5))
    ends = (("completed", None), ("pruned", 24), ("completed", None))
    trials = [
        ({"learning_rate": rate}, loss, *end)
        for rate, loss, end in zip(rates, losses, ends, strict=True)
    ]
    space = {"learning_rate": loguniform(1e-5, 1e-1)}
    trial = TrialConfig("none", effective_batch_size=4)
    sweep = make_sweep(search_space=space, rungs=(0.1,), grace_steps=1, trial=trial)
    found = learn(story(sweep, trials)).alternatives
    assert found is not None
    full = 10 * 240
    assert found.own == full
    assert found.grid == 3 * full
    assert found.random in (full, 2 * full, 3 * full)
    assert found.random_asha is not None
    assert found.random_asha < found.random + full
    words = " ".join(text(learn(story(sweep, trials))).split())
    assert "tokens until the best; all these points to their ends 7,200" in words


def test_before_any_trial_has_come_to_its_end_nothing_is_priced() -> None:
    trials = [({"learning_rate": 1e-3}, always(2.0), None, 24)]
    space = {"learning_rate": loguniform(1e-5, 1e-1)}
    assert learn(story(make_sweep(search_space=space), trials)).alternatives is None


def test_more_trials_are_unlikely_to_help_where_all_that_is_left_is_worse() -> None:
    rates = [1e-5 * 2**n for n in range(12)]
    sweep = one_bracket(search_space={"learning_rate": choice(rates)}, rungs=())

    def tried(places: Sequence[int]) -> Results:
        losses = {place: 2 * math.exp(0.01 * (place - 6) ** 2) for place in places}
        return story(
            sweep,
            [({"learning_rate": rates[n]}, always(loss), "completed", None)
             for n, loss in losses.items()],
        )  # fmt: skip

    early, late = learn(tried([2, 4, 9])), learn(tried([2, 3, 4, 5, 6, 7, 8, 9]))
    assert early.odds is not None
    assert late.odds is not None
    assert early.odds > 0.6
    assert late.odds < 0.05
    assert f"{late.odds:.0%} odds that 8 more find an eval loss lower by 0.2%" in text(late)
