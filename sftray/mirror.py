"""The process that mirrors a sweep's journal to W&B: one run a trial, grouped by sweep.

Promise: every trial, every evaluation and every step once, also after a kill or a resume, and
with the network gone for a while: the journal is the truth, and what W&B lacks is made again from
it. Price: W&B is behind the journal by about a second.

`python -m sftray.mirror SWEEP_FOLDER` mirrors a sweep after the fact.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import select
import shutil
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb

from sftray import storage
from sftray.journal import Event, reader
from sftray.paths import SweepPaths
from sftray.redact import redact
from sftray.tracking import left_offline, local_folder
from sftray.wandb_run import UPLOAD_SECONDS, define_axes, log_result, log_samples, start_run

POLL_SECONDS = 1.0
READING_SHARE = 0.05  # of the time, at most, goes into reading a long or a remote journal
INIT_SECONDS = 20.0
OFFLINE_SECONDS = 600.0  # before W&B is tried again with new trials, once it did not answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Mirror a sweep's journal to W&B; 0 if all of it was taken."""
    parser = argparse.ArgumentParser("python -m sftray.mirror", description=__doc__)
    parser.add_argument("folder", help="the sweep's folder or URI")
    parser.add_argument("--mode", choices=("online", "offline"), default="online")
    parser.add_argument("--project", default="sftray")
    parser.add_argument("--init-timeout", type=float, default=INIT_SECONDS, metavar="SECONDS")
    parser.add_argument(
        "--follow", action="store_true", help="go on until a line or the end comes on stdin"
    )
    given = parser.parse_args(arguments)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # 24 s at an error without network
    os.environ.pop("WANDB_SERVICE", None)  # shared with nobody: it may have to be ended
    paths = SweepPaths(given.folder)
    lock = _take_lock(local_folder(paths))
    mirror = Mirror(paths, given.project, given.mode, given.init_timeout)
    reading = mirror.catch_up()
    told = not given.follow
    while not told:
        wait = max(POLL_SECONDS, reading / READING_SHARE)
        told = bool(select.select([sys.stdin], [], [], wait)[0])
        reading = mirror.catch_up()
    all_taken = mirror.close()
    os.close(lock)
    if left := left_offline(local_folder(paths)):
        _say(left)
    return 0 if all_taken else 1


@dataclass
class _Trial:
    name: str
    point: Mapping[str, Any]
    step: int
    """The last step that W&B has."""
    run: Any = None
    base_eval_loss: float | None = None
    best_eval_loss: float = math.inf


