"""A sweep's tables, as pandas DataFrames.

Promise: columns are there before the first trial is, and a number that is not known is NaN, never a
guess. Axes of the search stand under their own names. Times are seconds since the sweep
began, as the journal has them, pauses between two runs included. Price: pandas, imported when the
first table is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sftray.config.config_json import to_json
from sftray.config.points import setting_of
from sftray.results.leaderboard import RankedTrial
from sftray.results.leaderboard_text import standing
from sftray.results.records import Floats, TrialRecord, as_number, points_of
from sftray.results.sweep_folder import SweepFolder
from sftray.storage.journal.event_types import Outcome
from sftray.storage.paths import SweepPaths, TrialPaths
from sftray.trial.samples import question, read_samples

if TYPE_CHECKING:
    import pandas as pd

BASE = "base"
"""The `trial` in `samples` where the untrained base answers."""

_TRIAL = (
    "outcome", "eval_loss", "metric", "step", "last_eval_loss", "steps", "rows", "tokens",
    "supervised_tokens", "seconds", "gpu_seconds", "energy_wh",
    "tokens_per_second", "gpu_memory_gb", "started", "ended", "device", "seed", "confirms",
    "ran_in", "diagnosis", "verdict", "advice", "message",
)  # fmt: skip
_MEASURED = (
    "eval_loss", "metric", "last_eval_loss", "seconds", "gpu_seconds", "energy_wh",
    "tokens_per_second", "gpu_memory_gb", "started", "ended",
)  # fmt: skip
_STEP = ("train_loss", "learning_rate", "grad_norm")
_EVALUATION = ("eval_loss", "tokens", "tokens_per_second", "gpu_memory_gb", "seconds")
_NUMBERS = (*_STEP, *_EVALUATION, "time")
_SAMPLE = ("prompt", "question", "reference", "trial", "step", "answer", "flags")
_KIND = ("trial", "step", "kind", "tokens", "eval_loss")
_RUNG = ("trial", "bracket", "rung", "step", "eval_loss", "metric", "cutoff", "decision")


class Results(SweepFolder):
    """A sweep's folder with its tables, each made when it is first asked for."""

    @property
    def sources(self) -> list[str]:
        """The names of several sources."""
        mixture = self.config.data.mixture
        return [one.name for one in mixture] if len(mixture) > 1 else []

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial, in the order they were suggested.

        `eval_loss` is the best, at `step`; `last_eval_loss` the newest, after `steps` and `rows`.
        `metric` is what the sweep's metric said of its answers. `seconds` are those in training
        steps, `gpu_seconds` its share of its devices' time in them (of its workers' where there is
        no GPU), `energy_wh` the watt-hours that its GPUs have counted. `started` is when its first
        evaluation was done, `ended` when it ended; NaN where it has not. `confirms` names the trial
        that it repeats with another `seed`, `ran_in` the folder of another sweep that it was taken
        over from; its times are not known here. Of several sources `eval_loss/<source>` is each
        one's at `step`.
        """
        board = {row["trial"]: row for row in self.leaderboard["trials"]}
        rows = [_trial(self, record, board[record.trial]) for record in self.records]
        sources = [f"eval_loss/{name}" for name in self.sources]
        columns = ["trial", *self.axes, *_TRIAL, *sources]
        table = _frame(rows, columns, (*_MEASURED, *sources))
        return table.astype({"step": "Int64"})

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an optimizer step of a trial, and one for step 0, the untrained base.

        `train_loss`, `learning_rate` (of that step, by the schedule) and `grad_norm` are known at
        every step of which the trial has reported; `eval_loss`, `tokens`, `tokens_per_second`,
        `gpu_memory_gb`, `seconds` and `time` where it was evaluated. A step that came again, after
        a resume, counts as it came last.
        """
        curves = [_curve(self, record) for record in self.records]
        configs = self.trial_configs.values()
        batches = [config.effective_batch_size for config in configs]
        counts = [len(steps) for steps, _ in curves]
        steps = np.concatenate([np.empty(0, dtype=int), *(steps for steps, _ in curves)])
        known = np.concatenate([np.empty((0, len(_NUMBERS))), *(known for _, known in curves)])
        table = _frame(known, _NUMBERS)
        table.insert(0, "trial", np.repeat([*self.trial_configs], counts))
        table.insert(1, "step", steps)
        table.insert(2, "rows", steps * np.repeat(np.array(batches, dtype=int), counts))
        return table

    @cached_property
    def kinds(self) -> pd.DataFrame:
        """One row a kind of token of an evaluation, step 0 the untrained base: its `eval_loss`, and
        how many `tokens` are evaluated. No rows of sweeps that did not report them."""
        rows = [
            (record.trial, result["step"], kind, tokens, loss)
            for record in self.records
            for result in record.results
            for kind, loss, tokens in result.get("eval_loss_by_kind") or ()
        ]
        return _frame(rows, _KIND, ("eval_loss",))

    @cached_property
    def rungs(self) -> pd.DataFrame:
        """One row a decision at a rung, in the order they were taken.

        `rung` is the rows that all trials of the `bracket` had seen there; `eval_loss` what the
        trial was judged by, unless that was its `metric`; `cutoff` what had to be reached, NaN
        where all continued; `decision` is continue or stop.
        """
        rows = []
        for record in self.records:
            losses = {result["step"]: result["eval_loss"] for result in record.results}
            for event in record.decisions:
                row = {name: event.get(name) for name in (*_RUNG, "time")}
                rows.append(row | {"eval_loss": losses.get(event["step"])})
        table = _frame(rows, [*_RUNG, "time"], ("eval_loss", "metric", "cutoff"))
        return table.sort_values("time", kind="stable", ignore_index=True)[list(_RUNG)]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row an answer to a fixed prompt; `trial` is "base" where the untrained base answers.

        `prompt` numbers the prompts, `question` is the conversation so far as text, `reference`
        what the data has as answer, empty where the prompt was given. `flags` are those of
        `trial.flags` that the answer has, with a space between. Trials answer at the `step` at
        which they completed, or at each evaluation (`sample_at`).
        """
        paths = SweepPaths(self.folder)
        files = [(BASE, paths.base_samples)]
        files += [
            (record.trial, TrialPaths(record.folder or paths.trial(record.trial).root).samples)
            for record in self.records
        ]
        numbers: dict[str, int] = {}
        rows = [
            {
                "prompt": numbers.setdefault(json.dumps(sample["messages"]), len(numbers)),
                "question": question(sample["messages"]),
                "reference": sample["reference"] or "",
                "trial": who,
                "step": sample["step"],
                "answer": sample["answer"],
                "flags": " ".join(sample["flags"]),
            }
            for who, path in files
            for sample in read_samples(path)
        ]
        return _frame(rows, _SAMPLE).sort_values("prompt", kind="stable", ignore_index=True)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The row of `trials` with the lowest eval loss, with `base_eval_loss`, `gain` (how far it
        lies below the base) and `adapter`, the folder of the bundle, which is written at the end.
        No row before there is one."""
        base = as_number(self.leaderboard["base"]["eval_loss"])
        row = self.trials[self.trials["trial"] == self.leaderboard["best"]].reset_index(drop=True)
        return row.assign(
            base_eval_loss=base,
            gain=base - row["eval_loss"],
            adapter=SweepPaths(self.folder).best,
        )


