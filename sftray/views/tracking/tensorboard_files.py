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

import logging
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from textwrap import indent

from sftray.config import SweepConfig
from sftray.storage import files as storage_files
from sftray.storage.journal import Event
from sftray.storage.journal.event_types import EventName, TrialEnded
from sftray.storage.paths import SweepPaths, is_uri, join
from sftray.views.tracking.journal_follower import arguments_of, follow, say
from sftray.views.tracking.mirror_processes import local_folder
from sftray.views.tracking.tracked_metrics import Answer, MetricRow, TrackedTrial, answers_of

BY_TOKENS = "by_tokens"
BEST = "hparam/eval_loss"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write event files; 0 if all of the journal was read."""
    options = arguments_of("sftray.views.tracking.tensorboard_files", __doc__).parse_args(arguments)
    # tensorboardX loads torch where there is one, only to know a tensor when it sees one
    sys.modules["torch"] = None  # type: ignore[assignment]
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # a NaN is worth no warning here
    paths = SweepPaths(options.folder)
    folder = local_folder(paths.root, paths.tensorboard)
    start = partial(EventFiles, paths, folder)
    return 0 if follow(paths, folder, start, until_asked=options.follow) else 1


class EventFiles:
    """The files of a sweep, in `folder`."""

    def __init__(self, paths: SweepPaths, folder: Path, sweep: SweepConfig, uid: str) -> None:
        self._paths, self._folder, self._sweep = paths, folder, sweep
        self._trials: dict[str, _TrialFile] = {}
        """Those that have not ended."""

    def apply(self, event: Event) -> None:
        name, time = event["trial"] or "", event.get("time", 0.0)
        if event["event"] == EventName.TRIAL_SUGGESTED:
            trial = TrackedTrial(self._sweep, name, event["point"])
            self._trials[name] = _TrialFile(self._folder / name, trial, time)
        elif file := self._trials.get(name):
            if event["event"] == EventName.RESULT:
                file.add(time, file.trial.evaluated(event["metrics"]))
            elif event["event"] == EventName.TRIAL_ENDED:
                file.end(event, answers_of(self._paths, name))
                self._leave(self._trials.pop(name))

    def close(self) -> bool:
        """Leave what there is of trials that have not ended."""
        for file in self._trials.values():
            self._leave(file)
        self._trials.clear()
        return True

    def _leave(self, file: _TrialFile) -> None:
        file.writer.close()
        if is_uri(self._paths.root):
            target, (path,) = join(self._paths.tensorboard, file.trial.name), file.folder.iterdir()
            try:
                storage_files.put_folder(file.folder, target, last=path.name)
            except OSError as error:
                say(f"{target}: {error}; it lies in {file.folder}")


class _TrialFile:
    """A trial's file, in place of the one that a process before has left."""

    def __init__(self, folder: Path, trial: TrackedTrial, time: float) -> None:
        from tensorboardX import SummaryWriter, summary

        self.folder, self.trial = folder, trial
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder), purge_step=0, flush_secs=1)
        hparams = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in trial.point.items()
        }
        experiment, start, self._end = summary.hparams(hparams, {BEST: math.nan})
        for entry in (experiment, start):
            self.writer.file_writer.add_summary(entry, 0, time)

    def add(self, time: float, rows: Iterable[MetricRow]) -> None:
        """Rows against their steps, and against their tokens where the trial has learnt from
        some."""
        for row in rows:
            for name, value in row.flat().items():
                if name == "step":
                    continue
                self.writer.add_scalar(name, value, row.step, time)
                if row.tokens is not None and name not in ("rows", "tokens"):
                    self.writer.add_scalar(f"{BY_TOKENS}/{name}", value, row.tokens, time)

    def end(self, event: TrialEnded, answers: Sequence[Answer]) -> None:
        time, step = event.get("time", 0.0), self.trial.step
        self.add(time, self.trial.lost(event.get("last_curve", [])))
        prompts = list(dict.fromkeys(answer["prompt"] for answer in answers))
        for answer in answers:
            tag = f"samples/{prompts.index(answer['prompt']) + 1}"
            self.writer.add_text(tag, _markdown(answer), answer["step"], time)
        if math.isfinite(self.trial.best_eval_loss):
            self.writer.add_scalar(BEST, self.trial.best_eval_loss, step, time)
        outcome = ": ".join(filter(None, (event["outcome"], event["message"])))
        self.writer.add_text("outcome", outcome, step, time)
        self.writer.file_writer.add_summary(self._end, step, time)


def _markdown(answer: Answer) -> str:
    """An answer beside the reference and the base's, as code, so that nothing is rendered."""
    flags = f" ({answer['flags']})" if answer["flags"] else ""
    texts = {"prompt": answer["prompt"], f"answer{flags}": answer["answer"]}
    others = {"reference": answer["reference"], "base": answer["base"]}
    texts |= {name: text for name, text in others.items() if text}
    return "\n\n".join(f"**{name}**\n\n{indent(text, '    ')}" for name, text in texts.items())


if __name__ == "__main__":
    sys.exit(main())
