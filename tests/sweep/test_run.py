"""Whole sweeps on the bundled base: through Ray Tune and Ray Train, and in this process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sftray import results
from sftray.cli.launch import launch
from sftray.cluster.connect import Cluster
from sftray.config import SweepConfig, loguniform
from sftray.errors import ConfigError
from sftray.results import Results
from sftray.results.findings import learn, text
from sftray.results.records import as_reported
from sftray.storage import files
from sftray.storage.journal import read_events
from sftray.storage.paths import SweepPaths
from sftray.sweep.run import run_sweep

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def silent(line: str) -> None:
    """Logs nothing."""


def losses(found: Results) -> dict[tuple[str, int], float]:
    """Eval loss of every trial at every step."""
    return {
        (trial.trial, result["step"]): result["eval_loss"]
        for trial in found.records
        for result in trial.results
    }


# through Ray Tune


@pytest.fixture(scope="module")
def through_tune(
    small_sweep_config: SweepConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SweepConfig, Results, Results]:
    """Seven trials of which 2 fit at once, most of them stopped by ASHA at the first rung.

    Interrupted with Ctrl-C when the third had begun, and run again: config, both results.
    """
    small = small_sweep_config
    sweep = replace(
        small,
        name="seven",
        data=replace(small.data, max_length=128),
        trial=replace(small.trial, effective_batch_size=1, num_train_epochs=0.3),
        points=(),
        search_space={"learning_rate": loguniform(1e-5, 1e-2)},
        num_trials=7,
        rungs=(0.2, 0.6),
        grace_steps=1,
        evals_per_trial=1,
        num_samples_generated=1,
        storage=str(tmp_path_factory.mktemp("tune")),
        trainer="train",
    )

    def press_ctrl_c(line: str) -> None:
        if line.startswith("t0002  started"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, log=press_ctrl_c)
    cut = results.load(SweepPaths.of(sweep.storage, sweep.name).root)
    return sweep, cut, run_sweep(sweep, log=silent)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_7_trials_of_which_2_fit_at_once_ends(
    through_tune: tuple[SweepConfig, Results, Results],
) -> None:
    # pitfall P1: a stopped trial that kept its workers would leave the others waiting for ever
    _, _, found = through_tune
    outcomes = Counter(trial.outcome for trial in found.records)
    assert sum(outcomes.values()) == 7
    assert set(outcomes) == {"completed", "pruned"}
    assert outcomes["pruned"] >= 2
    for trial in found.records:
        stopped = [event for event in trial.decisions if event["decision"] == "stop"]
        assert len(stopped) == (trial.outcome == "pruned")


@pytest.mark.slow
def test_ctrl_c_leaves_a_folder_that_the_same_call_goes_on_with(
    through_tune: tuple[SweepConfig, Results, Results],
) -> None:
    _, cut, found = through_tune
    assert 3 <= len(cut.records) < 7
    assert None in [trial.outcome for trial in cut.records]
    for before, after in zip(cut.records, found.records, strict=False):
        assert after.point == before.point
        reported = [list(map(as_reported, trial.results)) for trial in (before, after)]
        assert reported[1][: len(reported[0])] == reported[0]
        if before.outcome is not None:
            assert replace(after, results=reported[1]) == replace(before, results=reported[0])


@pytest.mark.slow
def test_after_a_sweep_all_cpus_are_free_again(
    through_tune: tuple[SweepConfig, Results, Results],
) -> None:
    import ray

    deadline = time.monotonic() + 600
    while ray.available_resources().get("CPU") != 2.0 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == 2.0


@pytest.mark.slow
def test_running_a_finished_sweep_again_does_nothing_new(
    through_tune: tuple[SweepConfig, Results, Results],
) -> None:
    sweep, _, found = through_tune
    paths = SweepPaths(found.folder)
    before = read_events(paths.journal)
    bundle = Path(paths.best, "sweep.json").stat().st_mtime_ns
    again = run_sweep(sweep, log=silent)
    assert losses(again) == losses(found)
    assert Path(paths.best, "sweep.json").stat().st_mtime_ns == bundle
    events = read_events(paths.journal)
    assert events[: len(before)] == before
    assert {event["event"] for event in events[len(before) :]} <= {
        "sweep_started",
        "sweep_ended",
        "spent",
    }


# in this process


def test_a_sweep_leaves_the_folder_that_the_design_promises(small_sweep: Results) -> None:
    paths = SweepPaths(small_sweep.folder)
    assert set(files.list_names(paths.root)) == {
        "base_samples.jsonl",
        "best",
        "journal.jsonl",
        "journal.jsonl.lock",
        "leaderboard.json",
        "report.html",
        "sweep.json",
        "trials",
    }
    assert [trial.outcome for trial in small_sweep.records] == ["completed", "completed", "pruned"]
    for trial in small_sweep.records:
        folder = paths.trial(trial.trial)
        assert len(files.read_text(folder.metrics).splitlines()) == len(trial.results)
        assert json.loads(files.read_text(folder.outcome))["outcome"] == trial.outcome
        config = json.loads(files.read_text(folder.config))
        assert config["point"] == trial.point
        assert config["config"]["learning_rate"] == trial.point["learning_rate"]
        assert config["ran_with"]["attention"] == "sdpa"


def test_the_base_is_evaluated_once_a_sweep(small_sweep: Results) -> None:
    first = [trial.results[0] for trial in small_sweep.records]
    assert [result["step"] for result in first] == [0, 0, 0]
    assert len({result["eval_loss"] for result in first}) == 1


def test_no_evaluation_is_journalled_twice(small_sweep: Results) -> None:
    for trial in small_sweep.records:
        steps = [result["step"] for result in trial.results]
        assert steps == sorted(set(steps))


def test_a_sweep_interrupted_twice_ends_with_the_losses_of_one_that_was_not(
    small_sweep: Results, small_sweep_config: SweepConfig, tmp_path: Path
) -> None:
    shutil.copytree(Path(small_sweep_config.storage, "packs"), tmp_path / "packs")
    sweep = replace(small_sweep_config, storage=str(tmp_path))
    for killed_at in ("t0000  step     4", "t0002  started"):

        def log(line: str, killed_at: str = killed_at) -> None:
            if line.startswith(killed_at):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_sweep(sweep, local=True, log=log)
        assert results.load(str(tmp_path / sweep.name)).records[-1].outcome is None
    found = run_sweep(sweep, local=True, log=silent)
    assert losses(found) == pytest.approx(losses(small_sweep), abs=1e-6)
    assert [t.outcome for t in found.records] == [t.outcome for t in small_sweep.records]
    assert found.leaderboard["best"] == small_sweep.leaderboard["best"]


def test_a_sweep_ends_with_its_budget_and_goes_on_with_a_larger_one(
    small_sweep: Results, small_sweep_config: SweepConfig, tmp_path: Path
) -> None:
    shutil.copytree(Path(small_sweep_config.storage, "packs"), tmp_path / "packs")
    sweep = replace(small_sweep_config, storage=str(tmp_path), max_hours=1.0, max_gpu_hours=9.0)
    lines, hours = list[str](), 0.0

    def log(line: str) -> None:
        nonlocal hours
        lines.append(line)
        if line.startswith("t0001  step     4"):
            hours += 2.0

    first = run_sweep(sweep, local=True, log=log, clock=lambda: 3600 * hours)
    assert [(t.outcome, t.last["step"]) for t in first.records] == [("completed", 12), (None, 5)]
    (said,) = [line for line in lines if line.startswith("max_hours=1 is used up")]
    assert "(2.00 hours): raise it and run the same command to continue. Trials cut off: 1" in said
    assert said.endswith("(t0001 at step 5); not begun: 1")
    assert any("max_gpu_hours never ends this sweep" in line for line in lines)
    assert not first.ended
    assert first.leaderboard["budget_spent"] == "max_hours"
    assert list(first.trials["outcome"]) == ["completed", "unfinished"]
    so_far = "So far, because max_hours is used up (1 trials unfinished): "
    assert text(learn(first)).startswith(so_far)
    best = json.loads((tmp_path / "small" / "best" / "sweep.json").read_text())
    assert best["trial"] == first.leaderboard["best"]
    assert "max_hours is used up" in (tmp_path / "small" / "report.html").read_text()

    lines.clear()
    again = run_sweep(sweep, local=True, log=log, clock=lambda: 3600 * hours)
    assert losses(again) == losses(first)
    assert len([line for line in lines if "max_hours=1 is used up (2.00 hours)" in line]) == 1
    assert not [line for line in lines if line.startswith("t0")]

    found = run_sweep(replace(sweep, max_hours=3.0), local=True, log=log, clock=lambda: 0.0)
    assert losses(found) == pytest.approx(losses(small_sweep), abs=1e-6)
    assert [t.outcome for t in found.records] == [t.outcome for t in small_sweep.records]
    assert found.leaderboard["best"] == small_sweep.leaderboard["best"]
    assert "budget_spent" not in found.leaderboard


def test_another_configuration_of_the_same_name_is_refused_by_field(
    small_sweep: Results, small_sweep_config: SweepConfig
) -> None:
    other = replace(
        small_sweep_config, trial=replace(small_sweep_config.trial, lora_r=8), seed=1, num_trials=99
    )
    with pytest.raises(
        ConfigError, match=re.escape("it differs in seed, trial.lora_r; use --name")
    ):
        run_sweep(other, local=True, log=silent)


def test_a_sweep_in_which_no_trial_finished_exits_with_1(
    small_sweep_config: SweepConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = replace(
        small_sweep_config,
        trial=replace(small_sweep_config.trial, warmup_ratio=0.0),
        points=({"learning_rate": 1e30},),
        scheduler="none",
        storage=str(tmp_path),
    )
    with pytest.raises(SystemExit, match=r"^1$"):
        launch(sweep, ["--local"])
    said = capsys.readouterr().err
    assert f"{tmp_path}/small: no trial finished" in said
    assert "t0000: diverged: step 2: loss nan" in said
    board = json.loads((tmp_path / "small" / "leaderboard.json").read_text())
    assert board["best"] is None
    assert not (tmp_path / "small" / "best").exists()


# before anything starts


@pytest.mark.parametrize(
    ("cluster", "workers", "most", "fits"),
    [
        (Cluster(2, 0), 1, None, 2),
        (Cluster(16, 0), 4, None, 4),
        (Cluster(64, 8), 2, None, 4),
        (Cluster(4, 8), 1, None, 4),
        (Cluster(64, 8), 1, 3, 3),
    ],
)
def test_as_many_trials_run_at_once_as_the_cluster_holds(
    small_sweep_config: SweepConfig, cluster: Cluster, workers: int, most: int | None, fits: int
) -> None:
    trial = replace(small_sweep_config.trial, num_workers=workers, effective_batch_size=8)
    sweep = replace(small_sweep_config, trial=trial, max_concurrent_trials=most)
    assert cluster.concurrency(sweep) == fits


def test_a_trial_that_fits_nowhere_is_an_error(small_sweep_config: SweepConfig) -> None:
    trial = replace(small_sweep_config.trial, num_workers=4, effective_batch_size=8)
    sweep = replace(small_sweep_config, trial=trial, use_gpu=True)
    with pytest.raises(
        ConfigError,
        match="got a cluster of 16 CPUs and 2 GPUs, must have 4 × 1 CPUs and 4 GPUs; lower",
    ):
        Cluster(16, 2).concurrency(sweep)


def test_nothing_is_written_when_a_point_could_not_run(
    small_sweep_config: SweepConfig, tmp_path: Path
) -> None:
    shutil.copytree(Path(small_sweep_config.storage, "packs"), tmp_path / "packs")
    sweep = replace(
        small_sweep_config, points=({"effective_batch_size": 16},), storage=str(tmp_path)
    )
    with pytest.raises(ConfigError, match="must give at least 10; batch sizes that fit: 1, 2;"):
        run_sweep(sweep, local=True, log=silent)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["packs"]
