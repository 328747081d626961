"""What passes between a trial's client and the workers of the Ray Train run that trains it.

Promise: the workers of a run get its trials one after another, all the same; a trial waits at a
rung until the search lets it go on; workers that have died come back to the trial they were at, so
often as is allowed, or end it; that a machine was taken back is not counted, and workers that hang
end the run. Neither ray nor torch is needed. Every wait is POLL_SECONDS at most: whoever waits
longer asks again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from sftray.errors import WorkersError
from sftray.storage.journal.event_types import OUTAGE

POLL_SECONDS = 5.0


class Mailbox:
    """One client and the workers of one run; any thread may call it."""

    def __init__(
        self,
        max_failures: int,
        hang_seconds: float = 1800.0,
        clock: Callable[[], float] = time.monotonic,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """`max_failures`: how often a trial is begun again whose worker has died; `hang_seconds`:
        how long its workers may be silent, by `clock`; `poll_seconds`: how long a wait is."""
        self._max_failures, self._hang_seconds, self._clock = max_failures, hang_seconds, clock
        self._poll_seconds = poll_seconds
        self._heard = clock()
        """When a worker last gave a sign of life."""
        self._changed = threading.Condition()
        self._sent: deque[Mapping[str, Any]] = deque()
        self._number = 0
        """Of the trial that the workers are at, or were at last; the first is 1."""
        self._spec: Mapping[str, Any] | None = None
        """None between trials."""
        self._wanted = False
        self._reports: deque[dict[str, Any]] = deque()
        self._awaited = False
        """The client has got the last report and asks for the next: the search has decided."""
        self._begun: set[int] = set()
        """The ranks that have taken the trial; rank 0 is the first."""
        self._failures = 0
        self._last_words: str | None = None
        self._taken_back = False
        """One of the machines is about to go: the next death is not a failure."""
        self._closed = False
        self._broken: str | None = None

    # the client's side

    def send(self, spec: Mapping[str, Any]) -> None:
        """Hand over the next trial, `TrialSpec.to_json()`; the one before is not wanted now."""
        with self._changed:
            self._wanted = False
            self._sent.append(spec)
            self._changed.notify_all()

    def next_report(self, trial: str) -> dict[str, Any] | None:
        """The trial's next report, None if there is none yet. Asking means that it may go on from a
        rung whose report has been got. Raises WorkersError where the run has ended, or hangs.

        A report {"interrupted", "message"} says that workers have died and that new ones go on."""
        with self._changed:
            if self._is_at(trial):
                self._awaited = not self._reports
                self._changed.notify_all()
            self._wait(lambda: self._broken is not None or (self._is_at(trial) and self._reports))
            if self._broken is not None:
                raise WorkersError(self._broken)
            if self._is_at(trial) and not self._reports:
                self._check_alive()
            if not (self._is_at(trial) and self._reports):
                return None
            self._awaited = False
            return self._reports.popleft()

    def drop(self, trial: str) -> None:
        """The search has stopped the trial: its workers end it when they next report."""
        with self._changed:
            self._sent = deque(spec for spec in self._sent if spec["trial"] != trial)
            if self._is_at(trial):
                self._wanted = False
            self._changed.notify_all()

    def close(self) -> None:
        """No more trials: the workers end."""
        with self._changed:
            self._wanted, self._closed = False, True
            self._sent.clear()
            self._changed.notify_all()

    def broken(self, message: str) -> None:
        """The run has ended, and not because it was told to."""
        with self._changed:
            self._broken = message
            self._changed.notify_all()

    # the workers' side

    def take(self, rank: int, after: int) -> tuple[int, Mapping[str, Any]] | str | None:
        """(number, trial) of the trial that comes after the one of number `after`; "closed" where
        there will be none; None if there is none yet.

        A worker that has just started asks with `after` = 0, and gets the trial in whose middle the
        workers before it have died.
        """
        with self._changed:
            self._heard = self._clock()
            self._notice_the_dead(rank, after)
            if rank == 0 and self._spec is None:
                self._wait(lambda: self._closed or self._sent)
                self._begin_next()
            self._wait(lambda: self._closed or (self._is_open(after) and self._first_is_in(rank)))
            if self._closed:
                return "closed"
            if self._spec is None or not (self._is_open(after) and self._first_is_in(rank)):
                return None
            self._begun.add(rank)
            self._last_words = None
            self._changed.notify_all()
            return self._number, self._spec

    def alive(self, number: int) -> None:
        """A worker has taken a step."""
        if number == self._number:
            self._heard = self._clock()

    def taken_back(self, number: int) -> None:
        """One of the workers' machines is about to be taken back."""
        if number == self._number:
            self._taken_back = True

    def tell(self, number: int, metrics: dict[str, Any]) -> bool:
        """Pass on a report; whether the trial is wanted any more."""
        with self._changed:
            self._heard = self._clock()
            if number == self._number and self._wanted:
                self._reports.append(metrics)
                self._awaited = False
                self._changed.notify_all()
            return number == self._number and self._wanted

    def decided(self, number: int) -> bool | None:
        """Whether the search lets the trial go on from the rung whose report was the last one;
        None as long as it has not decided."""
        with self._changed:
            self._heard = self._clock()
            here = number == self._number
            self._wait(lambda: not (here and self._wanted) or self._awaited)
            if not (here and self._wanted):
                return False
            return True if self._awaited else None

    def finished(self, number: int) -> None:
        """The workers have ended a trial."""
        with self._changed:
            if number == self._number:
                self._spec = None
                self._changed.notify_all()

    def died(self, number: int, words: str, meaning: str) -> None:
        """A worker is about to end in the middle of a trial: a "failure"; or all begin "again" with
        what takes less memory; or the meaning is the trial's outcome: there was not enough
        ("out_of_memory"), or the data is damaged ("data_error"); or a disk is full or storage away
        ("outage")."""
        with self._changed:
            if number != self._number or self._last_words is not None or self._spec is None:
                return
            self._last_words = words
            if meaning in ("out_of_memory", "data_error", OUTAGE):
                self._end(meaning, words)
            else:
                self._interrupted(words, is_failure=meaning == "failure")

    def _is_at(self, trial: str) -> bool:
        return self._number > 0 and self._trial == trial

    def _is_open(self, after: int) -> bool:
        return self._spec is not None and self._number > after

    def _first_is_in(self, rank: int) -> bool:
        """All others follow rank 0, so that none takes a trial that it has not taken."""
        return rank == 0 or 0 in self._begun

    def _notice_the_dead(self, rank: int, after: int) -> None:
        """A worker that asks for a trial which it has taken before is a new one."""
        if self._is_open(after) and rank in self._begun:
            self._interrupted("its worker died without a word", is_failure=True)
        if self._spec is not None and self._failures > self._max_failures:
            self._end("failed", self._last_words or "its worker died without a word")

    def _interrupted(self, words: str, *, is_failure: bool) -> None:
        """The workers have died, and others are to go on."""
        self._begun.clear()
        self._failures += is_failure and not self._taken_back
        what = "preempted" if self._taken_back else "failed"
        words = f"its machine was taken back: {words}" if self._taken_back else words
        self._taken_back = False
        self._reports.append({"interrupted": what, "message": words})
        self._changed.notify_all()

    def _check_alive(self) -> None:
        silent = self._clock() - self._heard
        if self._begun and silent > self._hang_seconds:
            raise WorkersError(f"its workers hang: no sign of life for {silent:.0f} s")

    def _end(self, outcome: str, message: str) -> None:
        self._reports.append({"outcome": outcome, "message": message})
        self._spec, self._wanted = None, False
        self._changed.notify_all()

    def _begin_next(self) -> None:
        if not self._sent:
            return
        self._spec = self._sent.popleft()
        self._trial = self._spec["trial"]
        self._number += 1
        self._failures, self._last_words, self._taken_back = 0, None, False
        self._begun.clear()
        self._awaited, self._wanted = False, True
        self._reports.clear()

    def _wait(self, condition: Callable[[], Any]) -> None:
        self._changed.wait_for(condition, timeout=self._poll_seconds)
