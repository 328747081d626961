"""The process that mirrors a sweep's journal to W&B: one run a trial, grouped by sweep.

Promise: every trial, every evaluation and every step once, also after a kill or a resume, and
with the network gone for a while: the journal is the truth, and what W&B lacks is made again from
it. Price: W&B is behind the journal by about a second.

`python -m sftray.views.tracking.wandb_mirror SWEEP_FOLDER` mirrors a sweep after the fact.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import wandb

from sftray.storage import files
from sftray.storage.journal import Event
from sftray.storage.journal.event_types import EventName, Metrics, Outcome, TrialEnded
from sftray.storage.paths import SweepPaths, join
from sftray.trial.samples import read_samples
from sftray.views.tracking.journal_follower import follow, say, take_lock
from sftray.views.tracking.mirror_processes import left_offline, local_folder
from sftray.views.tracking.tracked_metrics import MetricRow, last_rows, rows_of
from sftray.views.tracking.wandb_run import (
    ADAPTER_SECONDS,
    UPLOAD_SECONDS,
    define_axes,
    log_adapter,
    log_leaderboard,
    log_row,
    log_samples,
    log_start,
    start_run,
)

INIT_SECONDS = 20.0
_TROUBLE = (wandb.errors.Error, OSError, ValueError)
"""What W&B raises where it is out of reach, takes no more, or does not speak as it should."""
OFFLINE_SECONDS = 600.0  # before W&B is tried again with new trials, once it did not answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Mirror a sweep's journal to W&B; 0 if all of it was taken."""
    parser = argparse.ArgumentParser(
        "python -m sftray.views.tracking.wandb_mirror", description=__doc__
    )
    parser.add_argument("folder", help="the sweep's folder or URI")
    parser.add_argument("--mode", choices=("online", "offline"), default="online")
    parser.add_argument("--project", default="sftray")
    parser.add_argument("--init-timeout", type=float, default=INIT_SECONDS, metavar="SECONDS")
    for name, what in (("samples", "the answers to prompts"), ("adapter", "the best adapter")):
        told = f"send {what}; as the sweep was first told, if not given"
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=told)
    parser.add_argument(
        "--follow", action="store_true", help="go on until a line or the end comes on stdin"
    )
    given = parser.parse_args(arguments)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # 24 s at an error without network
    os.environ.pop("WANDB_SERVICE", None)  # shared with nobody: it may have to be ended
    paths = SweepPaths(given.folder)
    folder = local_folder(paths.root, paths.tracking)
    os.environ.setdefault("WANDB_DATA_DIR", str(folder))  # what artifacts hold until it is sent
    lock = take_lock(folder)
    asked = {"wandb_samples": given.samples, "wandb_adapter": given.adapter}
    asked = {name: value for name, value in asked.items() if value is not None}
    mirror = Mirror(paths, folder, given.project, given.mode, given.init_timeout, asked)
    all_read = follow(paths, mirror, until_told=given.follow)
    all_taken = mirror.close()
    os.close(lock)
    if left := left_offline(folder):
        say(left)
    return 0 if all_read and all_taken else 1


@dataclass
class _Trial:
    name: str
    point: Mapping[str, Any]
    step: int
    """The last step that W&B has."""
    run: Any = None
    before: Mapping[str, Any] = field(default_factory=dict)
    """Its newest evaluation."""
    base_eval_loss: float | None = None
    best_eval_loss: float = math.inf


