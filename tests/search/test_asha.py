import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftray.search.asha import asha

GRID = Path(__file__).parents[2] / "benchmarks" / "grid.json"


def among_two(recorded: list[float], loss: float) -> bool:
    """Whether a loss is the lowest or the second lowest."""
    return sum(other < loss for other in recorded) < 2


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_every_decision_but_for_two_kept_equals_that_of_ray_tunes_bracket(eta: int) -> None:
    from ray.tune.schedulers.async_hyperband import _Bracket

    rng = random.Random(eta)
    steps = [eta**k for k in range(4)]  # rungs at 1, eta, eta², eta³
    bracket = _Bracket(min_t=1, max_t=steps[-1], reduction_factor=eta, s=0)
    rungs: dict[int, list[float]] = {step: [] for step in steps}
    alive = {f"t{n}": [rng.gauss(3, 1) + 1 / step for step in steps] for n in range(200)}
    reached = dict.fromkeys(alive, 0)
    stopped = 0
    while alive:  # trials of random speed, as on a cluster
        trial = rng.choice(list(alive))
        step, loss = steps[reached[trial]], alive[trial][reached[trial]]
        theirs = bracket.on_result(SimpleNamespace(trial_id=trial), step, -loss)
        ours = asha(rungs[step], loss, eta)
        rungs[step].append(loss)
        assert ours.goes_on == (theirs == "CONTINUE" or among_two(rungs[step][:-1], loss))
        reached[trial] += 1
        stopped += not ours.goes_on
        if not ours.goes_on or reached[trial] == len(steps):
            del alive[trial]
    assert stopped > 100


@given(st.floats(-1e6, 1e6), st.integers(2, 10))
def test_the_first_two_trials_of_a_rung_go_on(loss: float, eta: int) -> None:
    for recorded in ([], [0.0]):
        assert asha(recorded, loss, eta).goes_on
        assert asha(recorded, loss, eta).cutoff is None


@given(st.lists(st.floats(0, 10), min_size=2), st.integers(2, 10))
def test_the_second_lowest_goes_on_whatever_the_quantile(losses: list[float], eta: int) -> None:
    assert asha(losses, sorted(losses)[1], eta).goes_on


@given(st.lists(st.floats(0, 10), min_size=2), st.integers(2, 10))
def test_the_best_so_far_goes_on_and_the_worst_so_far_does_not(
    losses: list[float], eta: int
) -> None:
    assert asha(losses, min(losses), eta).goes_on
    assert not asha(losses, max(losses) + 1, eta).goes_on


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_the_share_that_goes_on_tends_to_one_in_eta(eta: int) -> None:
    rng = random.Random(0)
    recorded: list[float] = []
    goes_on = 0
    for _ in range(2000):
        loss = rng.random()
        goes_on += asha(recorded, loss, eta).goes_on
        recorded.append(loss)
    assert goes_on / 2000 == pytest.approx(1 / eta, abs=0.03)


def test_on_recorded_curves_asha_stops_what_ray_tunes_asha_stops() -> None:
    """Every point of a grid, trained to its end on a GPU; the trials come in random order, a few at
    a time."""
    from ray.tune.schedulers.async_hyperband import _Bracket

    table = json.loads(GRID.read_text(encoding="utf-8"))
    ladder, rng = table["ladder"], random.Random(0)
    curves = {
        str(number): [
            next(loss for _, rows, _, _, loss in trial["evaluations"] if rows >= rung)
            for rung in ladder
        ]
        for number, trial in enumerate(table["trials"])
        if trial["outcome"] == "completed"
    }
    bracket = _Bracket(min_t=1, max_t=3 ** (len(ladder) - 1), reduction_factor=3, s=0)
    ours: list[list[float]] = [[] for _ in ladder]
    waiting, running, stopped = list(curves), dict[str, int](), 0
    rng.shuffle(waiting)
    while waiting or running:
        while waiting and len(running) < 4:
            running[waiting.pop()] = 0
        trial = rng.choice(list(running))
        rung = running[trial]
        loss = curves[trial][rung]
        theirs = bracket.on_result(SimpleNamespace(trial_id=trial), 3**rung, -loss)
        decision = asha(ours[rung], loss, 3)
        assert decision.goes_on == (theirs == "CONTINUE" or among_two(ours[rung], loss))
        ours[rung].append(loss)
        stopped += not decision.goes_on
        running[trial] += 1
        if not decision.goes_on or running[trial] == len(ladder):
            del running[trial]
    assert 10 < stopped < len(curves)
