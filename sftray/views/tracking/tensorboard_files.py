"""A sweep as TensorBoard's event files: a folder a trial, a function of the journal alone.

Promise: every evaluation and every step once, also after a kill or a resume: a trial's file has its
name and its times from the journal, so writing it again from the beginning gives the same bytes,
and a TensorBoard that reads it meanwhile does not notice. Scalars stand against optimizer steps,
and once more as by_tokens/… against tokens; the point and the best eval loss under HPARAMS, the
answers to held-out prompts under TEXT. On a URI a trial's file is copied there when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event as Entry
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from sftray.storage import files
from sftray.storage.journal.journal import Event
from sftray.storage.paths import SweepPaths, is_uri, join
from sftray.trial.samples import read_samples
from sftray.views.tracking.journal_follower import say
from sftray.views.tracking.tracked_metrics import Row, answers_of, last_rows, rows_of

BY_TOKENS = "by_tokens"
BEST = "hparam/eval_loss"
VERSION = "brain.Event:2"
"""Of the format; the first entry of a file."""


@dataclass
class _Trial:
    name: str
    batch: int
    path: Path
    writer: Any
    before: Mapping[str, Any] = field(default_factory=dict)
    """Its newest evaluation."""
    best: float = math.inf
    unflushed: bool = False

    def write(self, time: float, step: int, values: Summary) -> None:
        entry = Entry(wall_time=time, step=int(step), summary=values)
        self.writer.write(entry.SerializeToString())
        self.unflushed = True


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
        if event["event"] == "trial_suggested":
            self._begin_trial(event)
        elif trial := self._trials.get(event.get("trial") or ""):
            if event["event"] == "result":
                self._evaluated(trial, event["time"], event["metrics"])
            elif event["event"] == "trial_ended":
                self._end(trial, event)

    def flush(self) -> None:
        for trial in self._trials.values():
            if trial.unflushed:
                trial.writer.flush()
                trial.unflushed = False

    def close(self) -> None:
        """Leave what there is of trials that have not ended."""
        for trial in self._trials.values():
            self._leave(trial)
        self._trials.clear()

    def _begin_trial(self, event: Event) -> None:
        name, point, time = event["trial"], event["point"], event["time"]
        path = self._folder / name / f"events.out.tfevents.{int(time)}.sftray"
        path.parent.mkdir(parents=True, exist_ok=True)
        batch = {**self._config, **point}["effective_batch_size"]
        trial = _Trial(name, batch, path, RecordWriter(str(path)))
        trial.writer.write(Entry(wall_time=time, file_version=VERSION).SerializeToString())
        known = {name: _hparam(value) for name, value in point.items()}
        experiment, start, _ = summary.hparams(known, {BEST: math.nan})
        trial.write(time, 0, experiment)
        trial.write(time, 0, start)
        self._trials[name] = trial

    def _evaluated(self, trial: _Trial, time: float, metrics: Mapping[str, Any]) -> None:
        for row in rows_of(metrics, trial.before):
            self._scalars(trial, time, row)
        trial.before = metrics
        loss = metrics.get("eval_loss")
        if metrics["step"] > 0 and loss is not None and loss < trial.best:
            trial.best = loss

    def _end(self, trial: _Trial, event: Event) -> None:
        time = event["time"]
        for row in last_rows(event.get("last_curve", []), trial.batch, trial.before):
            self._scalars(trial, time, row)
        self._write_samples(trial, time)
        step = trial.before.get("step", 0)
        if math.isfinite(trial.best):
            trial.write(time, step, _summary({BEST: trial.best}))
        outcome = (
            f"{event['outcome']}: {event['message']}" if event["message"] else event["outcome"]
        )
        trial.write(time, step, summary.text("outcome", outcome))
        trial.write(time, step, summary.hparams({}, {})[-1])
        self._leave(self._trials.pop(trial.name))

    def _scalars(self, trial: _Trial, time: float, row: Row) -> None:
        """A row against its step, and against its tokens where it has learnt from some."""
        trial.write(time, row["step"], _summary({k: v for k, v in row.items() if k != "step"}))
        tokens = row.get("tokens")
        if tokens is not None:
            drawn = {k: v for k, v in row.items() if k not in ("step", "rows", "tokens")}
            named = {f"{BY_TOKENS}/{name}": value for name, value in drawn.items()}
            trial.write(time, int(tokens), _summary(named))

    def _write_samples(self, trial: _Trial, time: float) -> None:
        try:
            samples = read_samples(self._paths.trial(trial.name).samples)
            base = read_samples(self._paths.base_samples) if samples else []
        except OSError as error:
            say(f"samples of {trial.name}: {error}")
            return
        prompts: dict[str, int] = {}
        for answer in answers_of(samples, base):
            number = prompts.setdefault(answer["prompt"], len(prompts) + 1)
            told = summary.text(f"samples/{number}", _markdown(answer))
            trial.write(time, answer["step"], told)

    def _leave(self, trial: _Trial) -> None:
        trial.writer.flush()
        trial.writer.close()
        if is_uri(self._paths.root):
            target = join(self._paths.tensorboard, trial.name, trial.path.name)
            try:
                files.write_bytes(target, trial.path.read_bytes())
            except OSError as error:
                say(f"{target}: {error}; it lies in {trial.path}")


def _summary(values: Mapping[str, Any]) -> Summary:
    numbers = {name: value for name, value in values.items() if value is not None}
    return Summary(value=[Summary.Value(tag=t, simple_value=float(v)) for t, v in numbers.items()])


def _hparam(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _markdown(answer: Mapping[str, Any]) -> str:
    """An answer beside the reference and the base's, as code, so that nothing is rendered."""
    flags = f" ({answer['flags']})" if answer["flags"] else ""
    parts = {"prompt": answer["prompt"], f"answer{flags}": answer["answer"]}
    parts |= {name: answer[name] for name in ("reference", "base") if answer[name]}
    return "\n\n".join(f"**{name}**\n\n{_indented(text)}" for name, text in parts.items())


def _indented(text: str) -> str:
    lines: Iterable[str] = text.splitlines() or [""]
    return "\n".join(f"    {line}" for line in lines)
