"""A trial's reports on their way from who trains it to its client: a queue, a gate at a rung, and a
clock for a hang.

Promise: reports come in order, each once; past a rung nothing is trained before the client has got
the rung's report and called `go_on`; silence of who trains is a hang. Neither ray nor torch is
needed. Every wait is `poll_seconds` at most: whoever waits longer asks again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sftray.trial.trial_report import Report

if TYPE_CHECKING:
    from ray.actor import ActorHandle

POLL_SECONDS = 5.0


class SignsOfLife:
    """When somebody was last heard of."""

    def __init__(self, limit: float, clock: Callable[[], float]) -> None:
        """`limit`: how long a silence may be, by `clock`; both in seconds."""
        self._limit, self._clock = limit, clock
        self._heard: float | None = None
        """None while nobody is to be heard of."""

    def alive(self) -> None:
        self._heard = self._clock()

    def rest(self) -> None:
        """Nobody is at work, until the next sign."""
        self._heard = None

    def silence(self) -> float | None:
        """Seconds of a silence that is too long; None where it is not."""
        silent = 0.0 if self._heard is None else self._clock() - self._heard
        return silent if silent > self._limit else None


class ReportChannel:
    """One trial's; any thread may call it."""

    def __init__(
        self,
        trainer: SignsOfLife,
        hang: Callable[[float], Exception],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """`trainer`: of who trains the trial; `hang`: what its client gets to hear after so many
        seconds of silence."""
        self._trainer, self._hang, self._poll_seconds = trainer, hang, poll_seconds
        self._changed = threading.Condition()
        self._reports: deque[Report] = deque()
        self._closed = False
        """The gate: a rung's report is under way, and the search has not decided."""
        self._wanted = True
        self._fault: Exception | None = None

    def put(self, report: Report) -> bool:
        """Pass on a report; whether the trial is wanted any more."""
        with self._changed:
            if self._wanted:
                self._reports.append(report)
                self._closed = self._closed or report.waits
                self._changed.notify_all()
            return self._wanted

    def decided(self) -> bool | None:
        """Whether the trial continues from its rung; None as long as that is not decided."""
        with self._changed:
            self._wait(lambda: not (self._closed and self._wanted))
            if not self._wanted:
                return False
            return None if self._closed else True

    def next_report(self) -> Report | None:
        """The next report; None if there is none yet. Raises what `fail` was given, or a hang."""
        with self._changed:
            self._wait(lambda: self._fault is not None or bool(self._reports))
            if self._fault is not None:
                raise self._fault
            if self._reports:
                return self._reports.popleft()
        silent = self._trainer.silence()
        if silent is not None:
            raise self._hang(silent)
        return None

    def go_on(self) -> bool:
        """The search lets the trial continue from the rung whose report the client has got. Whether
        the trial continues: a report of the next rung may be on its way."""
        with self._changed:
            self._closed = any(report.waits for report in self._reports)
            self._changed.notify_all()
            return not self._closed

    def drop(self) -> None:
        """The trial is not wanted any more; reports that were put before can still be got."""
        with self._changed:
            self._wanted = False
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """No report comes any more."""
        with self._changed:
            self._fault = error
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(condition, timeout=self._poll_seconds)


def next_report(source: ActorHandle, trial: str, last: Report) -> Report:
    """The report that comes after `last`, however long it takes. The search has let the trial
    continue. `source`: an actor with this trial's `go_on` and `next_report`."""
    import ray

    if last.waits:
        ray.get(source.go_on.remote(trial))
    report: Report | None = None
    while report is None:
        report = ray.get(source.next_report.remote(trial))
    return report


def tune_step(last: Report, following: Callable[[], Report]) -> tuple[Report, Mapping[str, object]]:
    """What Tune gets of a trial's step, and the report that is the last one then."""
    if last.outcome is not None:  # it is reported, and now Tune may end the trial
        return last, {**last.values(), "done": True}
    report = following()
    return report, report.values()
