"""Sweeps on two sources, their share an axis or not: losses in journal, leaderboard and report."""

from __future__ import annotations

import os
import runpy
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from sftray.config import DataConfig, SweepConfig, uniform
from sftray.errors import ConfigError
from sftray.results import load
from sftray.results.audit import audit
from sftray.results.leaderboard_text import table
from sftray.results.log_lines import progress
from sftray.results.records import TrialRecord, by_source
from sftray.sweep.run import run_sweep
from sftray.sweep.warm_start import learn_from
from sftray.views.report.report import write_report
from sftray.views.tracking.optuna_study import write_studies
from sftray.views.tracking.tracked_metrics import TrackedTrial


@pytest.mark.ray
def test_a_sweep_shows_the_losses_of_each_source_everywhere(
    ray_cluster: None, small_sweep_config: SweepConfig, mixed_data: DataConfig, tmp_path: Path
) -> None:
    sweep = replace(
        small_sweep_config,
        name="mixed",
        data=mixed_data,
        points=({"learning_rate": 1e-2},),
        rungs=(),
        evals_per_trial=2,
        num_samples_generated=1,
    )
    lines: list[str] = []
    found = run_sweep(sweep, local=True, log=lines.append)
    (row,), base = found.leaderboard["trials"], found.leaderboard["base"]
    for of in (row, base):
        chats, sums = of["by_source"]["chats"], of["by_source"]["sums"]
        assert of["eval_loss"] == pytest.approx(0.7 * chats + 0.3 * sums)
    best = found.trials.iloc[0]
    assert best["eval_loss/sums"] == row["by_source"]["sums"] < base["by_source"]["sums"]
    header = table(found.leaderboard).split()[:5]
    assert header == ["trial", "learning_rate", "eval_loss", "chats", "sums"]
    assert f"{row['by_source']['sums']:.4f}" in table(found.leaderboard)
    assert f"sums {row['by_source']['sums']:.4f}" in "\n".join(lines)
    assert any("70 % of those that are drawn" in line for line in lines)
    assert any(line.startswith("best/: reloaded") for line in lines), lines
    text = Path(write_report(found.folder)).read_text()
    assert '<th class="number">sums</th>' in text
    assert f"{row['by_source']['sums']:.4f}" in text
    newest = found.records[0].results[-1]
    (*_, tracked) = TrackedTrial(sweep, "t0000", row["point"]).evaluated(newest)
    assert tracked.values["eval_loss/source/sums"] == by_source(newest)["sums"]
    assert "sums" in progress("t0000", newest)
    assert load(found.folder).leaderboard == found.leaderboard
    other = replace(mixed_data, sources=[(one.path, 0.5) for one in mixed_data.mixture])
    with pytest.raises(ConfigError, match=r"it differs in data\.sources"):
        run_sweep(replace(sweep, data=other), local=True, log=lines.append)


@pytest.mark.ray
@pytest.mark.exhaustive
@pytest.mark.parametrize("trainer", ["train", "bank"])
def test_a_search_over_a_share_that_was_interrupted_is_the_one_that_was_not(
    ray_cluster: None,
    small_sweep_config: SweepConfig,
    mixed_data: DataConfig,
    tmp_path: Path,
    trainer: str,
) -> None:
    sweep = replace(
        small_sweep_config,
        name="shares",
        data=mixed_data,
        trial=replace(small_sweep_config.trial, lora_dropout=0.0, learning_rate=1e-2),
        points=(),
        search_space={"mixture.sums": uniform(0, 0.5)},
        num_trials=2,
        trainer=trainer,
        max_concurrent_trials=1,
    )
    local, lines = trainer == "train", list[str]()
    undisturbed = run_sweep(replace(sweep, name="undisturbed"), local=local, log=lines.append)
    assert any("first:" in line and "mixture.sums=0.3" in line for line in lines), lines

    def press_ctrl_c(line: str) -> None:
        if line.startswith("t0001  step"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, local=local, log=press_ctrl_c)
    found = run_sweep(sweep, local=local, log=lines.append)
    assert list(map(_timeless, found.records)) == list(map(_timeless, undisturbed.records))
    first, second = found.records
    assert second.point["mixture.sums"] != first.point["mixture.sums"] == pytest.approx(0.3)
    assert second.results[0]["eval_loss"] == first.results[0]["eval_loss"]
    assert [r["rows"] for r in second.results][:2] == [r["rows"] for r in first.results][:2]
    for trial in found.records:
        for result in trial.trained:
            chats, sums = by_source(result).values()
            assert result["eval_loss"] == pytest.approx(0.7 * chats + 0.3 * sums)
    assert audit(found.folder).differences == ()
    best = Path(found.folder, "best")
    share = found.leaderboard["trials"][0]["point"]["mixture.sums"]
    assert f"({100 * share:.3g} % of the rows)" in (best / "README.md").read_text()
    again: dict[str, Any] = runpy.run_path(str(best / "repeat.py"))
    assert again["sweep"].trial.mixture == {"sums": share}
    assert "mixture.sums" in Path(write_report(found.folder)).read_text()
    write_studies([found], str(tmp_path / "study.db"))
    study = optuna.load_study(study_name="shares", storage=f"sqlite:///{tmp_path}/study.db")
    assert [trial.params for trial in study.trials] == [trial.point for trial in found.records]
    known, _ = learn_from(replace(sweep, name="warm"), found.record["identities"], [found], print)
    assert [one.point for one in known] == [t.point for t in found.records if t.outcome != "pruned"]


def _timeless(trial: TrialRecord) -> tuple[object, ...]:
    """What a journal says of a trial, without times and what measures them."""
    names = ("step", "rows", "tokens", "supervised_tokens", "eval_loss", "eval_loss_by_source")
    results = [[result.get(name) for name in names] for result in trial.results]
    decisions = [{**one, "time": None} for one in trial.decisions]
    return trial.trial, trial.point, results, decisions, trial.outcome
