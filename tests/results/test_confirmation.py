import math
import statistics
from collections.abc import Sequence

import pytest
from fake_trials import make_sweep

from sftray.results.confirmation import LEFT_OUT, confirmation
from sftray.results.leaderboard import answering, leaderboard
from sftray.results.leaderboard_text import confirmed_text, mean_text, recommended, table
from sftray.results.paired_seeds import critical_value
from sftray.results.records import Records, TrialRecord
from sftray.storage.journal import Event


def trial(
    name: str,
    loss: float,
    *,
    confirms: str | None = None,
    rank: int = 16,
    outcome: str | None = None,
    seed: int = 1,
) -> TrialRecord:
    metrics = {"step": 10, "eval_loss": loss, "tokens": 1000, "supervised_tokens": 500}
    outcome = outcome or ("completed" if math.isfinite(loss) else "diverged")
    point = {"lora_r": rank, **({"seed": seed} if confirms else {})}
    return TrialRecord(name, point, [metrics], outcome=outcome, confirms=confirms)


def sweep(**repeated: list[float]) -> list[TrialRecord]:
    """Trials of rank 8, 16, … by name, and their repetitions."""
    trials = [
        trial(name, min(losses), rank=8 * (number + 1))
        for number, (name, losses) in enumerate(repeated.items())
    ]
    for name, losses in repeated.items():
        trials += [
            trial(f"{name}-{number}", loss, confirms=name, seed=number)
            for number, loss in enumerate(losses)
        ]
    return trials


def test_the_interval_is_students_with_the_scatter_of_all_points() -> None:
    found = confirmation(sweep(a=[1.0, 1.2, 1.1], b=[2.0, 2.3, 2.3]))
    assert found is not None
    variances = [statistics.variance(losses) for losses in ([1.0, 1.2, 1.1], [2.0, 2.3, 2.3])]
    scatter = math.sqrt(statistics.fmean(variances))
    best = found["points"][0]
    assert best["mean"] == pytest.approx(1.1)
    assert best["interval"] is not None
    # four degrees of freedom: t = 2.776
    assert best["interval"][1] - best["mean"] == pytest.approx(
        2.776 * scatter / math.sqrt(3), rel=1e-3
    )


def test_of_points_that_are_not_told_apart_a_cheaper_one_is_the_answer() -> None:
    small, large, far = [1.02, 1.06, 1.02], [1.00, 1.05, 1.04], [2.0, 2.02, 2.03]
    found = confirmation(sweep(small=small, large=large, far=far))
    assert found is not None
    assert found["points"][0]["trial"] == "large", "the lowest mean"
    assert set(found["tied"]) == {"large", "small"}
    assert found["winner"] == "small", "the smaller adapter"
    text = confirmed_text({"confirmed": found})
    assert "small and large are not distinguishable. small is the cheapest of them" in text
    assert "small: 30 seeds would not decide" in text


def test_points_that_differ_alike_in_every_seed_are_told_apart() -> None:
    """The same 0.06 in every seed, where seeds move both points by 0.1: the intervals of the means
    overlap, the differences do not reach 0."""
    found = confirmation(sweep(a=[1.0, 1.1, 1.2], b=[1.061, 1.16, 1.259]))
    assert found is not None
    a, b = found["points"]
    assert a["interval"] is not None
    assert b["interval"] is not None
    assert a["interval"][1] > b["interval"][0]
    assert (a["verdict"], b["verdict"], found["tied"]) == ("best", "worse", ["a"])
    assert b["above"] == pytest.approx(0.06)
    text = confirmed_text({"confirmed": found})
    assert "+0.0600 ± 0.0025 worse" in text
    assert "a is better than the others" in text


def test_seeds_that_are_missing_to_decide_are_counted() -> None:
    found = confirmation(sweep(a=[1.00, 1.10, 1.05], b=[1.04, 1.12, 1.12]))
    assert found is not None
    b = found["points"][1]
    assert b["verdict"] == "open"
    # with a pair's spread of s a difference d is decided by n seeds where d > t s √(2 / n)
    apart = [0.04, 0.02, 0.07]
    error, above = statistics.stdev(apart), statistics.fmean(apart)
    three, four = (critical_value(2, n - 1) * error / math.sqrt(n) for n in (3, 4))
    assert four < above < three
    assert b["more_seeds"] == 1
    assert "b: 1 more seed of each point would decide" in confirmed_text({"confirmed": found})


