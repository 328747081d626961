"""A sweep as an Optuna study: what Optuna reads again is what the journal has."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from fake_folder import EVENTS, RECORDED, SWEEP, found_in

from sftray import results
from sftray.cli.main import main

State = optuna.trial.TrialState


def run(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_optuna_reads_every_trial_of_a_recorded_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, found = tmp_path / "study.db", results.load(str(RECORDED))
    assert run(["results", str(RECORDED), "--optuna", str(file)]) == 0
    assert f"optuna-dashboard sqlite:///{file}" in capsys.readouterr().out
    study = optuna.load_study(study_name="lr_batch", storage=f"sqlite:///{file}")
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    board = {row["trial"]: row for row in found.leaderboard["trials"]}
    states = {"completed": State.COMPLETE, "pruned": State.PRUNED}
    assert len(study.trials) == len(found.records)
    for trial, record in zip(study.trials, found.records, strict=True):
        attrs = trial.user_attrs
        config = found.trial_configs[record.trial]
        assert trial.params == {axis: getattr(config, axis) for axis in found.axes}
        assert trial.state == states.get(str(record.outcome), State.FAIL)
        assert (attrs["trial"], attrs["outcome"]) == (record.trial, record.outcome)
        assert (attrs.get("repetition_of"), attrs["seed"]) == (record.confirms, config.seed)
        if trial.state == State.COMPLETE:
            assert trial.value == board[record.trial]["eval_loss"]
        rungs = found.rungs.query("trial == @record.trial").set_index("rung")["eval_loss"]
        assert trial.intermediate_values == rungs.to_dict()
        assert trial.datetime_complete is not None
        assert trial.datetime_start is not None
        assert trial.datetime_complete.timestamp() == pytest.approx(record.ended, abs=1)
    assert (
        {one.confirms for one in found.records if one.confirms}
        == {
            one.user_attrs["repetition_of"]
            for one in study.trials
            if "repetition_of" in one.user_attrs
        }
        != set()
    )
    assert study.trials[0].distributions == {
        "learning_rate": optuna.distributions.FloatDistribution(0.0003, 0.3, log=True),
        "effective_batch_size": optuna.distributions.CategoricalDistribution((2, 4)),
    }
    assert study.user_attrs["recommended"].startswith(str(found.leaderboard["best"]))


def test_what_diverged_has_failed_and_what_runs_is_running(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    running = [event for event in EVENTS if event["event"] != "trial_ended"]
    for name, events in (("ended", EVENTS), ("runs", running)):
        (tmp_path / name).mkdir()
        found_in(tmp_path / name, events)
    file = tmp_path / "two.db"
    folders = [str(tmp_path / name) for name in ("ended", "runs")]
    assert run(["results", *folders, "--optuna", str(file)]) == 0
    url = f"sqlite:///{file}"
    assert optuna.get_all_study_names(url) == folders  # both sweeps are called SWEEP.name
    ended, runs = (optuna.load_study(study_name=name, storage=url).trials for name in folders)
    assert [one.state for one in ended] == [State.PRUNED, State.FAIL]
    assert [one.state for one in runs] == [State.RUNNING] * 2
    assert ended[0].intermediate_values == {48: 2.75}
    assert ended[1].user_attrs["message"] == "loss is nan at step 2"
    assert not any(isinstance(v, float) and math.isnan(v) for v in ended[1].user_attrs.values())
    assert SWEEP.name not in folders


def test_no_file_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    assert run(["results", str(RECORDED), "--optuna", str(taken)]) == 2
    assert "got a file that exists" in capsys.readouterr().err
    assert taken.read_text() == "mine"
    assert run(["results", str(RECORDED), "--optuna", str(tmp_path / "no" / "x.db")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
