"""W&B gets every trial, once, and can neither stop nor slow a sweep."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from events import an_event
from fake_bundle import facts_of
from fake_wandb import fake_wandb
from tracked_sweep import SWEEP, TRIALS, begin, evaluate_all, record_of, records, result

from sftray.config import TrialConfig
from sftray.config.config_json import to_json
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.storage import files as storage_files
from sftray.storage.journal import Journal
from sftray.storage.paths import SweepPaths
from sftray.trial.samples import as_lines
from sftray.views.tracking.mirror_processes import Tracking
from sftray.views.tracking.tracked_metrics import CURVE, METRICS
from sftray.winner.bundle import seal

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without W&B's settings or key, in a folder of its own."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    paths = SweepPaths.of(str(tmp_path / "results"), SWEEP.name)
    record = record_of(SWEEP)
    storage_files.write_text(paths.sweep, json.dumps(record))
    return paths


@pytest.fixture
def dead_service() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    taken = []

    def accept() -> None:
        try:
            while True:
                taken.append(server.accept()[0])
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_every_trial_is_one_run_with_all_its_metrics(paths: SweepPaths) -> None:
    with Journal(paths.journal) as journal:
        evaluate_all(journal)
        journal.append(an_event("trial_ended", "0000", outcome="completed", message=""))
        lost = [[5, 0.9, 1e-4, 0.5], [6, math.nan, 1e-4, 0.5]]
        ended = {"outcome": "diverged", "message": "step 6: loss nan", "last_curve": lost}
        journal.append(an_event("trial_ended", "0001", **ended))
    samples = Path(paths.trial("0000").samples)
    samples.parent.mkdir(parents=True)
    samples.write_text(
        '{"step": 4, "messages": [{"role": "user", "content": "6 × 7?"}], "reference": "42", '
        '"answer": "42", "flags": []}\n'
    )

    assert mirror(paths) == 0

    first, second = (runs(paths, trial) for trial in TRIALS)
    assert len(first) == len(second) == 1
    run = first[0]
    assert run["id"] == "lr-1f2e3d4c-0000"
    assert run["name"] == "0000 learning_rate=0.000123"
    assert (run["group"], run["job_type"], run["project"]) == ("lr", "trial", "sftray")
    assert run["config"]["learning_rate"] == 1.234e-4
    assert run["config"]["effective_batch_size"] == 4
    assert run["config"]["data_max_length"] == 64

    evaluations = [row for row in run["history"] if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [0, 2, 4]
    for row in evaluations:
        expected = result(row["step"])
        assert {name: row[name] for name in METRICS} == {name: expected[name] for name in METRICS}
    curve = [row for row in run["history"] if "train/loss" in row]
    assert [(row["step"], row["rows"]) for row in curve] == [(1, 4), (2, 8), (3, 12), (4, 16)]
    assert all(name in row for row in curve for name in CURVE)
    steps = [row["_step"] for row in run["history"]]
    assert steps == sorted(set(steps))
    assert run["axes"]["eval_loss"] == "tokens"
    assert run["axes"]["train/loss"] == "step"

    assert run["summary"]["outcome"] == "completed"
    assert run["summary"]["base_eval_loss"] == result(0)["eval_loss"]
    assert run["summary"]["best_eval_loss"] == result(4)["eval_loss"]
    assert run["exit_code"] == 0
    assert any("samples" in row for row in run["history"])
    assert second[0]["summary"]["outcome"] == "diverged"
    assert second[0]["exit_code"] == 1
    assert not any("samples" in row for row in second[0]["history"])
    after = [row for row in second[0]["history"] if row["step"] > 4]
    assert [(row["step"], row["rows"]) for row in after] == [(5, 20), (6, 24)]
    assert math.isnan(after[1]["train/loss"])
    assert "last_curve" not in second[0]["summary"]


def test_a_sweep_that_has_ended_hands_in_leaderboard_and_adapter_once(paths: SweepPaths) -> None:
    sampled = {"messages": [{"role": "user", "content": "6 × 7?"}], "reference": "42"}
    answers = [
        {**sampled, "step": 2, "answer": "a b c " * 20, "flags": ["repeats"]},
        {**sampled, "step": 4, "answer": "", "flags": ["empty"]},
    ]
    storage_files.write_text(paths.trial("0001").samples, as_lines(answers))
    with Journal(paths.journal) as journal:
        whole_sweep(journal, paths)
    of_base = {**sampled, "step": 0, "answer": "41", "flags": []}
    storage_files.write_text(paths.base_samples, as_lines([of_base]))
    storage_files.write_text(f"{paths.best}/adapter_model.safetensors", "weights")
    facts = to_json(facts_of(TrialConfig("base"), trial="0001"))
    storage_files.write_text(f"{paths.best}/sweep.json", json.dumps(facts))
    seal(Path(paths.best))
    lines: list[str] = []
    for _ in range(2):
        sweep = replace(SWEEP, wandb_adapter=True)  # when it was begun it was not asked for
        Tracking.start(sweep, paths, lines.append).finish(600)
    pieces = runs(paths, "0001")
    assert len(pieces) == 2  # trained; handed in
    assert pieces[0]["id"] == pieces[1]["id"]
    assert len(runs(paths, "0000")) == 1
    last = pieces[1]["artifacts"]
    assert last["lr-leaderboard"]["metadata"]["best"] == "0001"
    assert set(last["lr-adapter"]["files"]) == {*storage_files.list_names(paths.best)}
    assert last["lr-adapter"]["metadata"]["eval_loss"] == 2.5
    (table,) = tables(paths, "leaderboard")
    board = json.loads(table.read_text())
    assert board["columns"][:3] == ["trial", "learning_rate", "eval_loss"]
    assert [row[:3] for row in board["data"]] == [["0001", 5e-4, 2.5], ["0000", 1.234e-4, 3.0]]
    newest = json.loads(tables(paths, "samples")[-1].read_text())
    assert newest["columns"] == ["prompt", "step", "reference", "base", "answer", "flags"]
    assert newest["data"] == [
        ["6 × 7?", 2, "42", "41", "a b c " * 20, "repeats"],
        ["6 × 7?", 4, "42", "41", "", "empty"],
    ]
    steps = [row["_step"] for piece in pieces for row in piece["history"]]
    assert steps == sorted(set(steps))


def test_a_loss_that_is_not_a_number_arrives(paths: SweepPaths) -> None:
    with Journal(paths.journal) as journal:
        begin(journal)
        journal.append(
            an_event("result", "0000", step=2, metrics=result(2) | {"eval_loss": math.nan})
        )
        journal.append(an_event("trial_ended", "0000", outcome="diverged", message=""))
    assert mirror(paths) == 0
    (run,) = runs(paths, "0000")
    assert math.isnan(run["history"][-1]["eval_loss"])
    assert "best_eval_loss" not in run["summary"]


def test_a_resumed_sweep_continues_the_same_run_without_repeating_steps(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    with Journal(paths.journal) as journal:
        begin(journal)
        tracking = Tracking.start(SWEEP, paths, lines.append)
        for step in (0, 2):
            journal.append(an_event("result", "0000", step=step, metrics=result(step)))
        tracking.finish(600)  # interrupted
        tracking = Tracking.start(SWEEP, paths, lines.append)
        journal.append(an_event("attempt_started", "0000", attempt=2))
        journal.append(an_event("result", "0000", step=4, metrics=result(4)))
        journal.append(an_event("trial_ended", "0000", outcome="pruned", message=""))
        tracking.finish(600)
    pieces = runs(paths, "0000")
    assert len(pieces) == 2
    assert pieces[0]["id"] == pieces[1]["id"]
    steps = [[row["step"] for row in piece["history"]] for piece in pieces]
    assert steps == [[0, 1, 2], [3, 4]]
    assert pieces[1]["summary"]["base_eval_loss"] == result(0)["eval_loss"]
    assert pieces[1]["exit_code"] == 0
    assert f"wandb sync {paths.tracking}" in lines[-1]

    assert mirror(paths) == 0  # all of this trial is there
    assert len(runs(paths, "0000")) == 2

    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    with fake_wandb() as (address, service):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        command = [sys.executable, "-m", "wandb", "sync", paths.tracking]  # as the line says
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    run = service[pieces[0]["id"]]
    assert [row["step"] for row in run["history"]] == [0, 1, 2, 3, 4]
    assert run["summary"]["outcome"] == "pruned"


def test_what_a_killed_mirror_lost_is_made_again(paths: SweepPaths) -> None:
    with Journal(paths.journal) as journal:
        begin(journal)
        journal.append(an_event("result", "0000", step=2, metrics=result(2)))
        process = start_mirror(paths, "--follow")
        wait_for(lambda: "step" in state(paths).get("0001", {}))
        time.sleep(0.5)
        process.kill()
        process.wait()
        journal.append(an_event("trial_ended", "0000", outcome="completed", message=""))
    assert mirror(paths) == 0
    (run,) = runs(paths, "0000")
    assert [row["step"] for row in run["history"]] == [1, 2]


def test_the_mirror_ends_with_its_driver(paths: SweepPaths) -> None:
    with Journal(paths.journal) as journal:
        begin(journal)
        journal.append(an_event("result", "0000", step=2, metrics=result(2)))
    driver = f"""
