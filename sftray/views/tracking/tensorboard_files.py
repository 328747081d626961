"""A sweep's journal as TensorBoard's event files, a folder a trial: while it runs or after.

`python -m sftray.views.tracking.tensorboard_files SWEEP_FOLDER`, then
`tensorboard --logdir SWEEP_FOLDER/tensorboard`.

Promise: every evaluation and every step once, also after a kill or a resume: a trial's file is
written again from the beginning of the journal, and its first entry has a TensorBoard that read the
one before forget that. Scalars stand against optimizer steps, and once more as by_tokens/… against
tokens; the point and the best eval loss under HPARAMS, the answers to held-out prompts under TEXT.
On a URI a trial's file is copied there when it ends.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftray.storage import files as storage_files
from sftray.storage.journal import Event
from sftray.storage.journal.event_types import EventName, Metrics, TrialEnded
from sftray.storage.paths import SweepPaths, is_uri, join
from sftray.trial.samples import read_samples
from sftray.views.tracking.journal_follower import follow, say, take_lock
from sftray.views.tracking.mirror_processes import local_folder
from sftray.views.tracking.tracked_metrics import MetricRow, answers_of, last_rows, rows_of

BY_TOKENS = "by_tokens"
BEST = "hparam/eval_loss"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write event files; 0 if all of the journal was read."""
    parser = argparse.ArgumentParser(
        "python -m sftray.views.tracking.tensorboard_files", description=__doc__
    )
    parser.add_argument("folder", help="the sweep's folder or URI")
    parser.add_argument(
        "--follow", action="store_true", help="continue until a line or the end comes on stdin"
    )
    given = parser.parse_args(arguments)
    # tensorboardX loads torch where there is one, only to know a tensor when it sees one
    sys.modules["torch"] = None  # type: ignore[assignment]
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # a NaN is worth no warning here
    paths = SweepPaths(given.folder)
    folder = local_folder(paths.root, paths.tensorboard)
    lock = take_lock(folder)
    files = EventFiles(paths, folder)
    all_read = follow(paths, files, until_told=given.follow)
    files.close()
    os.close(lock)
    return 0 if all_read else 1


class EventFiles:
    """The files of a sweep, in `folder`."""

    def __init__(self, paths: SweepPaths, folder: Path) -> None:
        self._paths, self._folder = paths, folder
        self._config: Mapping[str, Any] = {}
        self._trials: dict[str, _Trial] = {}
        """Those that have not ended."""

    def begin(self, record: Mapping[str, Any]) -> None:
        self._config = record["config"]["trial"]

    def apply(self, event: Event) -> None:
        name = event["trial"] or ""
        if event["event"] == EventName.TRIAL_SUGGESTED:
            batch = {**self._config, **event["point"]}["effective_batch_size"]
            self._trials[name] = _Trial(self._folder / name, event["point"], batch, event["time"])
        elif trial := self._trials.get(name):
            if event["event"] == EventName.RESULT:
                trial.evaluated(event["time"], event["metrics"])
            elif event["event"] == EventName.TRIAL_ENDED:
                trial.ended(event, self._answers(name))
                self._leave(name, self._trials.pop(name))

    def flush(self) -> None:
        """Each writer does that by itself."""

    def close(self) -> None:
        """Leave what there is of trials that have not ended."""
        for name, trial in self._trials.items():
            self._leave(name, trial)
        self._trials.clear()

    def _answers(self, name: str) -> list[dict[str, Any]]:
        try:
            samples = read_samples(self._paths.trial(name).samples)
            return list(answers_of(samples, read_samples(self._paths.base_samples)))
        except OSError as error:
            say(f"samples of {name}: {error}")
            return []

    def _leave(self, name: str, trial: _Trial) -> None:
        trial.writer.close()
        if is_uri(self._paths.root):
            target, (file,) = join(self._paths.tensorboard, name), trial.folder.iterdir()
            try:
                storage_files.put_folder(trial.folder, target, last=file.name)
            except OSError as error:
                say(f"{target}: {error}; it lies in {trial.folder}")


class _Trial:
    """A trial's file, in place of the one that a process before has left."""

    def __init__(self, folder: Path, point: Mapping[str, Any], batch: int, time: float) -> None:
        from tensorboardX import SummaryWriter, summary

        self.folder, self._batch = folder, batch
        self._before: Mapping[str, Any] = {}
        """Its newest evaluation."""
        self._best = math.inf
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder), purge_step=0, flush_secs=1)
        hparams = {name: _hparam(value) for name, value in point.items()}
        experiment, start, self._end = summary.hparams(hparams, {BEST: math.nan})
        for entry in (experiment, start):
            self.writer.file_writer.add_summary(entry, 0, time)

    def evaluated(self, time: float, metrics: Metrics) -> None:
        for row in rows_of(metrics, self._before):
            self._scalars(time, row)
        self._before, loss = metrics, metrics.get("eval_loss")
        if metrics["step"] > 0 and loss is not None and loss < self._best:
            self._best = loss

    def ended(self, event: TrialEnded, answers: Sequence[Mapping[str, Any]]) -> None:
        time, step = event["time"], self._before.get("step", 0)
        for row in last_rows(event.get("last_curve", []), self._batch, self._before):
            self._scalars(time, row)
        prompts = list(dict.fromkeys(answer["prompt"] for answer in answers))
        for answer in answers:
            tag = f"samples/{prompts.index(answer['prompt']) + 1}"
            self.writer.add_text(tag, _markdown(answer), answer["step"], time)
        if math.isfinite(self._best):
            self.writer.add_scalar(BEST, self._best, step, time)
        outcome = ": ".join(filter(None, (event["outcome"], event["message"])))
        self.writer.add_text("outcome", outcome, step, time)
        self.writer.file_writer.add_summary(self._end, step, time)

    def _scalars(self, time: float, row: MetricRow) -> None:
        """A row against its step, and against its tokens where it has learnt from some."""
        for name, value in row.items():
            if value is None or name == "step":
                continue
            self.writer.add_scalar(name, value, row["step"], time)
            if row.get("tokens") is not None and name not in ("rows", "tokens"):
                self.writer.add_scalar(f"{BY_TOKENS}/{name}", value, row["tokens"], time)


def _hparam(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _markdown(answer: Mapping[str, Any]) -> str:
    """An answer beside the reference and the base's, as code, so that nothing is rendered."""
    flags = f" ({answer['flags']})" if answer["flags"] else ""
    parts = {"prompt": answer["prompt"], f"answer{flags}": answer["answer"]}
    parts |= {name: answer[name] for name in ("reference", "base") if answer[name]}
    return "\n\n".join(f"**{name}**\n\n{_indented(text)}" for name, text in parts.items())


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])


if __name__ == "__main__":
    sys.exit(main())
