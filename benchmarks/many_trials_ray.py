"""A sweep of many empty trials through Ray Tune whose driver is killed halfway, for many_trials.py.

A driver's life is a process of its own with a Ray of its own; the benchmark looks at it from the
outside, ends the first life by SIGKILL when half of the trials have ended, and begins the second.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from console import say
from many_trials import ROWS, reports, sweep_of
from ray import tune

from sftray.cluster.connect import connect
from sftray.config import SweepConfig
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.storage.journal import Journal, read_events, reader
from sftray.storage.journal.event_types import EventName, SweepEnded
from sftray.storage.paths import SweepPaths
from sftray.trainers.runner import ToSpec, TrialSpecs, TuneConfig, tune_trials

AT_ONCE = 4
LOOK_SECONDS = 0.5
COLUMNS = ("cpu", "wall", "memory", "folder", "scratch", "replay", "resume")


def measure(trials: int, scheduler: str, folder: Path) -> dict[str, float]:
    """Both lives of a sweep. cpu, wall: milliseconds a trial of the driver; memory: megabytes that
    it had at most above what it began with; folder, scratch: megabytes of the sweep's folder and of
    Tune's own files; replay, resume: seconds of the second life until the journal has been replayed
    and until a trial reports."""
    lives = [
        _watch(trials, scheduler, folder, until=trials // 2),
        _watch(trials, scheduler, folder, until=None),
    ]
    events = read_events(SweepPaths(str(folder / "many")).journal)
    _check(events, trials)
    second = json.loads((folder / "life.json").read_text())
    return {
        "events": len(events),
        "cpu": 1000 * sum(life["cpu"] for life in lives) / trials,
        "wall": 1000 * sum(life["wall"] for life in lives) / trials,
        "memory": max(life["memory"] for life in lives) / 1e6,
        "scratch": max(life["scratch"] for life in lives) / 1e6,
        "folder": _size(folder / "many") / 1e6,
        "replay": second["replay"],
        "resume": second["resume"],
    }


def show(trials: int, measured: Mapping[str, float]) -> None:
    """A line of the table."""
    numbers = "{:10.1f} {:6.1f} {:7.0f} {:7.1f} {:8.1f} {:7.2f} {:7.2f}".format(
        *(measured[name] for name in COLUMNS)
    )
    say(f"{trials:6} {measured['events']:7.0f} {numbers}")


def _check(events: list[dict[str, Any]], trials: int) -> None:
    """Every trial ended once, and no event is there twice."""
    ended = Counter(event["trial"] for event in events if event["event"] == "trial_ended")
    assert ended == {f"t{number:04d}": 1 for number in range(trials)}
    keys = Counter((e["event"], e["trial"], e.get("step"), e.get("attempt")) for e in events)
    assert max(keys.values()) == 1


def _watch(trials: int, scheduler: str, folder: Path, *, until: int | None) -> dict[str, float]:
    """A driver's life, ended by SIGKILL when `until` trials have ended; what it cost from the
    moment that Ray was there."""
    (folder / "tmp").mkdir(exist_ok=True)
    began = folder / "began.json"
    began.unlink(missing_ok=True)
    command = [sys.executable, __file__, str(folder), str(trials), scheduler]
    env = {**os.environ, "TMPDIR": str(folder / "tmp")}
    env["RAY_DEDUP_LOGS_SKIP_REGEX"] = "PYTHON worker processes have been started"
    env["RAY_worker_niceness"] = "0"  # the driver waits for trials, not for the machine's others
    process = subprocess.Popen(command, env=env)
    driver = psutil.Process(process.pid)
    journal, ended = reader(SweepPaths(str(folder / "many")).journal), 0
    seen: dict[str, float] = {"cpu": 0.0, "memory": 0.0, "scratch": 0.0, "wall": 0.0}
    try:
        while process.poll() is None and (until is None or ended < until):
            time.sleep(LOOK_SECONDS)
            if began.exists():
                _look(driver, json.loads(began.read_text()), folder, seen)
                ended += sum(event["event"] == "trial_ended" for event in journal.new())
    finally:
        if process.poll() is None:
            _kill(driver)
    code = process.wait()
    assert code == (0 if until is None else -9), code
    return seen


def _look(
    driver: psutil.Process, began: Mapping[str, float], folder: Path, seen: dict[str, float]
) -> None:
    """Bring what has been seen of a driver up to date."""
    with contextlib.suppress(psutil.Error):  # it has just ended
        seen["cpu"] = sum(driver.cpu_times()[:2]) - began["cpu"]
        seen["memory"] = max(seen["memory"], driver.memory_info().rss - began["memory"])
        seen["wall"] = time.time() - began["time"]
        seen["scratch"] = max(seen["scratch"], _size(folder / "tmp"))


def _kill(driver: psutil.Process) -> None:
    """End a driver as a machine does that loses its power, and see that its Ray goes with it."""
    ray = driver.children(recursive=True)
    driver.kill()
    _, alive = psutil.wait_procs(ray, timeout=10)
    for process in alive:
        process.kill()


def _size(folder: Path) -> float:
    total = 0
    for parent, _, names in os.walk(folder):  # which passes over what Tune removes meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return float(total)


class Empty(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """A trial whose reports are there at once."""

    _reports: Iterator[dict[str, Any]]
    _last: dict[str, Any]

    def setup(self, config: TuneConfig, *, to_spec: ToSpec) -> None:
        self._to_spec = to_spec
        self.reset_config(config)

    def reset_config(self, new_config: TuneConfig) -> bool:
        spec = self._to_spec(new_config)
        self._reports, self._last = reports(spec.config, spec.plan), {}
        return True

    def step(self) -> dict[str, Any]:
        report = next(self._reports, None)
        if report is not None:
            self._last = report
            return report
        return {**self._last, "outcome": "completed", "done": True}


def live(folder: Path, sweep: SweepConfig) -> None:
    """A driver's life."""
    connect(lambda line: None, dashboard=False)
    paths = SweepPaths(str(folder / "many"))
    plan = planner(sweep, ROWS, execution=ONE_ROW)
    began = {"cpu": sum(psutil.Process().cpu_times()[:2]), "time": time.time()}
    began["memory"] = psutil.Process().memory_info().rss
    (folder / "began.new").write_text(json.dumps(began))
    (folder / "began.new").rename(folder / "began.json")
    started, told = time.perf_counter(), []
    with Journal(paths.journal) as journal:
        search = Search(sweep, journal, plan)
        recorder = Recorder(
            sweep, paths, journal, lambda line: told.append(time.perf_counter() - started)
        )
        replay = time.perf_counter() - started
        trainable = tune.with_parameters(Empty, to_spec=TrialSpecs(sweep, paths, "", plan).of)
        tune_trials(
            trainable, TrialSpecs(sweep, paths, "", plan), search, recorder, at_once=AT_ONCE
        )
        recorder.finish_trials()
        recorder.write_leaderboard()
        journal.append(SweepEnded(event=EventName.SWEEP_ENDED, trial=None))
    (folder / "life.json").write_text(json.dumps({"replay": replay, "resume": told[0]}))


if __name__ == "__main__":
    live(Path(sys.argv[1]), sweep_of(int(sys.argv[2]), sys.argv[3]))