def test_the_lowest_of_several_means_is_said_to_be_too_low() -> None:
    found = confirmation(sweep(a=[1.0, 1.2, 1.1], b=[1.1, 1.2, 1.3], c=[1.2, 1.3, 1.1]))
    assert found is not None
    assert found["too_low"] is not None
    assert f"too low by up to {found['too_low']:.4f}" in confirmed_text({"confirmed": found})
    alone = confirmation(sweep(a=[1.0, 1.2, 1.1]))
    assert alone is not None
    assert alone["too_low"] is None


@pytest.mark.parametrize(("tokens", "winner"), [(1045, "low"), (1060, "high"), (955, "low")])
def test_a_few_rows_more_are_not_dearer(tokens: int, winner: str) -> None:
    trials = sweep(low=[1.00, 1.05, 1.01], high=[1.02, 1.06, 1.01])
    for one in trials:
        one.point.pop("lora_r")  # type: ignore[attr-defined]
        if "low" in one.trial:
            one.results[0]["tokens"] = tokens
    found = confirmation(trials)
    assert found is not None
    assert set(found["tied"]) == {"low", "high"}
    assert found["winner"] == winner


def test_a_point_that_is_better_beyond_the_noise_wins_whatever_it_costs() -> None:
    trials = sweep(small=[1.50, 1.51, 1.52], large=[1.00, 1.01, 1.03])
    found = confirmation(trials)
    assert found is not None
    assert found["winner"] == "large"
    assert found["tied"] == ["large"]
    assert {one.trial for one in answering(trials)} == {"large", *(f"large-{n}" for n in range(3))}
    text = confirmed_text({"confirmed": found})
    assert "large is better than the others" in text


def test_two_seeds_decide_nothing_and_the_lowest_mean_is_the_answer() -> None:
    found = confirmation(sweep(small=[1.50, 1.51], large=[1.00, 1.01]))
    assert found is not None
    assert found["winner"] == "large", "not the cheaper one, of which nothing is known"
    assert found["points"][1]["verdict"] == "open"
    assert "2 seeds decide nothing; confirm_seeds=3 may" in confirmed_text({"confirmed": found})


def test_a_repetition_that_diverged_speaks_against_its_point() -> None:
    found = confirmation(sweep(a=[1.0, math.inf], b=[1.2, 1.21]))
    assert found is not None
    assert found["winner"] == "b"
    assert found["points"][-1]["mean"] == math.inf
    assert mean_text(found["points"][-1]) == "of 2 other seeds 1 diverged"


@pytest.mark.parametrize("outcome", LEFT_OUT)
def test_a_repetition_that_says_nothing_of_its_point_is_left_out_and_said(outcome: str) -> None:
    trials = sweep(a=[1.0, 1.02], b=[1.2, 1.21])
    found = confirmation([*trials, trial("a-2", 0.5, confirms="a", outcome=outcome)])
    assert found is not None
    assert found["winner"] == "a"
    assert found["points"][0]["mean"] == pytest.approx(1.01)
    assert found["points"][0]["eval_losses"] == [1.0, 1.02]
    text = confirmed_text({"confirmed": found})
    assert f"a: 2 of 3 repetitions count, 1 {outcome} left out" in text
    assert "b: " not in text


def test_a_point_none_of_whose_repetitions_counts_is_neither_the_answer_nor_judged() -> None:
    failed = trial("a-0", math.inf, confirms="a", outcome="failed")
    trials = [trial("a", 1.0), trial("b", 1.1), trial("b-0", 1.15, confirms="b"), failed]
    found = confirmation(trials)
    assert found is not None
    assert (found["winner"], found["tied"]) == ("b", ["b"])
    assert found["points"][-1]["mean"] is None
    text = confirmed_text({"confirmed": found})
    assert "a  -  n=0" in text
    assert "better than the others" not in text


