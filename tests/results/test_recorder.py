"""What a sweep prints and writes when a trial ends."""

from __future__ import annotations

import json
from pathlib import Path

from fake_trials import make_search, make_sweep

from sftray.results.recorder import Recorder
from sftray.storage.journal import Journal
from sftray.storage.paths import SweepPaths


def metrics(step: int, eval_loss: float) -> dict[str, object]:
    counts = {"rows": step * 4, "tokens": step * 1000, "supervised_tokens": step * 400}
    times = {"seconds": step * 2.0, "gpu_seconds": step * 2.0}
    return {"step": step, "eval_loss": eval_loss, **times, **counts}


def test_of_a_trial_that_has_ended_the_checkpoint_stays_that_the_winner_needs(
    tmp_path: Path,
) -> None:
    metric = {"metric": "sftray.metrics:exact_match", "objective": "metric"}
    for changes, kept in (({}, [2]), (metric, [2, 6])):
        paths = SweepPaths(str(tmp_path / str(len(kept))))
        sweep = make_sweep(points=({"learning_rate": 1e-3}, {}), **changes)
        with Journal(paths.journal) as journal:
            search = make_search(sweep, journal)
            recorder = Recorder(sweep, paths, journal, lambda line: None)
            for trial in ("t0000", "t0001"):
                search.suggest()
                for step, loss in ((0, 3.0), (2, 2.5), (4, 2.6), (6, 2.7)):
                    search.record(trial, metrics(step, loss))
                for step in (2, 4, 6):
                    Path(paths.trial(trial).checkpoint(step)).mkdir(parents=True)
            search.end("t0000", "completed")
            recorder.finish_trials()
        for trial, steps in (("t0000", kept), ("t0001", [2, 4, 6])):  # the other still runs
            there = sorted(path.name for path in Path(paths.trial(trial).checkpoints).iterdir())
            assert there == [f"step-{step:07d}" for step in steps]


def test_a_trial_that_ends_is_told_with_its_verdict_only_where_something_is_wrong(
    tmp_path: Path,
) -> None:
    sweep = make_sweep(points=({"learning_rate": 1e-3}, {"learning_rate": 0.5}))
    paths = SweepPaths(str(tmp_path))
    lines: list[str] = []
    with Journal(paths.journal) as journal:
        search = make_search(sweep, journal)
        recorder = Recorder(sweep, paths, journal, lines.append)
        for trial, loss in (("t0000", 2.5), ("t0001", 4.0)):
            search.suggest()
            search.attempt(trial)
            search.record(trial, metrics(0, 3.0))
            search.record(trial, metrics(2, loss))
            search.end(trial, "completed")
            recorder.finish_trials()
    assert lines == [
        "t0000  completed",
        "t0001  completed",
        "t0001  The base was better: its eval loss is 3.000, the best is 4.000 at step 2, and "
        "train loss does not fall either. Lower the learning rate from 0.5 to about 0.05.",
    ]
    board = json.loads(Path(paths.leaderboard).read_text())
    assert [row["diagnosis"] for row in board["trials"]] == ["healthy", "base_better"]
    assert lines[2] == f"t0001  {board['trials'][1]['verdict']} {board['trials'][1]['advice']}"
