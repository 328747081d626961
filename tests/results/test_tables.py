"""A sweep's tables: their columns, what a number is, and that they are there from the start."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fake_folder import EVENTS, RECORDED, found_in

from sftray import results
from sftray.results import Results
from sftray.storage import files
from sftray.storage.paths import SweepPaths
from sftray.trial.samples import as_lines, flagged, keep


@pytest.fixture(scope="module")
def recorded() -> Results:
    return results.load(str(RECORDED))


def test_a_row_a_trial_has_its_point_its_best_and_last_loss_and_its_times(tmp_path: Path) -> None:
    found = found_in(tmp_path, EVENTS)
    first, second = found.trials.to_dict("records")
    assert (first["learning_rate"], first["outcome"]) == (1e-3, "pruned")
    assert (first["eval_loss"], first["step"], first["last_eval_loss"]) == (2.5, 2, 2.75)
    assert (first["steps"], first["tokens"], first["tokens_per_second"]) == (3, 3000, 500)
    assert (first["gpu_memory_gb"], first["started"], first["ended"]) == (4.0, 60, 181)
    assert second["outcome"] == "diverged"
    assert math.isnan(second["eval_loss"])
    assert second["verdict"].startswith("Diverged: loss is nan at step 2")


def test_a_row_a_step_has_the_schedule_and_evaluations_where_they_were(tmp_path: Path) -> None:
    curve = found_in(tmp_path, EVENTS).curves.query("trial == 't0000'").set_index("step")
    assert list(curve.index) == [0, 1, 2, 3]
    assert list(curve["rows"]) == [0, 16, 32, 48]
    assert list(curve["learning_rate"].dropna()) == [0.0, 1e-3, 5e-4]
    assert curve["eval_loss"].dropna().to_dict() == {0: 3.0, 2: 2.5, 3: 2.75}
    assert curve["time"].dropna().to_dict() == {0: 60, 2: 120, 3: 180}
    assert math.isnan(curve["train_loss"][0])


def test_a_row_a_decision_has_the_loss_the_cutoff_and_what_was_decided(tmp_path: Path) -> None:
    (row,) = found_in(tmp_path, EVENTS).rungs.to_dict("records")
    assert math.isnan(row.pop("metric"))  # it was judged by its loss
    assert row == {
        "trial": "t0000", "bracket": "1 epoch", "rung": 48, "step": 3, "eval_loss": 2.75,
        "cutoff": 2.6, "decision": "stop",
    }  # fmt: skip


def test_the_best_row_tells_what_was_gained_on_the_base(tmp_path: Path) -> None:
    (row,) = found_in(tmp_path, EVENTS).best.to_dict("records")
    assert (row["trial"], row["base_eval_loss"], row["gain"]) == ("t0000", 3.0, 0.5)
    assert row["adapter"] == f"{tmp_path}/best"


def test_tables_are_right_at_every_moment_of_a_running_sweep(tmp_path: Path) -> None:
    for number in range(len(EVENTS) + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = found_in(folder, EVENTS[:number])
        assert len(found.trials) == min(number, 2)
        assert "learning_rate" in found.trials
        assert len(found.best) == (number > 3)
        assert len(found.rungs) == (number > 5)
        assert found.curves["eval_loss"].dtype == found.trials["eval_loss"].dtype == float
        assert found.samples.empty
    assert found.trials["outcome"].tolist() == ["pruned", "diverged"]


def test_tables_of_a_recorded_sweep_agree_with_its_leaderboard(recorded: Results) -> None:
    trials = recorded.trials.set_index("trial")
    assert len(trials) == 22
    for row in recorded.leaderboard["trials"]:
        assert trials["eval_loss"][row["trial"]] == row["eval_loss"]
        assert trials["tokens"][row["trial"]] == row["tokens"]
    lowest = recorded.curves.query("step > 0").groupby("trial")["eval_loss"].min()
    assert lowest.to_dict() == trials["eval_loss"].to_dict()
    assert (recorded.curves.groupby("trial")["step"].max() == trials["steps"].sort_index()).all()
    assert (trials["ended"] > trials["started"]).all()


def test_repetitions_with_other_seeds_name_the_trial_that_they_repeat(recorded: Results) -> None:
    again = recorded.trials.dropna(subset=["confirms"])
    assert again.groupby("confirms")["seed"].apply(list).to_dict() == {
        "t0002": [1, 2, 3], "t0011": [1, 2, 3],
    }  # fmt: skip
    assert "seed" not in recorded.axes
    assert recorded.best["trial"].tolist() == ["t0002"]
    assert recorded.ended


def test_a_trial_that_ran_in_another_sweep_has_no_times_here(tmp_path: Path) -> None:
    elsewhere = [{**EVENTS[0], "folder": "results/other/trials/t0007"}, *EVENTS[1:]]
    first, second = found_in(tmp_path, elsewhere).trials.to_dict("records")
    assert first["ran_in"] == "results/other/trials/t0007"
    assert math.isnan(first["started"])
    assert math.isnan(first["ended"])
    assert second["started"] == 60


def test_samples_stand_beside_the_bases_and_are_marked(recorded: Results) -> None:
    samples = recorded.samples
    completed = recorded.trials.query("outcome == 'completed'")["trial"].tolist()
    for _, some in samples.groupby("prompt"):
        assert some["trial"].tolist() == ["base", *completed]
        assert some["reference"].nunique() == 1
    assert set(samples["flags"]) == {"no_end", "repeats no_end"}


def test_of_running_trials_too_samples_are_told_by_step(tmp_path: Path) -> None:
    found = found_in(tmp_path, EVENTS[:5])
    asked = {"messages": [{"role": "user", "content": "Hi?"}], "prompt": "Hi?", "reference": None}
    paths = SweepPaths(found.folder)
    for step in (2, 3):
        keep(paths.trial("t0000").root, flagged([asked], step, [("Hi. " * 20, False)]))
    files.write_text(paths.base_samples, as_lines(flagged([asked], 0, [("", True)])))
    assert found.samples.to_dict("list") == {
        "prompt": [0, 0, 0],
        "question": ["Hi?"] * 3,
        "reference": [""] * 3,
        "trial": ["base", "t0000", "t0000"],
        "step": [0, 2, 3],
        "answer": ["", "Hi. " * 20, "Hi. " * 20],
        "flags": ["empty", "repeats no_end", "repeats no_end"],
    }


def test_sweeps_are_compared_and_what_differs_is_told(recorded: Results, tmp_path: Path) -> None:
    other = found_in(tmp_path, EVENTS)
    rows = results.compare(recorded, recorded, other).to_dict("records")
    assert [row["comparable"] for row in rows] == [True, True, False]
    assert [row["trials"] for row in rows] == [22, 22, 2]
    assert rows[2]["gain"] == 0.5
    told = results.differences(recorded, other)
    assert told.columns.tolist() == ["lr_batch", "x"]
    assert told.loc["trial.lora_r"].tolist() == ["8", "16"]
    assert "seed" in told.index
    assert results.differences(recorded, recorded).empty
