"""The odds that more trials are better, on losses whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fake_trials import make_search, make_sweep, run

from sftray.config import choice, loguniform
from sftray.config.points import Point
from sftray.errors import ConfigError
from sftray.search.odds import EndedTrial, odds_of_better
from sftray.storage.journal import Journal

RATES = [1e-5 * 3**n for n in range(8)]
SPACES = {"learning_rate": choice(RATES), "lora_r": choice([8, 16, 64])}
BEST = 5
"""The place of the best rate."""
FIRST_RUNG = 100


def loss_at(point: Point) -> float:
    """A parabola in the place of the rate, a slope in that of the rank."""
    away = RATES.index(float(str(point["learning_rate"]))) - BEST
    return 2.0 * math.exp(0.01 * away**2 + 0.004 * [8, 16, 64].index(int(str(point["lora_r"]))))


def trial(place: int, rank: int, *, stopped: bool = False) -> EndedTrial:
    point: Point = {"learning_rate": RATES[place], "lora_r": rank}
    loss = loss_at(point)
    return EndedTrial(point, None if stopped else loss, {FIRST_RUNG: 1.3 * loss})


AROUND = [trial(place, rank) for place in (2, 4, 6) for rank in (8, 64)]


def test_a_better_point_is_expected_until_the_best_is_known() -> None:
    near = [trial(place, rank) for place in (1, 3, 7) for rank in (8, 64)]
    before = odds_of_better(SPACES, AROUND, 8)
    after = odds_of_better(SPACES, [*AROUND, *near, trial(BEST, 8), trial(BEST, 16)], 8)
    assert before is not None
    assert after is not None
    assert before > 0.9
    assert after < 0.1


def test_what_a_stopped_trial_would_have_come_to_counts() -> None:
    ended = [trial(2, 8), trial(6, 8)]
    stopped = [trial(place, 8, stopped=True) for place in (0, 1, 3, 4, 7)]
    # by their own losses at the rung they would be far worse than the best
    alone, with_them = (odds_of_better(SPACES, some, 4) for some in (ended, [*ended, *stopped]))
    assert with_them is not None
    assert with_them > 0.5
    known = [*ended, *stopped, trial(BEST, 8)]
    assert odds_of_better(SPACES, known, 4) != alone
    assert odds_of_better(SPACES, known, 4) < with_them  # type: ignore[operator]


def test_fewer_trials_have_smaller_odds() -> None:
    known = [trial(2, 16), trial(7, 16), trial(4, 64)]
    odds = [odds_of_better(SPACES, known, left) for left in (0, 1, 4, 16)]
    assert odds == sorted(odds, key=float)  # type: ignore[arg-type]
    assert odds[0] == 0.0 < odds[1] < odds[3]  # type: ignore[operator]


def test_too_little_is_known_or_nothing_is_left() -> None:
    assert odds_of_better(SPACES, AROUND[:1], 8) is None
    assert odds_of_better({}, AROUND, 8) is None
    small = {"lora_r": choice([8, 64])}
    both = [EndedTrial({"lora_r": rank}, 2.0, {}) for rank in (8, 64)]
    assert odds_of_better(small, both, 8) == 0.0


def test_labels_and_ranges_have_odds_too() -> None:
    spaces = {"learning_rate": loguniform(1e-5, 1e-2), "lr_scheduler": choice(["cosine", "linear"])}
    ended = [
        EndedTrial(
            {"learning_rate": rate, "lr_scheduler": name}, 2 + abs(math.log10(rate / 1e-3)), {}
        )
        for rate in (1e-5, 1e-4, 3e-3)
        for name in ("cosine", "linear")
    ]
    odds = odds_of_better(spaces, ended, 8)
    assert odds is not None
    assert odds > 0.5


@pytest.mark.parametrize("limit", [None, 1.1])
def test_a_search_that_has_enough_begins_no_more(limit: float | None, tmp_path: Path) -> None:
    sweep = make_sweep(stop_at_odds=limit, confirm_top=1, confirm_seeds=1)
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        search = make_search(sweep, journal)
        run(sweep, search, slots=1)
        own = sum("confirms" not in e for e in journal.events() if e["event"] == "trial_suggested")
        assert (search.remaining(), search.searching()) == (0, False)
        if limit is None:
            assert (own, search.enough) == (16, "")
        else:
            assert 2 <= own < 16
            assert search.enough.startswith(f"{16 - own} trials are not begun: the odds that they")
        again = make_search(sweep, journal)
        assert (again.searching(), again.enough) == (False, search.enough)
        assert again.confirm()  # and its best are run again all the same
        assert again.suggest() is not None


def test_odds_are_of_a_search_by_eval_loss() -> None:
    with pytest.raises(ConfigError, match=r"stop_at_odds: got 0\.1 with points, must be None"):
        make_sweep(stop_at_odds=0.1, points=({"learning_rate": 1e-3},))
    with pytest.raises(ConfigError, match=r"stop_at_odds: got 0\.1 with a metric"):
        make_sweep(stop_at_odds=0.1, objective="metric", metric="sftray.metrics:exact_match")
