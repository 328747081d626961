"""A sweep on two sources: their losses are in the journal, on the leaderboard and in the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sftray.config import DataConfig, SweepConfig
from sftray.errors import ConfigError
from sftray.results import load
from sftray.results.leaderboard_text import table
from sftray.results.log_lines import progress
from sftray.results.records import by_source
from sftray.sweep.run import run_sweep
from sftray.views.report.report import write_report
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