class Mirror:
    """What W&B has of a sweep. `mirror.json` keeps a trial's step once its run is closed: what lies
    in an open run is lost when this process is killed, and is then made again from the journal.
    Online, W&B itself knows a run's last step."""

    def __init__(
        self,
        paths: SweepPaths,
        folder: Path,
        project: str,
        mode: str,
        init_timeout: float,
        asked: Mapping[str, bool],
    ) -> None:
        """asked: fields of the sweep that are not as in sweep.json."""
        self._paths, self._folder = paths, folder
        self._project, self._mode, self._init_timeout = project, mode, init_timeout
        self._asked = asked
        self._sweep: Mapping[str, Any] = {}
        self._saved: dict[str, dict[str, Any]] = {}
        self._handed_in: dict[str, Any] | None = None
        """Of which evaluation W&B has the leaderboard and the adapter."""
        self._trials: dict[str, _Trial] = {}
        self._offline_until = 0.0
        self._ended = self._used_up = False
        """Whether the sweep, or its budget, has come to its end."""
        self._all_taken = True

    def begin(self, record: Mapping[str, Any]) -> None:
        self._sweep, self._uid = {**record["config"], **self._asked}, record["uid"]
        path = self._folder / "mirror.json"
        state = json.loads(path.read_bytes()) if path.exists() else {}
        if state.get("uid") == self._uid:
            self._saved, self._handed_in = state["trials"], state.get("handed_in")

    def apply(self, event: Event) -> None:
        try:
            self._apply(event)
        except _TROUBLE as error:
            self._all_taken = False
            what = f"{event['event']} of trial {event['trial']}"
            say(f"{what}: {type(error).__name__}: {error}")

    def flush(self) -> None:
        """W&B sends by itself."""

    def close(self) -> bool:
        """Close the runs of trials that have not ended, and hand in what a sweep that has ended
        leaves; whether W&B took everything."""
        for trial in self._trials.values():
            self._close(trial, exit_code=1)
        if self._ended or self._used_up:
            try:
                self._hand_in()
            except _TROUBLE as error:
                self._all_taken = False
                say(f"leaderboard: {type(error).__name__}: {error}")
        return self._all_taken

    def _apply(self, event: Event) -> None:
        if event["event"] == EventName.TRIAL_SUGGESTED:
            saved = self._saved.get(event["trial"], {"step": -1})
            self._trials[event["trial"]] = _Trial(event["trial"], event["point"], saved["step"])
        self._ended = self._ended or event["event"] == EventName.SWEEP_ENDED
        if event["event"] == EventName.SPENT:
            self._used_up = bool(event["budget"])
        trial = self._trials.get(event["trial"] or "")
        if trial is None or self._saved.get(trial.name, {}).get("ended"):
            return
        if event["event"] == EventName.ATTEMPT_STARTED:
            self._open(trial)
        elif event["event"] == EventName.RESULT:
            self._log_result(trial, event["metrics"])
        elif event["event"] == EventName.TRIAL_ENDED:
            self._end(trial, event)

    def _open(self, trial: _Trial, finish_timeout: float = UPLOAD_SECONDS) -> None:
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
                trial.run = self._init(trial, "online", finish_timeout)
            except wandb.errors.Error as error:
                say(f"trial {trial.name}: kept offline, W&B did not take it ({error})")
                self._offline_until = time.monotonic() + OFFLINE_SECONDS
                self._release()
        if trial.run is None:
            trial.run = self._init(trial, "offline", finish_timeout)
            saved |= {"offline": True, "open": str(Path(trial.run.dir).parent)}
            self._save()
        else:
            trial.step = max(trial.step, trial.run.starting_step - 1)
        define_axes(trial.run)

    def _init(
        self, trial: _Trial, mode: Literal["online", "offline"], finish_timeout: float
    ) -> Any:
        return start_run(
            self._sweep,
            self._uid,
            trial.name,
            trial.point,
            mode=mode,
            project=self._project,
            folder=self._folder.parent,
            init_timeout=self._init_timeout,
            finish_timeout=finish_timeout,
        )

    def _release(self) -> None:
        """End W&B's service process: it holds the id of a run that failed to start until then.
        The other runs are opened again when they have something to log."""
        for trial in self._trials.values():
            self._close(trial, exit_code=1)
        wandb.teardown()

    def _log_result(self, trial: _Trial, metrics: Metrics) -> None:
        self._open(trial)
        loss = metrics.get("eval_loss")
        if metrics["step"] == 0:
            trial.base_eval_loss = loss
            log_start(trial.run, metrics)
        elif loss is not None and loss < trial.best_eval_loss:
            trial.best_eval_loss = loss
        self._log(trial, rows_of(metrics, trial.before))
        trial.before = metrics

    def _log(self, trial: _Trial, rows: Iterator[MetricRow]) -> None:
        """Log what is new to W&B."""
        for row in rows:
            if row["step"] > trial.step:
                log_row(trial.run, row)
                trial.step = row["step"]

    def _end(self, trial: _Trial, event: TrialEnded) -> None:
        self._open(trial)
        batch = trial.point.get(
            "effective_batch_size", self._sweep["trial"]["effective_batch_size"]
        )
        self._log(trial, last_rows(event.get("last_curve", []), batch, trial.before))
        left_out = ("event", "trial", "time", "last_curve")
        summary = {k: v for k, v in event.items() if k not in left_out}
        summary["base_eval_loss"] = trial.base_eval_loss
        if math.isfinite(trial.best_eval_loss):
            summary["best_eval_loss"] = trial.best_eval_loss
        trial.run.summary.update(summary)
        succeeded = event["outcome"] in (Outcome.COMPLETED, Outcome.PRUNED)
        try:
            if self._sweep["wandb_samples"]:
                self._log_samples(trial)
        finally:
            self._close(trial, exit_code=0 if succeeded else 1, ended=True)

    def _log_samples(self, trial: _Trial) -> None:
        """Its answers, beside the base's where these are there."""
        path = self._paths.trial(trial.name).samples
        try:
            samples, base = read_samples(path), read_samples(self._paths.base_samples)
        except OSError as error:
            say(f"{path}: {error}")
            return
        if samples:
            trial.step += 1
            log_samples(trial.run, samples, base, step=trial.step)

    def _hand_in(self) -> None:
        """The leaderboard, and the adapter if it is asked for, as artifacts of the best trial's
        run: once for each winner."""
        if not files.exists(self._paths.leaderboard):
            return
        board = json.loads(files.read_text(self._paths.leaderboard))
        trial = self._trials.get(board["best"] or "")
        if trial is None:
            return
        best = next(row for row in board["trials"] if row["trial"] == trial.name)
        adapter = self._adapter(trial.name) if self._sweep["wandb_adapter"] else None
        winner = {name: best[name] for name in ("trial", "step")}
        winner |= {"trials": len(board["trials"]), "adapter": adapter is not None}
        if winner == self._handed_in:
            return
        self._open(trial, ADAPTER_SECONDS if adapter else UPLOAD_SECONDS)
        try:
            trial.step += 1
            log_leaderboard(trial.run, self._sweep["name"], board, step=trial.step)
            if self._sweep["wandb_samples"]:
                self._log_samples(trial)  # now that the base has answered, too
            if adapter is not None:
                log_adapter(trial.run, self._sweep["name"], adapter, best)
        finally:
            taken = self._close(trial, exit_code=0, ended=True)
        if taken:
            self._handed_in = winner
            self._save()

    def _adapter(self, trial: str) -> Path | None:
        """A local copy of best/, if it is this trial's."""
        facts = join(self._paths.best, "sweep.json")
        if not files.exists(facts) or json.loads(files.read_text(facts))["trial"] != trial:
            say(f"{self._paths.best}: no adapter of trial {trial} there, so W&B gets none")
            return None
        return files.get_folder(self._paths.best)

    def _close(self, trial: _Trial, exit_code: int, *, ended: bool = False) -> bool:
        """End a trial's run, if it has one; whether W&B took all of it."""
        if trial.run is None:
            return True
        run, trial.run = trial.run, None
        try:
            run.finish(exit_code=exit_code)
        except TimeoutError:
            self._all_taken = False
            say(f"trial {trial.name}: not all uploaded in time; it lies in {Path(run.dir).parent}")
            return False
        self._saved[trial.name] |= {"step": trial.step, "open": None, "ended": ended}
        self._save()
        return True

    def _save(self) -> None:
        state = {"uid": self._uid, "trials": self._saved, "handed_in": self._handed_in}
        files.write_text(str(self._folder / "mirror.json"), json.dumps(state, indent=1))


if __name__ == "__main__":
    sys.exit(main())
