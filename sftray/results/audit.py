"""A sweep's decisions and draws, made again from its journal by code of its own.

Promise: nothing of `search/` is called. ASHA's quantile is written out here; TPE's draws are those
of a fresh Optuna study that has the journal's trials in the journal's order. What the journal lacks
or has twice is said as well: an evaluation, a decision or an end that must be there. Price: 20 ms a
draw, nothing to speak of for the rest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftray.config import SweepConfig, TrialConfig
from sftray.config.points import Point, point_text
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.results.draws import AuditedTrial, Draws, labels, same_point
from sftray.results.load import require_sweep
from sftray.results.sweep_folder import fitted_sweep, read_record
from sftray.storage.journal import Event, read_events
from sftray.storage.journal.event_types import (
    STOP,
    Confirmation,
    EventName,
    Outcome,
    Result,
    RungDecision,
    TrialEnded,
    TrialSuggested,
)  # fmt: skip
from sftray.storage.paths import SweepPaths

SAME = 1e-9
"""Cutoffs are equal within this share: a sum in another order moves the last digit."""
STOPS_ANYWHERE = (
    Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.DATA_ERROR, Outcome.PREEMPTED, Outcome.FAILED,
)  # fmt: skip
"""Outcomes with which a trial may end at any step."""


@dataclass(frozen=True)
class Audit:
    """What was made again, and what differs."""

    decisions: int
    """In the journal."""
    wrong_decisions: int
    draws: int
    """Points that TPE drew."""
    wrong_draws: int
    starts: int
    """Points before them, of which the journal says what the search began with."""
    wrong_starts: int
    events: int
    differences: tuple[str, ...]
    """One sentence each, in the order of the journal."""

    def __str__(self) -> str:
        lines = [
            f"ASHA's decisions: {self.decisions - self.wrong_decisions} of {self.decisions}",
            f"TPE's draws: {self.draws - self.wrong_draws} of {self.draws}",
            f"points at the start: {self.starts - self.wrong_starts} of {self.starts}",
            f"events: {self.events}, {len(self.differences) or 'no'} "
            f"difference{'' if len(self.differences) == 1 else 's'}",
        ]
        return "\n".join([*lines, *self.differences])


def audit(folder: str) -> Audit:
    """The audit of the sweep in `folder`, finished or running. Raises SftrayError where there is
    none, JournalError where the journal is damaged."""
    require_sweep(folder)
    paths = SweepPaths(folder)
    record = read_record(paths.sweep)
    return audited(
        fitted_sweep(record), record["data"]["train"]["rows"], read_events(paths.journal)
    )


def audited(sweep: SweepConfig, rows: int, events: Sequence[Event]) -> Audit:
    """The audit of a journal's events. rows: packed ones of an epoch."""
    replay = _Replay(sweep, rows)
    differences = [f"event {number}: {one}" for number, event in enumerate(events, start=1)
                   for one in replay.take(event)]  # fmt: skip
    counts = replay.counts
    return Audit(
        decisions=counts["decision"],
        wrong_decisions=counts["wrong decision"],
        draws=counts["draw"],
        wrong_draws=counts["wrong draw"],
        starts=counts["start"],
        wrong_starts=counts["wrong start"],
        events=len(events),
        differences=(*differences, *replay.at_the_end()),
    )


def cutoff_of(recorded: Sequence[float], reduction_factor: int) -> float | None:
    """The quantile 1/reduction_factor of losses, linear between two of them, or their second
    lowest where that is more; None of fewer than two."""
    if len(recorded) < 2:
        return None
    ranked = sorted(recorded)
    place = (len(ranked) - 1) / reduction_factor
    below = math.floor(place)
    above = min(below + 1, len(ranked) - 1)
    quantile = ranked[below] + (place - below) * (ranked[above] - ranked[below])
    return max(quantile, ranked[1])