def test_where_no_repetition_counts_the_search_has_the_answer() -> None:
    failed = [trial(f"a-{k}", 1.0, confirms="a", outcome="preempted") for k in range(2)]
    trials = [trial("a", 1.0), *failed, trial("b", 1.1)]
    found = confirmation(trials)
    assert found is not None
    assert found["winner"] is None
    assert answering(trials) == trials
    text = confirmed_text({"confirmed": found})
    assert "a: 0 of 2 repetitions count, 2 preempted left out" in text


def seeded(name: str, loss: float, rate: float, seed: int) -> TrialRecord:
    one = trial(name, loss)
    one.point = {"learning_rate": rate, "seed": seed}
    return one


def test_where_seeds_were_given_a_point_is_judged_by_its_mean_never_by_its_luckiest_run() -> None:
    rates = {"lucky": 1e-3, "steady": 2e-3}
    losses = {"lucky": [1.3, 0.9, 1.3], "steady": [1.0, 1.02, 1.01]}
    trials = [
        seeded(f"{name}-{seed}", loss, rates[name], seed)
        for name, own in losses.items()
        for seed, loss in enumerate(own)
    ]
    found = confirmation(trials)
    assert found is not None
    assert [one["trial"] for one in found["points"]] == ["steady-0", "lucky-0"]
    assert found["points"][0]["mean"] == pytest.approx(1.01)
    assert found["points"][0]["point"] == {"learning_rate": 2e-3}
    board = leaderboard(make_sweep(), Records(told(trials)))
    assert board["trials"][0]["trial"] == "lucky-1"
    assert board["best"] == "steady-0"
    assert recommended(board).startswith(
        "steady-0: eval loss 1.0000 at step 10; mean of 3 seeds 1.0100 ± "
    )
    assert "over the seeds of each point" in confirmed_text(board)
    assert {one.trial for one in answering(trials)} == {f"steady-{seed}" for seed in range(3)}


def test_points_that_each_ran_once_are_judged_by_that() -> None:
    trials = [seeded(f"t{n}", 1.0 + n, 10.0**-n, n) for n in range(3)]
    assert confirmation(trials) is None


def test_the_searchs_own_run_is_starred_and_no_luckier_repetition() -> None:
    trials = sweep(a=[1.0, 0.8, 1.2], b=[2.0, 2.1, 2.2])
    board = leaderboard(make_sweep(), Records(told(trials)))
    assert board["best"] == "a"
    assert board["trials"][0]["trial"] == "a"  # the search has the lowest of its losses, 0.8
    assert board["trials"][1]["trial"] == "a-1"
    words = recommended(board)
    assert words.startswith("a: eval loss 0.8000 at step 10; mean of 3 other seeds 1.0000 ± ")
    (line,) = [line for line in table(board).splitlines() if line.lstrip().startswith("*")]
    assert line.split()[1] == "a"


def told(trials: Sequence[TrialRecord]) -> list[Event]:
    """Their events."""
    events: list[Event] = []
    for one in trials:
        begun = {"event": "trial_suggested", "trial": one.trial, "point": one.point}
        events.append({**begun, "confirms": one.confirms} if one.confirms else begun)
        result = {"event": "result", "trial": one.trial, "step": 10}
        events.append({**result, "metrics": {**one.results[0], "rows": 40, "seconds": 1.0}})
        ended = {"event": "trial_ended", "trial": one.trial, "message": ""}
        events.append({**ended, "outcome": one.outcome})
    return events


def test_one_repetition_has_no_interval_and_no_repetition_no_confirmation() -> None:
    found = confirmation(sweep(a=[1.0]))
    assert found is not None
    assert found["points"][0]["interval"] is None
    pair = confirmation(sweep(a=[1.0], b=[1.2]))
    assert pair is not None
    assert "1 seed decides nothing; confirm_seeds=3 may" in confirmed_text({"confirmed": pair})
    assert confirmation([trial("a", 1.0)]) is None
    assert confirmed_text({}) == ""
