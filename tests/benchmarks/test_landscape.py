"""The search replayed on a table of others, and the fit of its prior points."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sftray.plan.prior_points import FIT

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from landscape import config_of, key, of_grid, of_table  # noqa: E402
from priors import fitted, optima_of  # noqa: E402
from search import DEFAULT, WAYS, replay  # noqa: E402
from stop_at_odds import Ends  # noqa: E402

PUBLISHED = ROOT.parent / "shared" / "tables" / "tinker_sft_sweep.csv"
COLUMNS = ("model", "learning_rate", "lora_rank", "test_nll", "run", "outcome", "test_nll_at_0.05")
RATES, RANKS = (4e-5, 1e-4, 3e-4, 1e-3), (4, 16, 64)


def made_up(rate: float, rank: int) -> float:
    """Lowest at a rate of 3e-4 and the highest rank."""
    return 1 + 0.02 * math.log10(rate / 3e-4) ** 2 + 0.01 / rank


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One base with all points, the best of them run twice and one diverged; one with too few."""
    rows = [
        ("some/Llama-3.1-8B", rate, rank, made_up(rate, rank), 1, "completed", 2 - rank / 100)
        for rate in RATES
        for rank in RANKS
    ]
    rows += [("some/Llama-3.1-8B", 3e-4, 64, made_up(3e-4, 64) * 1.0002, 2, "completed", "")]
    rows += [("some/Llama-3.1-8B", 3e-3, 64, "nan", 1, "diverged", "")]
    rows += [("some/Qwen3-8B", rate, 64, made_up(rate, 64), 1, "completed", "") for rate in RATES]
    path = tmp_path_factory.mktemp("table") / "table.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


def test_a_table_becomes_the_bases_with_enough_points(table: Path) -> None:
    (landscape,) = of_table(table, None)
    assert landscape.name == "some/Llama-3.1-8B"
    assert len(landscape.points) == 13
    best = landscape.points[key({"learning_rate": 3e-4, "lora_r": 64})]
    assert best.best == landscape.best == pytest.approx(made_up(3e-4, 64) * 1.0001)
    assert best.losses[0] == (0.05, pytest.approx(1.36))
    assert landscape.noise == pytest.approx(0.0002 / math.sqrt(2), rel=0.01)
    assert landscape.bar == pytest.approx(landscape.best * 1.002)
    diverged = landscape.points[key({"learning_rate": 3e-3, "lora_r": 64})]
    assert (diverged.outcome, diverged.best) == ("diverged", math.inf)


@pytest.mark.parametrize(
    ("name", "family", "hidden"),
    [
        ("Qwen/Qwen3-30B-A3B-Base", "qwen3", 2048),
        ("Qwen/Qwen3.6-27B", "qwen3_5", 5120),
        ("somebody/Llama-9-8B", "llama", 4402),  # estimated
        ("somebody/nothing", "unknown", None),
    ],
)
def test_a_base_is_known_by_its_name(name: str, family: str, hidden: int | None) -> None:
    config = config_of(name)
    assert (config["model_type"], config.get("hidden_size")) == (family, hidden)


def test_a_replay_counts_what_all_running_trials_have_trained(table: Path) -> None:
    (landscape,) = of_table(table, None)
    one = replay(landscape, 0, 1, **WAYS[DEFAULT])
    assert one.trainings_until(landscape.bar) <= 3
    assert one.curve[-1][1] == landscape.best
    four = replay(landscape, 0, 4, **WAYS["TPE"])
    assert four.curve[0][0] == pytest.approx(4 * 63 / 780)  # all four have come to the first rung
    assert all(a <= b for (a, _), (b, _) in zip(four.curve, four.curve[1:], strict=False))


def test_the_command_prints_the_bases_of_a_table(table: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "search.py"), "--table", str(table)]
    done = subprocess.run([*command, "--json", "--seeds", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert set(rows["some/Llama-3.1-8B"]) == {
        "points", "bar", "trainings_to_bar_median", "within_3", "within_5", "regret_3"
    }  # fmt: skip
    assert rows["some/Llama-3.1-8B"]["points"] == 12
    assert rows["some/Llama-3.1-8B"]["within_3"] == 1.0
    assert done.stderr.startswith("worst: some/Llama-3.1-8B")


def test_our_grid_is_a_landscape() -> None:
    grid = of_grid(ROOT / "benchmarks" / "grid.json")
    assert grid.best == pytest.approx(1.479745)
    assert replay(grid, 0, 4, **WAYS[DEFAULT]).best_at(12) <= 1.01 * grid.best


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published table is not here")
def test_the_fit_of_the_prior_points_is_that_of_the_published_table() -> None:
    optima = [one for landscape in of_table(PUBLISHED, None) for one in optima_of(landscape)]
    found, residual = fitted(optima)
    assert found.coefficients == pytest.approx(FIT.coefficients, rel=0.02)
    assert (found.size, found.rank) == pytest.approx((FIT.size, FIT.rank), abs=0.006)
    assert residual < 0.15


def test_a_false_stop_is_one_after_which_more_than_the_bar_is_found() -> None:
    known = [(1.0, 2.0, 0.5), (2.0, 2.0, 0.05), (4.0, 1.99, 0.02), (5.0, 1.99, 1.0)]
    grid = of_grid(ROOT / "benchmarks" / "grid.json")
    ends = Ends(replace(grid, least_bar=0.002), known)
    assert ends.stop(0.01) is None
    assert ends.stop(0.03) == (1.0, 0.0)
    saved, missed = ends.stop(0.1) or (0.0, 0.0)
    assert (saved, missed > ends.bar) == (3.0, True)


def test_a_replay_has_the_odds_at_each_trial_s_end() -> None:
    grid = of_grid(ROOT / "benchmarks" / "grid.json")
    ends = Ends(grid)
    replay(grid, 0, 1, **WAYS["random + ASHA"], most=math.inf, watch=ends.take)
    odds = [one for _, _, one in ends.known]
    assert len(odds) == len(grid.points)
    assert odds[0] == 1.0  # of one trial nothing is known
    assert 0.0 < odds[-2] < odds[3] <= 1.0