def compare(*sweeps: Results) -> pd.DataFrame:
    """One row a sweep, in the order given: its best loss, and what it cost; `comparable` with the
    first where both have the same packs, hence the same eval rows, and the same base held in the
    same precision."""
    rows = []
    for found in sweeps:
        table, row = found.trials, found.best
        here = table[table["ran_in"].isna()]
        chosen = row.iloc[0] if len(row) else {}
        rows.append(
            {
                "sweep": found.config.name,
                "base_eval_loss": as_number(found.leaderboard["base"]["eval_loss"]),
                "eval_loss": chosen.get("eval_loss", math.nan),
                "gain": chosen.get("gain", math.nan),
                "trial": chosen.get("trial"),
                "trials": len(table),
                "completed": int((table["outcome"] == Outcome.COMPLETED).sum()),
                "tokens": int(here["tokens"].sum()),
                "gpu_seconds": float(here["gpu_seconds"].sum()),
                "comparable": _measured_on(found) == _measured_on(sweeps[0]),
            }
        )
    return _frame(rows)


def differences(*sweeps: SweepFolder) -> pd.DataFrame:
    """The fields of the configurations that are not the same in all, one row each, a column a
    sweep; a field that a configuration does not have, as an axis that it does not search, is
    empty."""
    configs = [_flat(to_json(found.config)) for found in sweeps]
    names = dict.fromkeys(name for config in configs for name in config)
    values = {name: [config.get(name, "") for config in configs] for name in names}
    rows = {name: different for name, different in values.items() if len(set(different)) > 1}
    table = _frame(list(rows.values()), [found.config.name for found in sweeps])
    return table.set_axis(list(rows), axis="index")


