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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Required, TypedDict

import wandb

from sftray.config import SweepConfig
from sftray.errors import SftrayError
from sftray.storage import files
from sftray.storage.journal import Event
from sftray.storage.journal.event_types import EventName, Metrics, Outcome, TrialEnded
from sftray.storage.paths import SweepPaths
from sftray.views.tracking.journal_follower import arguments_of, follow, say
from sftray.views.tracking.mirror_processes import left_offline, local_folder
from sftray.views.tracking.tracked_metrics import MetricRow, TrackedTrial, answers_of
from sftray.views.tracking.wandb_run import (
    ADAPTER_SECONDS,
    UPLOAD_SECONDS,
    log_adapter,
    log_leaderboard,
    log_row,
    log_samples,
    log_start,
    start_run,
)
from sftray.winner.bundle import open_bundle

INIT_SECONDS = 20.0
_TROUBLE = (wandb.errors.Error, OSError, ValueError)
"""What W&B raises where it is out of reach, takes no more, or does not speak as it should."""
OFFLINE_SECONDS = 600.0  # before W&B is tried again with new trials, once it did not answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Mirror a sweep's journal to W&B; 0 if all of it was taken."""
    parser = arguments_of("sftray.views.tracking.wandb_mirror", __doc__)
    parser.add_argument("--mode", choices=("online", "offline"), default="online")
    parser.add_argument("--project", default="sftray")
    parser.add_argument("--init-timeout", type=float, default=INIT_SECONDS, metavar="SECONDS")
    for name, what in (("samples", "the answers to prompts"), ("adapter", "the best adapter")):
        about = f"send {what}; by default as the sweep's configuration says"
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=about)
    options = parser.parse_args(arguments)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # 24 s at an error without network
    os.environ.pop("WANDB_SERVICE", None)  # shared with nobody: it may have to be ended
    paths = SweepPaths(options.folder)
    folder = local_folder(paths.root, paths.tracking)
    os.environ.setdefault("WANDB_DATA_DIR", str(folder))  # what artifacts hold until it is sent
    start = partial(Mirror, paths, folder, options)
    all_taken = follow(paths, folder, start, until_asked=options.follow)
    if left := left_offline(folder):
        say(left)
    return 0 if all_taken else 1


class SavedTrial(TypedDict, total=False):
    """What mirror.json keeps of a trial."""

    step: Required[int]
    """The last step that W&B has."""
    open: str | None
    """The folder of a run that is kept offline and not closed."""
    offline: bool
    ended: bool


@dataclass
class _TrialRun:
    """A trial, and its run where one is open."""

    trial: TrackedTrial
    step: int
    """The last step that W&B has."""
    run: wandb.Run | None = None