import os, json
from sftray.config import TrialConfig
from sftray.config.config_json import sweep_from_json
from sftray.storage.paths import SweepPaths
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.views.tracking.mirror_processes import Tracking
from sftray.trial.samples import as_lines
sweep = sweep_from_json(json.loads({json.dumps(to_json(SWEEP))!r}))
tracking = Tracking.start(sweep, SweepPaths({paths.root!r}), print)
print(tracking._mirrors[0].process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    out = subprocess.run([sys.executable, "-c", driver], capture_output=True, text=True).stdout
    mirror_pid = int(out.splitlines()[-1])
    wait_for(lambda: not alive(mirror_pid))
    (run,) = runs(paths, "0000")
    assert [row["step"] for row in run["history"]] == [1, 2]
    assert run["exit_code"] == 1


def test_without_a_key_there_is_one_line_and_no_process(paths: SweepPaths) -> None:
    lines: list[str] = []
    tracking = Tracking.start(replace(SWEEP, wandb="auto"), paths, lines.append)
    tracking.finish(600)
    assert len(lines) == 1
    assert "wandb login" in lines[0]
    assert not Path(paths.tracking).exists()


def test_disabled_starts_nothing_and_says_nothing(paths: SweepPaths) -> None:
    lines: list[str] = []
    Tracking.start(replace(SWEEP, wandb="disabled"), paths, lines.append).finish(600)
    assert lines == []
    assert not Path(paths.tracking).exists()


def test_a_key_in_the_netrc_or_the_environment_switches_it_online(
    paths: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_service: str
) -> None:
    key = "0123456789" * 4
    monkeypatch.setenv("WANDB_BASE_URL", dead_service)
    home = tmp_path / "home"
    home.mkdir()
    host = dead_service.removeprefix("http://")
    (home / ".netrc").write_text(f"machine {host}\n  login user\n  password {key}\n")
    lines: list[str] = []
    tracking = Tracking.start(replace(SWEEP, wandb="auto"), paths, lines.append)
    tracking.finish(600)
    assert lines == ["W&B: online, project sftray, one run a trial, group lr"]
    written = [path.read_bytes() for path in Path(paths.root).rglob("*") if path.is_file()]
    assert not any(key.encode() in data for data in written)


def test_wandbs_own_mode_is_heeded(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    lines: list[str] = []
    tracking = Tracking.start(replace(SWEEP, wandb="auto"), paths, lines.append)
    tracking.finish(600)
    assert lines == []


def test_a_service_that_hangs_does_not_hold_the_sweep(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch, dead_service: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", dead_service)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    lines: list[str] = []
    with Journal(paths.journal) as journal:
        begin(journal)
        tracking = Tracking.start(replace(SWEEP, wandb="online"), paths, lines.append)
        journal.append(an_event("sweep_ended"))
        wait_for(lambda: any(Path(paths.tracking).glob("run-*")))
        tracking.finish(1)
    assert "not done after 1 s" in lines[-1]
    assert f"python -m sftray.views.tracking.wandb_mirror {paths.root} --mode online" in lines[-1]


def test_a_run_that_cannot_start_online_is_kept_offline(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch, dead_service: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", dead_service)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    with Journal(paths.journal) as journal:
        begin(journal)
        for trial in TRIALS:
            journal.append(an_event("result", trial, step=2, metrics=result(2)))
            journal.append(an_event("trial_ended", trial, outcome="completed", message=""))
    assert mirror(paths, "--mode", "online", "--init-timeout", "2") == 0
    for trial in TRIALS:
        (run,) = runs(paths, trial)
        assert [row["step"] for row in run["history"]] == [1, 2]


def test_online_the_service_knows_where_a_run_stands(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    with fake_wandb() as (address, runs), Journal(paths.journal) as journal:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        journal.append(an_event("sweep_started", uid="1f2e3d4c"))
        journal.append(an_event("trial_suggested", "0000", point={"learning_rate": 5e-4}))
        for step in (0, 2):
            journal.append(an_event("result", "0000", step=step, metrics=result(step)))
        assert mirror(paths, "--mode", "online") == 0
        (run,) = runs.values()
        assert run["exit_code"] == 1
        shutil.rmtree(paths.tracking)  # the driver moved to another machine
        journal.append(an_event("result", "0000", step=4, metrics=result(4)))
        journal.append(an_event("trial_ended", "0000", outcome="completed", message=""))
        journal.append(an_event("sweep_ended"))
        row = {"trial": "0000", "point": {}, "step": 4, "eval_loss": 3.0}
        board = {"best": "0000", "base": {"eval_loss": 4.0}, "trials": [row]}
        storage_files.write_text(paths.leaderboard, json.dumps(board))
        assert mirror(paths, "--mode", "online") == 0
    (run,) = runs.values()
    handed_in = run["artifacts"]["lr-leaderboard"]
    assert handed_in["committed"]
    assert handed_in["metadata"] == {"best": "0000", "base_eval_loss": 4.0}
    assert not any(artifact["type"] == "model" for artifact in run["artifacts"].values())
    assert "leaderboard" in run["history"].pop()
    assert [row["step"] for row in run["history"]] == [0, 1, 2, 3, 4]
    assert [row["eval_loss"] for row in run["history"] if "eval_loss" in row] == [4.0, 3.5, 3.0]
    assert (run["display_name"], run["group"]) == ("0000 learning_rate=0.0005", "lr")
    assert run["summary"]["outcome"] == "completed"
    assert run["exit_code"] == 0


def whole_sweep(journal: Journal, paths: SweepPaths) -> None:
    """Two trials to their end, which is also the budget's, and their leaderboard."""
    begin(journal)
    for number, trial in enumerate(TRIALS):
        for step in (0, 2, 4):
            loss = {"eval_loss": 4.0 - (1 + number / 2) * step / 4}
            journal.append(an_event("result", trial, step=step, metrics=result(step) | loss))
        journal.append(an_event("trial_ended", trial, outcome="completed", message=""))
    journal.append(
        an_event("spent", attempt=1, wall_seconds=9.0, gpu_seconds=9.0, budget="max_hours")
    )
    board = leaderboard(SWEEP, Records(journal.events()))
    storage_files.write_text(paths.leaderboard, json.dumps(board))


def tables(paths: SweepPaths, name: str) -> list[Path]:
    """The tables of a name that offline runs keep, oldest first."""
    found = Path(paths.tracking).glob(f"offline-run-*/files/media/table/{name}_*.table.json")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def start_mirror(paths: SweepPaths, *arguments: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "sftray.views.tracking.wandb_mirror",
        paths.root,
        "--mode",
        "offline",
    ]
    return subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE)


def mirror(paths: SweepPaths, *arguments: str) -> int:
    process = start_mirror(paths, *arguments)
    process.communicate(timeout=600)
    return process.returncode


def state(paths: SweepPaths) -> dict[str, Any]:
    path = Path(paths.tracking) / "mirror.json"
    return json.loads(path.read_text())["trials"] if path.exists() else {}


def wait_for(fact: Any, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "this never comes to be"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def runs(paths: SweepPaths, trial: str) -> list[dict[str, Any]]:
    """The offline pieces of a trial's run, oldest first, as W&B would be sent them. W&B numbers the
    folders of those that begin in one second."""
    files = Path(paths.tracking).glob(f"offline-run-*/run-*-{trial}.wandb")
    return [read_run(path) for path in sorted(files)]


def read_run(path: Path) -> dict[str, Any]:
    run: dict[str, Any] = {"history": [], "summary": {}, "axes": {}, "exit_code": None}
    run["artifacts"] = {}
    names = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            run |= {"id": record.run.run_id, "name": record.run.display_name, "config": config}
            run |= {"group": record.run.run_group, "job_type": record.run.job_type}
            run["project"] = record.run.project
        elif kind == "history":
            items = record.history.item
            row = {(i.key or i.nested_key[0]): json.loads(i.value_json) for i in items}
            run["history"].append(row | {"_step": record.history.step.num})
        elif kind == "summary":
            for item in record.summary.update:
                run["summary"][item.key or item.nested_key[0]] = json.loads(item.value_json)
        elif kind == "metric":
            names[len(names) + 1] = record.metric.name
            axis = record.metric.step_metric or names.get(record.metric.step_metric_index)
            run["axes"][record.metric.name] = axis
        elif kind == "artifact":
            kept = record.artifact
            files = [entry.path for entry in kept.manifest.contents]
            about = json.loads(kept.metadata or "{}")
            run["artifacts"][kept.name] = {"files": files, "metadata": about}
        elif kind == "exit":
            run["exit_code"] = record.exit.exit_code
    return run