class Mirror:
    """What W&B has of a sweep. `mirror.json` keeps a trial's step once its run is closed: what lies
    in an open run is lost when this process is killed, and is then made again from the journal.
    Online, W&B itself knows a run's last step."""

    def __init__(self, paths: SweepPaths, project: str, mode: str, init_timeout: float) -> None:
        self._paths, self._project, self._mode = paths, project, mode
        self._init_timeout = init_timeout
        self._folder = local_folder(paths)
        self._sweep: dict[str, Any] = {}
        self._saved: dict[str, dict[str, Any]] = {}
        self._trials: dict[str, _Trial] = {}
        self._journal = reader(paths.journal)
        self._waiting: deque[Event] = deque()
        """Events that were read and not applied yet."""
        self._offline_until = 0.0
        self._all_read = self._all_taken = True

    def catch_up(self) -> float:
        """Bring W&B to the end of the journal; the seconds that reading it took."""
        started = time.monotonic()
        try:
            self._waiting += self._journal.new()
            if self._waiting and not self._sweep:
                self._begin()
            self._all_read = True
        except OSError as error:  # storage out of reach; the next poll tries again
            _say(f"{self._paths.root}: {error}")
            self._all_read = False
        reading = time.monotonic() - started
        while self._waiting and self._sweep:
            event = self._waiting.popleft()
            try:
                self._apply(event)
            except wandb.errors.Error as error:
                self._all_taken = False
                what = f"{event['event']} of trial {event.get('trial')}"
                _say(f"{what}: {type(error).__name__}: {error}")
        return reading

    def close(self) -> bool:
        """Close the runs of trials that have not ended; whether W&B took everything."""
        for trial in self._trials.values():
            self._close(trial, exit_code=1)
        return self._all_taken and self._all_read

    def _begin(self) -> None:
        record = json.loads(storage.read_text(self._paths.sweep))
        self._sweep, self._uid = record["config"], record["uid"]
        path = self._folder / "mirror.json"
        state = json.loads(path.read_bytes()) if path.exists() else {}
        if state.get("uid") == self._uid:
            self._saved = state["trials"]

    def _apply(self, event: Event) -> None:
        if event["event"] == "trial_suggested":
            saved = self._saved.get(event["trial"], {"step": -1})
            self._trials[event["trial"]] = _Trial(event["trial"], event["point"], saved["step"])
            return
        trial = self._trials.get(event.get("trial") or "")
        if trial is None or self._saved.get(trial.name, {}).get("ended"):
            return
        if event["event"] == "attempt_started":
            self._open(trial)
        elif event["event"] == "result":
            self._log_result(trial, event["step"], event["metrics"])
        elif event["event"] == "trial_ended":
            self._end(trial, event)

    def _open(self, trial: _Trial) -> None:
        """Make sure that the trial has a run. One that was ever offline stays so: W&B takes the
        pieces of a run in order."""
        if trial.run is not None:
            return
        saved = self._saved.setdefault(trial.name, {"step": trial.step})
        if saved.get("open"):
            shutil.rmtree(saved["open"], ignore_errors=True)  # cut off by a kill
        waiting = time.monotonic() < self._offline_until
        offline = self._mode == "offline" or saved.get("offline", False) or waiting
        if not offline:
            try:
                trial.run = self._init(trial, "online")
            except wandb.errors.Error as error:
                _say(f"trial {trial.name}: kept offline, W&B did not take it ({error})")
                self._offline_until = time.monotonic() + OFFLINE_SECONDS
                self._release()
        if trial.run is None:
            trial.run = self._init(trial, "offline")
            saved |= {"offline": True, "open": str(Path(trial.run.dir).parent)}
            self._save()
        else:
            trial.step = max(trial.step, trial.run.starting_step - 1)
        define_axes(trial.run)

    def _init(self, trial: _Trial, mode: Literal["online", "offline"]) -> Any:
        return start_run(
            self._sweep,
            self._uid,
            trial.name,
            trial.point,
            mode=mode,
            project=self._project,
            folder=self._folder.parent,
            init_timeout=self._init_timeout,
        )

    def _release(self) -> None:
        """End W&B's service process: it holds the id of a run that failed to start until then.
        The other runs are opened again when they have something to log."""
        for trial in self._trials.values():
            self._close(trial, exit_code=1)
        wandb.teardown()

    def _log_result(self, trial: _Trial, step: int, metrics: Mapping[str, Any]) -> None:
        self._open(trial)
        loss = metrics.get("eval_loss")
        if step == 0:
            trial.base_eval_loss = loss
        elif loss is not None and loss < trial.best_eval_loss:
            trial.best_eval_loss = loss
        if step <= trial.step:
            return
        log_result(trial.run, step, metrics, after=trial.step)
        trial.step = step

    def _end(self, trial: _Trial, event: Event) -> None:
        self._open(trial)
        summary = {k: v for k, v in event.items() if k not in ("event", "trial", "time")}
        summary["base_eval_loss"] = trial.base_eval_loss
        if math.isfinite(trial.best_eval_loss):
            summary["best_eval_loss"] = trial.best_eval_loss
        trial.run.summary.update(summary)
        succeeded = event["outcome"] in ("completed", "pruned")
        try:
            if self._sweep["wandb_samples"]:
                self._log_samples(trial)
        finally:
            self._close(trial, exit_code=0 if succeeded else 1, ended=True)

    def _log_samples(self, trial: _Trial) -> None:
        path = self._paths.trial(trial.name).samples
        try:
            text = storage.read_text(path) if storage.exists(path) else ""
        except OSError as error:
            _say(f"{path}: {error}")
            return
        if text:
            log_samples(trial.run, text, step=trial.step + 1)

    def _close(self, trial: _Trial, exit_code: int, *, ended: bool = False) -> None:
        if trial.run is None:
            return
        run, trial.run = trial.run, None
        try:
            run.finish(exit_code=exit_code)
        except TimeoutError:
            self._all_taken = False
            waited = f"not all uploaded after {UPLOAD_SECONDS:g} s"
            _say(f"trial {trial.name}: {waited}; it lies in {Path(run.dir).parent}")
            return
        self._saved[trial.name] |= {"step": trial.step, "open": None, "ended": ended}
        self._save()

    def _save(self) -> None:
        state = {"uid": self._uid, "trials": self._saved}
        storage.write_text(str(self._folder / "mirror.json"), json.dumps(state, indent=1))


def _take_lock(folder: Path) -> int:
    """One mirror a sweep: that of a driver killed a moment ago may still be uploading."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "mirror.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say("waiting for another process that mirrors this sweep")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _say(text: str) -> None:
    """A line of mirror.log, which is this process's standard error."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {redact(text)}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