class _Replay:
    """A journal's events, one after another."""

    def __init__(self, sweep: SweepConfig, rows: int) -> None:
        self._sweep = sweep
        self._sign = -1 if sweep.judges_metric and sweep.metric_is_better == "higher" else 1
        self._plan = planner(sweep, rows, execution=ONE_ROW)
        self._trials: dict[str, AuditedTrial] = {}
        self._rungs: dict[tuple[str, int], dict[str, float]] = {}
        self._seeds: dict[str, list[int]] = {}
        self._draws = Draws(sweep)
        self._seen: set[tuple[object, ...]] = set()
        self.counts = Counter[str]()

    def take(self, event: Event) -> Iterator[str]:
        """Read an event; what differs from what must be there."""
        name, trial = event["event"], event["trial"]
        key = (name, trial, event.get("step"), event.get("attempt"))
        if key in self._seen:
            yield f"{name} of {trial} comes twice"
            return
        self._seen.add(key)
        if event["event"] == EventName.SWEEP_STARTED:
            self._draws.first = event.get("first")
        elif event["event"] == EventName.SWEEP_ENDED:
            yield from (f"the sweep has ended, but {one.name} has no end"
                        for one in self._trials.values() if one.outcome is None)  # fmt: skip
        elif event["event"] == EventName.TRIAL_SUGGESTED:
            yield from self._suggested(event)
        elif trial is not None and trial not in self._trials:
            yield f"{name} of {trial}, which was not suggested"
        elif trial is not None and self._trials[trial].outcome and name != EventName.CONFIRMATION:
            yield f"{name} of {trial} after its end"
        elif event["event"] == EventName.ATTEMPT_STARTED:
            state = self._trials[event["trial"]]
            if event["attempt"] != state.attempts + 1:
                yield f"{trial} starts for the {event['attempt']}th time after {state.attempts}"
            state.attempts = event["attempt"]
        elif event["event"] == EventName.RESULT:
            yield from self._result(self._trials[event["trial"]], event)
        elif event["event"] == EventName.DECISION:
            yield from self._decision(self._trials[event["trial"]], event)
        elif event["event"] == EventName.TRIAL_ENDED:
            yield from self._ended(self._trials[event["trial"]], event)
        elif event["event"] == EventName.CONFIRMATION:
            yield from self._confirmation(event)

    def at_the_end(self) -> Iterator[str]:
        """What differs once all events are known: losses that a rung's trials were judged with."""
        for trial in self._trials.values():
            for step, peers in trial.peers.items():
                rows = next((rung.rows for rung in trial.plan.rungs if rung.step == step), 0)
                for name, loss in peers.items():
                    other = self._trials.get(name)
                    theirs = other.judged_by.get(other.step_at(rows)) if other else None
                    if rows and theirs is not None and not _alike(theirs, loss):
                        yield (
                            f"{trial.name} was judged at {rows} rows with {loss:.4f} of {name}, "
                            f"which reported {theirs:.4f}"
                        )

    def _suggested(self, event: TrialSuggested) -> Iterator[str]:
        name, point, confirms = event["trial"], event["point"], event.get("confirms")
        expected = f"t{len(self._trials):04d}"
        if name != expected:
            yield f"{name} is suggested where {expected} must be"
        if confirms:
            yield from self._repetition(name, confirms, point)
        elif event.get("folder") is None:
            yield from self._draw(name, point)
        try:
            config: TrialConfig = self._sweep.trial.at(point)
            plan = self._plan(config)
        except ValueError as error:
            yield f"{name} cannot run: {error}"
            return
        trial = AuditedTrial(name, point, plan, confirms, event.get("folder"))
        self._trials[name] = trial
        if not confirms:
            self._draws.trials.append(trial)

    def _draw(self, name: str, point: Point) -> Iterator[str]:
        if self._sweep.points:
            given = self._draws.own()
            points = self._sweep.points
            if given >= len(points) or not same_point(points[given], point):
                yield f"{name} runs {point_text(point)}, which is not the next of the given points"
            return
        what, drawn = self._draws.again(point)
        if what == "unknown":
            return
        self.counts[what] += 1
        if drawn is None or not same_point(drawn, point):
            self.counts[f"wrong {what}"] += 1
            where = "TPE draws" if what == "draw" else "the search begins with"
            yield f"{name} runs {point_text(point)}, where {where} {point_text(drawn or {})}"

    def _repetition(self, name: str, confirms: str, point: Point) -> Iterator[str]:
        seeds = self._seeds.get(confirms, [])
        repeated = self._trials.get(confirms)
        want = [labels({**repeated.point, "seed": seed}) for seed in seeds] if repeated else []
        taken = [labels(one.point) for one in self._trials.values() if one.confirms == confirms]
        if labels(point) not in want or labels(point) in taken:
            yield f"{name} runs {point_text(point)}, which is no repetition of {confirms} to be run"

    def _confirmation(self, event: Confirmation) -> Iterator[str]:
        """The best that completed and is not chosen yet."""
        self._seeds[event["trial"]] = event["seeds"]
        rest = [one for name, one in self._trials.items()
                if one.outcome == Outcome.COMPLETED and not one.confirms
                and (name == event["trial"] or name not in self._seeds)]  # fmt: skip
        best = min(rest, key=lambda one: (one.best, one.name), default=None)
        if best is None or best.name != event["trial"]:
            must = best.name if best else "none"
            yield f"{event['trial']} is chosen to be run again, where {must} is the best left"

    def _result(self, trial: AuditedTrial, event: Result) -> Iterator[str]:
        metrics, step = event["metrics"], event["step"]
        yield from self._undecided(trial)
        missing = [one for one in (0, *trial.plan.eval_steps)
                   if one < step and one not in trial.losses]  # fmt: skip
        if missing and trial.folder is None:
            yield f"{trial.name} has a result at step {step}, but none at {missing[0]}"
        batch = self._sweep.trial.at(trial.point).effective_batch_size
        if metrics["step"] != step or metrics["rows"] != step * batch:
            yield f"{trial.name} has {metrics['rows']} rows at step {step} of {batch} rows each"
        trial.losses[step] = judged = metrics["eval_loss"]
        trial.metric = metrics.get("metric", trial.metric)
        if self._sweep.judges_metric:
            judged = self._sign * metrics.get("metric", math.nan)
        if not (self._sweep.judges_metric and math.isnan(judged)):
            trial.judged_by[step] = judged
        peers = metrics.get("rung_peers") or ()
        trial.peers[step] = {name: value * self._sign for name, value in peers}

    def _undecided(self, trial: AuditedTrial) -> Iterator[str]:
        """A rung that a trial has passed without a decision."""
        last = max(trial.losses, default=0)
        rung = trial.rung_at(last)
        loss = trial.judged_by.get(last, math.nan)
        if rung and last not in trial.judged and math.isfinite(loss) and trial.folder is None:
            trial.judged[last] = ""
            yield f"{trial.name} has no decision at step {last}, the rung of {rung} rows"

    def _decision(self, trial: AuditedTrial, event: RungDecision) -> Iterator[str]:
        self.counts["decision"] += 1
        step, rows = event["step"], event["rung"]
        loss, wrong = trial.judged_by.get(step), ""
        rung = self._rungs.setdefault((event["bracket"], rows), {})
        here = {**rung, **trial.peers.get(step, {})}
        cutoff = cutoff_of(list(here.values()), self._sweep.reduction_factor)
        if loss is None or trial.rung_at(step) != rows or event["bracket"] != trial.plan.bracket:
            wrong = (
                f"{trial.name} is judged at step {step} as at {rows} rows, which is no rung of it"
            )
        elif not _alike(must := cutoff and cutoff * self._sign, event["cutoff"]):
            wrong = f"{trial.name} has the cutoff {event['cutoff']} at {rows} rows, must be {must}"
        elif (event["decision"] == STOP) != (cutoff is not None and loss > cutoff):
            wrong = f"{trial.name} must not {event['decision']} at {rows} rows: {loss} to {cutoff}"
        if wrong:
            self.counts["wrong decision"] += 1
            yield wrong
        trial.judged[step] = event["decision"]
        if loss is not None:
            rung[trial.name] = loss

    def _ended(self, trial: AuditedTrial, event: TrialEnded) -> Iterator[str]:
        trial.outcome = event["outcome"]
        trial.metric = event.get("metric", trial.metric)
        if trial.folder is not None:
            return
        last = max(trial.losses, default=0)
        stopped = trial.judged.get(last) == STOP
        finite = math.isfinite(trial.losses.get(last, 0.0))
        patience = self._sweep.early_stopping_patience or math.inf
        if trial.outcome not in STOPS_ANYWHERE:
            yield from self._undecided(trial)
        if (trial.outcome == Outcome.PRUNED) != stopped:
            decision = trial.judged.get(last) or "no decision"
            yield f"{trial.name} ends as {trial.outcome} after {decision}"
        elif not finite and last > 0 and trial.outcome != Outcome.DIVERGED:
            yield f"{trial.name} ends as {trial.outcome}, where its loss is {trial.losses[last]}"
        elif (
            trial.outcome == Outcome.COMPLETED
            and last != trial.plan.steps
            and trial.since_its_best < patience
        ):
            yield f"{trial.name} is completed at step {last} of {trial.plan.steps}"


def _alike(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=SAME, abs_tol=SAME)