def _frame(
    rows: Sequence[object] | Floats,
    columns: Sequence[str] | None = None,
    numbers: Iterable[str] = (),
) -> pd.DataFrame:
    """A table; of the columns that are `numbers` what is missing is NaN."""
    import pandas as pd

    names = None if columns is None else list(columns)
    return pd.DataFrame(rows, columns=names).astype(dict.fromkeys(numbers, float))


def _trial(found: SweepFolder, record: TrialRecord, row: RankedTrial) -> dict[str, object]:
    config, last = found.trial_configs[record.trial], record.last
    memory = [float(result.get("gpu_memory_gb") or 0) for result in record.trained]
    return {
        **{name: setting_of(found.config, config, name) for name in found.axes},
        "trial": record.trial,
        "outcome": standing(record.outcome, found.leaderboard),
        "eval_loss": as_number(row["eval_loss"]),
        "metric": as_number(record.metric),
        "step": row["step"],
        "last_eval_loss": as_number(last.get("eval_loss")) if last["step"] else math.nan,
        "steps": last["step"],
        "rows": last["rows"],
        "tokens": last["tokens"],
        "supervised_tokens": last["supervised_tokens"],
        "seconds": last["seconds"],
        "gpu_seconds": record.gpu_seconds,
        "energy_wh": as_number(record.energy_wh),
        "tokens_per_second": last["tokens"] / last["seconds"] if last["seconds"] else math.nan,
        "gpu_memory_gb": max(memory, default=math.nan),
        "started": _since_start(found, record, record.times[0] if record.times else None),
        "ended": _since_start(found, record, record.ended),
        "device": next((str(r["device"]) for r in record.results if "device" in r), None),
        "seed": config.seed,
        "confirms": record.confirms,
        "ran_in": record.folder,
        "diagnosis": row["diagnosis"],
        "verdict": row["verdict"],
        "advice": row["advice"],
        "message": record.message,
        **{f"eval_loss/{name}": loss for name, loss in row.get("by_source", {}).items()},
    }


def _curve(found: SweepFolder, record: TrialRecord) -> tuple[NDArray[np.int64], Floats]:
    """The steps of which a trial has reported, and what is known of each, as _STEP, _EVALUATION and
    the time."""
    points = np.concatenate(
        [np.empty((0, 4)), *(points_of(result.get("curve")) for result in record.results)]
    )
    evaluated = np.array([result["step"] for result in record.results], dtype=int)
    steps = np.union1d(points[:, 0].astype(int), evaluated)
    known = np.full((len(steps), len(_NUMBERS)), np.nan)
    known[np.searchsorted(steps, points[:, 0]), : len(_STEP)] = points[:, 1:]
    rows = [
        [*map(as_number, map(result.get, _EVALUATION)), _since_start(found, record, time)]
        for time, result in zip(record.times, record.results, strict=True)
    ]
    if rows:
        known[np.searchsorted(steps, evaluated), len(_STEP) :] = rows
    return steps, known


def _since_start(found: SweepFolder, record: TrialRecord, time: float | None) -> float:
    started = found.record.get("started")
    if time is None or started is None or record.folder is not None:
        return math.nan
    return max(0.0, time - datetime.fromisoformat(started).timestamp())


def _measured_on(found: SweepFolder) -> tuple[object, ...]:
    trial, weights = found.config.trial, [one.weight for one in found.config.data.mixture]
    return (found.packs_key, trial.model, trial.base_precision, weights)


def _flat(values: object, name: str = "") -> dict[str, str]:
    """Nested values as one level of dotted names and texts."""
    if not isinstance(values, dict):
        return {name: str(values)}
    return {
        key: text
        for inner, value in values.items()
        for key, text in _flat(value, f"{name}.{inner}" if name else inner).items()
    }
