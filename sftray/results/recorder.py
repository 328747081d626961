"""What the driver writes and prints while a sweep runs: trial folders, the leaderboard, one plain
line an evaluation; and the placement groups that it frees if Ray does not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from sftray.config import SweepConfig
from sftray.config.config_json import to_json
from sftray.errors import Log
from sftray.results import log_lines
from sftray.results.diagnosis.broken_base import base_warning, without_rates
from sftray.results.diagnosis.diagnosis import diagnose
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records, TrialRecord
from sftray.storage import files
from sftray.storage.journal import Journal
from sftray.storage.journal.event_types import EventName, ReportValues
from sftray.storage.paths import SweepPaths, join

UNLISTED = 0.01
"""Of the trials that have ended, the share that may be missing from leaderboard.json while a sweep
runs: with hundreds of trials it is not written anew for each."""


class Recorder:
    """Writes trials/<id>/ and leaderboard.json from the journal as it grows."""

    def __init__(
        self,
        sweep: SweepConfig,
        paths: SweepPaths,
        journal: Journal,
        log: Log,
        stepped: Callable[[], object] = lambda: None,
        entropy: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """`stepped` is to be called as long as trials run, several times a second. `entropy`: of
        the tokens that are trained on, in nats."""
        self._entropy = entropy
        self.stepped, self.log = stepped, log
        self._sweep, self._paths, self._journal = sweep, paths, journal
        self._records = Records()
        self._read = 0
        """How many of the journal's events the records have."""
        self._ended: list[str] = []
        """Trials that have ended and are not written yet."""
        self._catch_up()
        self._ended = self._unwritten()
        self._told = {
            trial.trial: trial.results[-1]["step"]
            for trial in self._records.trials
            if trial.results
        }
        """The newest evaluation of each trial that was reported."""
        self._unlisted = 0
        """Trials that have ended since the leaderboard was written."""
        self._base_known = False
        self._proof = ""
        """What was said last of a trial's attention."""

    def result(self, trial: str, metrics: ReportValues) -> None:
        """After a report was journalled: one line, and the trial's folder."""
        if "outcome" in metrics:  # its last words, which `finish_trials` tells
            return
        if "interrupted" in metrics:
            self.recovers(trial)
            return
        if "resumed_from_step" in metrics:
            step = metrics["resumed_from_step"]
            if not files.exists(self._paths.trial(trial).config):
                self._write_config(trial, metrics)  # the driver before did not get to it
            self.log(f"{trial}  continues from step {step}  [{log_lines.where(metrics)}]")
        elif metrics["step"] <= self._told.get(trial, -1):
            return  # told again by a trial that went on, in case it had been lost
        elif metrics["step"] == 0:
            self._begun(trial, metrics)
        else:
            self.log(log_lines.progress(trial, metrics))
        self._told[trial] = metrics["step"]
        if not self._base_known:
            self._base_known = True
            loss = self._records.base_eval_loss()
            warning = None if loss is None else base_warning(loss, self._entropy())
            if warning and not metrics.get("resumed_from_step"):
                self.log(warning)
            self.write_leaderboard()

    def recovers(self, trial: str) -> None:
        """Say that a trial's attempt has died and that it is started again."""
        self._catch_up()
        for event in reversed(self._records[trial].attempts):
            if event["event"] == EventName.ATTEMPT_ENDED:
                self.log(log_lines.recovers(event))
                return

    def finish_trials(self, free: Callable[[str], None] = lambda trial: None) -> None:
        """Write what has ended since the last call, and have the trainer `free` it."""
        self._catch_up()
        ended, self._ended = self._ended, []
        base = self._records.base_eval_loss() if ended else None
        for name in ended:
            trial = self._records[name]
            free(name)
            folder = self._paths.trial(name)
            metrics = "".join(json.dumps(metrics) + "\n" for metrics in trial.results)
            files.write_text(folder.metrics, metrics)
            outcome = {"outcome": trial.outcome, "message": trial.message, "best": trial.best}
            files.write_text(folder.outcome, json.dumps(outcome, indent=1))
            self.log(log_lines.ended(name, trial.outcome or "", trial.message))
            self._prune(trial)
            diagnosis = diagnose(trial, self._sweep.trial.at(trial.point), base_loss=base)
            diagnosis = without_rates(diagnosis, trial, self._records)
            if diagnosis.wrong:
                self.log(f"{name}  {diagnosis.verdict} {diagnosis.advice}")
        self._unlisted += len(ended)
        all_ended = sum(trial.outcome is not None for trial in self._records.trials)
        if ended and self._unlisted >= UNLISTED * all_ended:
            self.write_leaderboard()

    def write_leaderboard(self) -> None:
        """leaderboard.json, from the journal."""
        self._catch_up()
        self._unlisted = 0
        board = leaderboard(self._sweep, self._records)
        files.write_text(self._paths.leaderboard, json.dumps(board, indent=1))

    def _unwritten(self) -> list[str]:
        """Trials that ended and whose folders the driver before did not get to: the last ones, for
        they are written in that order."""
        found: list[str] = []
        here = [name for name in self._ended if self._records[name].folder is None]
        for name in reversed(here):
            if files.exists(self._paths.trial(name).outcome):
                break
            found.insert(0, name)
        return found

    def _prune(self, trial: TrialRecord) -> None:
        """What is left of a trial that has ended is the checkpoint of its best evaluation, and of
        its last one where that counts."""
        folder, wanted = self._paths.trial(trial.trial), [trial.best]
        if self._sweep.takes_last:
            wanted += trial.trained[-1:]
        there = {join(folder.checkpoints, name) for name in files.list_names(folder.checkpoints)}
        kept = {folder.checkpoint(evaluation["step"]) for evaluation in wanted if evaluation}
        for checkpoint in there - kept if kept and kept <= there else ():
            files.remove(checkpoint)

    def _begun(self, trial: str, metrics: ReportValues) -> None:
        self._write_config(trial, metrics)
        point = self._records[trial].point
        proof = log_lines.proof(metrics)
        if proof and proof != self._proof:
            self._proof = proof
            self.log(proof)
        self.log(log_lines.begun(trial, point, metrics))

    def _write_config(self, trial: str, metrics: ReportValues) -> None:
        self._catch_up()
        point = self._records[trial].point
        config = to_json(self._sweep.trial.at(point))
        files.write_text(
            self._paths.trial(trial).config,
            json.dumps({"point": point, "config": config, "ran_with": dict(metrics)}, indent=1),
        )

    def _catch_up(self) -> None:
        """Bring the records to the journal's end."""
        new = self._journal.events(since=self._read)
        self._read += len(new)
        self._records.add(new)
        self._ended += [e["trial"] for e in new if e["event"] == EventName.TRIAL_ENDED]