class Mirror:
    """What W&B has of a sweep. `mirror.json` keeps a trial's step once its run is closed: what lies
    in an open run is lost when this process is killed, and is then made again from the journal.
    Online, W&B itself knows a run's last step."""

    def __init__(
        self,
        paths: SweepPaths,
        folder: Path,
        options: argparse.Namespace,
        sweep: SweepConfig,
        uid: str,
    ) -> None:
        """options: the command line; where it does not say whether to send samples and the adapter,
        `sweep` does."""
        self._paths, self._folder, self._sweep, self._uid = paths, folder, sweep, uid
        self._mode = options.mode
        places = (options.project, folder.parent, options.init_timeout)
        self._start = partial(start_run, sweep, uid, *places)
        given = (options.samples, options.adapter)
        wanted = zip(given, (sweep.wandb_samples, sweep.wandb_adapter), strict=True)
        self._samples, self._adapter = (own if said is None else said for said, own in wanted)
        path = folder / "mirror.json"
        state = json.loads(path.read_bytes()) if path.exists() else {}
        known = state.get("uid") == uid
        self._saved: dict[str, SavedTrial] = state["trials"] if known else {}
        self._handed_in: list[object] | None = state.get("handed_in") if known else None
        """Whose leaderboard W&B has: trial, step, number of trials, with adapter or not."""
        self._trials: dict[str, _TrialRun] = {}
        self._offline_until = 0.0
        self._ended = self._used_up = False
        """Whether the sweep, or its budget, has come to its end."""
        self._all_taken = True

    def apply(self, event: Event) -> None:
        try:
            self._apply(event)
        except _TROUBLE as error:
            self._trouble(f"{event['event']} of trial {event['trial']}", error)

    def close(self) -> bool:
        """Close the runs of trials that have not ended, and hand in what a sweep that has ended
        leaves; whether W&B took everything."""
        for one in self._trials.values():
            self._close(one, exit_code=1)
        if self._ended or self._used_up:
            try:
                self._hand_in()
            except _TROUBLE as error:
                self._trouble("leaderboard", error)
        return self._all_taken

    def _trouble(self, what: str, error: Exception) -> None:
        self._all_taken = False
        say(f"{what}: {type(error).__name__}: {error}")

    def _apply(self, event: Event) -> None:
        name = event["trial"] or ""
        if event["event"] == EventName.TRIAL_SUGGESTED:
            trial = TrackedTrial(self._sweep, name, event["point"])
            self._trials[name] = _TrialRun(trial, self._saved.get(name, {"step": -1})["step"])
        self._ended = self._ended or event["event"] == EventName.SWEEP_ENDED
        if event["event"] == EventName.SPENT:
            self._used_up = bool(event["budget"])
        one = self._trials.get(name)
        saved = self._saved.get(name)
        if one is None or (saved and saved.get("ended")):
            return
        if event["event"] == EventName.ATTEMPT_STARTED:
            self._open(one)
        elif event["event"] == EventName.RESULT:
            self._log_result(one, event["metrics"])
        elif event["event"] == EventName.TRIAL_ENDED:
            self._end(one, event)

    def _open(self, one: _TrialRun, finish_timeout: float = UPLOAD_SECONDS) -> wandb.Run:
        """The trial's run, started if need be. One that was ever offline stays so: W&B takes the
        pieces of a run in order."""
        if one.run is not None:
            return one.run
        name = one.trial.name
        saved = self._saved.setdefault(name, {"step": one.step})
        if unfinished := saved.get("open"):
            shutil.rmtree(unfinished, ignore_errors=True)  # cut off by a kill
        waiting = time.monotonic() < self._offline_until
        offline = self._mode == "offline" or saved.get("offline", False) or waiting
        if not offline:
            try:
                one.run = self._start(one.trial, "online", finish_timeout)
            except wandb.errors.Error as error:
                say(f"trial {name}: kept offline, W&B did not take it ({error})")
                self._offline_until = time.monotonic() + OFFLINE_SECONDS
                self._release()
        if one.run is None:
            one.run = self._start(one.trial, "offline", finish_timeout)
            saved["offline"], saved["open"] = True, str(Path(one.run.dir).parent)
            self._save()
        else:
            one.step = max(one.step, one.run.starting_step - 1)
        return one.run

    def _release(self) -> None:
        """End W&B's service process: it holds the id of a run that failed to start until then.
        The other runs are opened again when they have something to log."""
        for one in self._trials.values():
            self._close(one, exit_code=1)
        wandb.teardown()

    def _log_result(self, one: _TrialRun, metrics: Metrics) -> None:
        run = self._open(one)
        if metrics["step"] == 0:
            log_start(run, metrics)
        self._log(one, run, one.trial.evaluated(metrics))

    def _log(self, one: _TrialRun, run: wandb.Run, rows: Iterable[MetricRow]) -> None:
        """Log what is new to W&B."""
        for row in rows:
            if row.step > one.step:
                log_row(run, row)
                one.step = row.step

    def _end(self, one: _TrialRun, event: TrialEnded) -> None:
        run, trial = self._open(one), one.trial
        self._log(one, run, trial.lost(event.get("last_curve", [])))
        left_out = ("event", "trial", "time", "last_curve")
        summary = {name: value for name, value in event.items() if name not in left_out}
        summary["base_eval_loss"] = trial.base_eval_loss
        if math.isfinite(trial.best_eval_loss):
            summary["best_eval_loss"] = trial.best_eval_loss
        run.summary.update(summary)
        succeeded = event["outcome"] in (Outcome.COMPLETED, Outcome.PRUNED)
        try:
            self._log_samples(one, run)
        finally:
            self._close(one, exit_code=0 if succeeded else 1, ended=True)

    def _log_samples(self, one: _TrialRun, run: wandb.Run) -> None:
        """Its answers, if the sweep sends them, beside the base's where these are there."""
        if self._samples and (answers := answers_of(self._paths, one.trial.name)):
            one.step += 1
            log_samples(run, answers, step=one.step)

    def _hand_in(self) -> None:
        """The leaderboard, and the adapter if it is asked for, as artifacts of the best trial's
        run: once for each winner."""
        if not files.exists(self._paths.leaderboard):
            return
        board = json.loads(files.read_text(self._paths.leaderboard))
        one = self._trials.get(board["best"] or "")
        if one is None:
            return
        name = one.trial.name
        best = next(row for row in board["trials"] if row["trial"] == name)
        adapter = self._best_adapter(name) if self._adapter else None
        winner = [name, best["step"], len(board["trials"]), adapter is not None]
        if winner == self._handed_in:
            return
        run = self._open(one, ADAPTER_SECONDS if adapter else UPLOAD_SECONDS)
        try:
            one.step += 1
            log_leaderboard(run, self._sweep.name, board, step=one.step)
            self._log_samples(one, run)  # now that the base has answered, too
            if adapter is not None:
                log_adapter(run, self._sweep.name, adapter, best)
        finally:
            taken = self._close(one, exit_code=0, ended=True)
        if taken:
            self._handed_in = winner
            self._save()

    def _best_adapter(self, trial: str) -> Path | None:
        """A local copy of best/, if it is whole and this trial's."""
        try:
            local, facts = open_bundle(self._paths.best)
        except SftrayError as error:
            say(f"W&B gets no adapter: {error}")
            return None
        if facts.trial == trial:
            return local
        say(f"{self._paths.best}: no adapter of trial {trial} there, so W&B gets none")
        return None

    def _close(self, one: _TrialRun, exit_code: int, *, ended: bool = False) -> bool:
        """End a trial's run, if it has one; whether W&B took all of it."""
        if one.run is None:
            return True
        name, run, one.run = one.trial.name, one.run, None
        try:
            run.finish(exit_code=exit_code)
        except TimeoutError:
            self._all_taken = False
            say(f"trial {name}: not all uploaded in time; it lies in {Path(run.dir).parent}")
            return False
        self._saved[name] |= {"step": one.step, "open": None, "ended": ended}
        self._save()
        return True

    def _save(self) -> None:
        state = {"uid": self._uid, "trials": self._saved, "handed_in": self._handed_in}
        files.write_text(str(self._folder / "mirror.json"), json.dumps(state, indent=1))


if __name__ == "__main__":
    sys.exit(main())
