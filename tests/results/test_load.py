"""A sweep's folder as plain values: right while it runs, too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fake_trials import make_sweep

from sftray.config.config_json import to_json
from sftray.errors import SftrayError
from sftray.results import Results, load
from sftray.results.leaderboard import leaderboard
from sftray.results.leaderboard_text import table, verdicts
from sftray.results.records import Records
from sftray.storage.journal import Event, Journal
from sftray.storage.paths import SweepPaths

BASE = 3.0
SWEEP = make_sweep(name="x")


def result(trial: str, step: int, loss: float) -> Event:
    metrics = {
        "step": step,
        "rows": step * 4,
        "eval_loss": loss,
        "tokens": step * 1000,
        "supervised_tokens": step * 400,
        "seconds": step * 2.0,
        "gpu_seconds": step * 1.0,
    }
    return {"event": "result", "trial": trial, "step": step, "metrics": metrics}


def suggested(trial: str, **point: Any) -> Event:
    return {"event": "trial_suggested", "trial": trial, "point": point}


def ended(trial: str, outcome: str, message: str = "") -> Event:
    return {"event": "trial_ended", "trial": trial, "outcome": outcome, "message": message}


EVENTS: list[Event] = [
    {"event": "sweep_started", "trial": None},
    suggested("t0000", learning_rate=1e-3),
    suggested("t0001", learning_rate=1e-2),
    suggested("t0002", learning_rate=1.0),
    suggested("t0003", learning_rate=1e-4),
    *(result(trial, 0, BASE) for trial in ("t0000", "t0001", "t0002")),
    result("t0000", 10, 2.5),
    result("t0001", 10, 2.0),
    result("t0001", 20, 2.25),  # worse than before: the best evaluation counts, not the last
    ended("t0001", "completed"),
    result("t0002", 10, math.nan),
    ended("t0002", "diverged", "eval_loss is nan at step 10"),
]


def test_a_trial_is_ranked_by_its_best_evaluation_and_not_its_last() -> None:
    board = leaderboard(SWEEP, Records(EVENTS))
    assert board["best"] == "t0001"
    first = board["trials"][0]
    assert (first["trial"], first["eval_loss"], first["step"]) == ("t0001", 2.0, 10)
    assert (first["tokens"], first["supervised_tokens"], first["seconds"]) == (20_000, 8_000, 40.0)


def test_the_leaderboard_has_the_promised_shape() -> None:
    board = leaderboard(SWEEP, Records(EVENTS))
    assert board.keys() == {"sweep", "base", "best", "trials"}
    assert board["base"] == {"eval_loss": BASE}
    assert all(
        row.keys()
        >= {
            "trial", "point", "eval_loss", "tokens", "supervised_tokens", "seconds", "outcome",
            "verdict", "advice",
        }
        for row in board["trials"]
    )  # fmt: skip
    assert json.loads(json.dumps(board)) == board


def test_a_trial_without_a_finite_loss_comes_last_with_its_reason() -> None:
    board = leaderboard(SWEEP, Records(EVENTS))
    assert [row["trial"] for row in board["trials"]] == ["t0001", "t0000", "t0002", "t0003"]
    by_trial = {row["trial"]: row for row in board["trials"]}
    assert by_trial["t0002"]["eval_loss"] is None
    assert by_trial["t0002"]["verdict"] == "Diverged: eval_loss is nan at step 10."
    assert by_trial["t0002"]["advice"].startswith("Lower the learning rate from 1 to about 0.3")
    assert by_trial["t0000"]["outcome"] is None  # still running
    assert by_trial["t0000"]["verdict"] == (
        "Healthy: best eval loss 2.500 at step 10, 0.500 below the base's."
    )
    assert by_trial["t0003"]["verdict"] == "No evaluation yet."


def test_the_untrained_base_is_never_the_best() -> None:
    worse = [suggested("t0000"), result("t0000", 0, BASE), result("t0000", 10, 4.0)]
    board = leaderboard(SWEEP, Records(worse))
    assert board["trials"][0]["eval_loss"] == 4.0
    assert board["trials"][0]["diagnosis"] == "base_better"
    begun = leaderboard(SWEEP, Records(worse[:2]))
    assert begun["best"] is None


def test_an_empty_journal_is_an_empty_leaderboard() -> None:
    board = leaderboard(SWEEP, Records([]))
    assert board == {"sweep": "x", "base": {"eval_loss": None}, "best": None, "trials": []}
    assert table(board).splitlines()[1].split() == ["base", "-", "0", "0"]


def test_the_table_shows_the_base_first_and_marks_the_best() -> None:
    lines = table(leaderboard(SWEEP, Records(EVENTS)), top=2).splitlines()
    assert len(lines) == 5
    assert lines[4] == "   and 2 more"
    assert lines[0].split() == [
        "trial", "learning_rate", "eval_loss", "tokens", "seconds", "outcome",
    ]  # fmt: skip
    assert lines[1].split()[:2] == ["base", "3.0000"]
    assert lines[2].split() == ["*", "t0001", "0.01", "2.0000", "20,000", "40", "completed"]
    assert lines[3].split() == ["t0000", "0.001", "2.5000", "10,000", "20", "running"]


def test_verdicts_name_what_is_wrong_and_count_the_rest_in_80_columns() -> None:
    lines = verdicts(leaderboard(SWEEP, Records(EVENTS))).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines == [
        "t0002  Diverged: eval_loss is nan at step 10.",
        "     → Lower the learning rate from 1 to about 0.3.",
        "3 of 4 trials: nothing wrong",
    ]
    assert verdicts(leaderboard(SWEEP, Records(EVENTS)), top=0) == ""


def test_a_running_sweep_can_be_read(tmp_path: Path) -> None:
    paths = SweepPaths(str(tmp_path))
    config = to_json(SWEEP)
    record = {"config": config, "search_space": config["search_space"], "packs": "packs/k"}
    Path(paths.sweep).write_text(json.dumps({**record, "data": {"train": {"rows": 9}}}))
    assert load(paths.root).records == []
    with Journal(paths.journal) as journal:
        for number, event in enumerate(EVENTS):
            journal.append_all([event])
            found = load(paths.root)  # while the writer holds the journal
            assert found.leaderboard == leaderboard(SWEEP, Records(EVENTS[: number + 1]))


def test_a_folder_that_is_no_sweep_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SftrayError, match=r"got no sweep\.json, must be a sweep's folder"):
        load(str(tmp_path))


@pytest.mark.ray
def test_the_written_leaderboard_is_what_the_journal_says(small_sweep: Results) -> None:
    paths = SweepPaths(small_sweep.folder)
    written = json.loads(Path(paths.leaderboard).read_text())
    assert written == small_sweep.leaderboard == load(small_sweep.folder).leaderboard
    assert written["trials"][0]["eval_loss"] < written["base"]["eval_loss"]
    *finished, stopped = [row["diagnosis"] for row in written["trials"]]
    assert set(finished) <= {"healthy", "bad_answers"}  # after twelve steps they go in circles
    assert stopped == "pruned"
