"""What a search costs in full trainings."""

from __future__ import annotations

import random
import statistics

import pytest
from fake_trials import make_sweep

from sftray.config.trainings import expected_trainings, trials_worth
from sftray.search.asha import asha

RUNGS, ETA = (0.05, 5 / 12), 3


def one_search(trials: int, rng: random.Random) -> float:
    """The cost of trials in random order, whose losses at the rungs agree."""
    recorded: list[list[float]] = [[] for _ in RUNGS]
    cost = 0.0
    for _ in range(trials):
        loss, ended = rng.random(), 1.0
        for share, losses in zip(RUNGS, recorded, strict=True):
            goes_on = asha(losses, loss, ETA).goes_on
            losses.append(loss)
            if not goes_on:
                ended = share
                break
        cost += ended
    return cost


@pytest.mark.parametrize("trials", [1, 2, 6, 16, 32])
def test_the_expected_cost_is_that_of_asha_on_trials_in_random_order(trials: int) -> None:
    rng = random.Random(trials)
    mean = statistics.fmean(one_search(trials, rng) for _ in range(400))
    found = expected_trainings(trials, [[(one, one) for one in RUNGS]], ETA)
    assert found == pytest.approx(mean, rel=0.06)


def test_a_trial_that_passes_rungs_by_costs_more() -> None:
    small, large = [(80, 0.1), (400, 0.5)], [(400, 0.5)]  # a batch that has not had its grace steps
    costs = [expected_trainings(16, some, ETA) for some in ([small], [small, large], [large])]
    assert costs == sorted(costs)
    assert costs[1] - costs[0] > 1
    apart = expected_trainings(16, [[("one epoch", 0.5)], [("two epochs", 0.5)]], ETA)
    assert apart > costs[2]  # of either kind two always continue


def test_a_budget_in_trainings_gives_the_number_of_trials() -> None:
    assert [trials_worth(n, RUNGS, ETA) for n in (1, 3, 5, 10)] == [1, 3, 9, 26]
    sweep = make_sweep(rungs=RUNGS, trainings=5)
    assert (sweep.num_trials, sweep.total_trials) == (9, 9)
    assert make_sweep(scheduler="none", trainings=5).num_trials == 5
