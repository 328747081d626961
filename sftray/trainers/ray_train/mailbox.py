"""What passes between a trial's client and the workers of the Ray Train run that trains it.

Promise: the workers of a run get its trials one after another, all the same; a trial's reports and
its wait at a rung are a `ReportChannel`'s; workers that have died come back to the trial they were
at, so often as is allowed, or end it; that a machine was taken back is not counted, and workers
that hang end the run. Neither ray nor torch is needed. Every wait is POLL_SECONDS at most: whoever
waits longer asks again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sftray.cluster.awake_clock import AwakeClock
from sftray.errors import WorkersError
from sftray.storage.journal.event_types import HALTS, SUSPENDED
from sftray.trainers.report_channel import POLL_SECONDS, ReportChannel, SignsOfLife
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec


@dataclass(frozen=True)
class _Sent:
    spec: TrialSpec
    channel: ReportChannel


class Mailbox:
    """One client and the workers of one run; any thread may call it."""

    def __init__(
        self,
        max_failures: int,
        hang_seconds: float = 1800.0,
        clock: AwakeClock | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """`max_failures`: how often a trial is begun again whose worker has died; `hang_seconds`:
        how long its workers may be silent, by `clock`; `poll_seconds`: how long a wait is. That
        workers end when this process, and they with it, was suspended is not counted."""
        self._max_failures, self._poll_seconds = max_failures, poll_seconds
        self._clock = clock = clock or AwakeClock.started()
        self._workers = SignsOfLife(hang_seconds, clock)
        self._changed = threading.Condition()
        self._sent: deque[_Sent] = deque()
        self._number = 0
        """Of the trial that the workers are at, or were at last; the first is 1."""
        self._current: _Sent | None = None
        """That trial."""
        self._under_way = False
        """The workers are at it, or are to come back to it."""
        self._begun: set[int] = set()
        """The ranks that have taken the trial; rank 0 is the first."""
        self._failures = 0
        self._last_words: str | None = None
        self._taken_back = False
        """One of the machines is about to go: the next death is not a failure."""
        self._closed = False
        self._fault: WorkersError | None = None

    # the client's side

    def send(self, spec: TrialSpec) -> None:
        """Hand over the next trial; the one before is not wanted now."""
        with self._changed:
            if self._current is not None:
                self._current.channel.drop()
            channel = ReportChannel(self._workers, _hang, self._poll_seconds)
            if self._fault is not None:
                channel.fail(self._fault)
            self._sent.append(_Sent(spec, channel))
            self._changed.notify_all()

    def next_report(self, trial: str) -> Report | None:
        """The trial's next report, None if there is none yet. Raises WorkersError where the run has
        ended, or hangs. An `interrupted` one: workers have died, and new ones continue."""
        channel = self._channel(trial)
        return None if channel is None else channel.next_report()

    def go_on(self, trial: str) -> None:
        """The search lets the trial continue from the rung whose report its client has got."""
        channel = self._channel(trial)
        if channel is not None:
            channel.go_on()

    def drop(self, trial: str) -> None:
        """The search has stopped the trial: its workers end it when they next report."""
        with self._changed:
            self._sent = deque(one for one in self._sent if one.spec.trial != trial)
            if self._current is not None and self._current.spec.trial == trial:
                self._current.channel.drop()

    def close(self) -> None:
        """No more trials: the workers end."""
        with self._changed:
            self._closed = True
            self._sent.clear()
            if self._current is not None:
                self._current.channel.drop()
            self._changed.notify_all()

    def broken(self, message: str) -> None:
        """The run has ended, and not because it was to."""
        with self._changed:
            self._fault = WorkersError(message)
            for one in (*self._sent, *([self._current] if self._current else [])):
                one.channel.fail(self._fault)

    # the workers' side

    def take(self, rank: int, after: int) -> tuple[int, TrialSpec] | str | None:
        """(number, trial) of the trial that comes after the one of number `after`; "closed" where
        there will be none; None if there is none yet.

        A worker that has just started asks with `after` = 0, and gets the trial in whose middle the
        workers before it have died.
        """
        with self._changed:
            self._notice_the_dead(rank, after)
            if rank == 0 and not self._under_way:
                self._wait(lambda: self._closed or bool(self._sent))
                self._begin_next()
            self._wait(lambda: self._closed or self._is_open(rank, after))
            if self._closed:
                return "closed"
            if self._current is None or not self._is_open(rank, after):
                return None
            self._begun.add(rank)
            self._workers.alive()
            self._last_words = None
            self._changed.notify_all()
            return self._number, self._current.spec

    def alive(self, number: int) -> None:
        """A worker has taken a step."""
        if number == self._number and self._begun:  # silence of none is no hang
            self._workers.alive()

    def taken_back(self, number: int) -> None:
        """One of the workers' machines is about to be taken back."""
        if number == self._number:
            self._taken_back = True

    def put(self, number: int, report: Report) -> bool:
        """Pass on a report; whether the trial is wanted any more."""
        self.alive(number)
        channel = self._channel_of(number)
        return channel is not None and channel.put(report)

    def decided(self, number: int) -> bool | None:
        """Whether the search lets the trial continue from its rung; None as long as it has not
        decided."""
        self.alive(number)
        channel = self._channel_of(number)
        return channel is not None and channel.decided()

    def finished(self, number: int) -> None:
        """The workers have ended a trial."""
        with self._changed:
            if number == self._number:
                self._rest()

    def died(self, number: int, words: str, meaning: str) -> None:
        """A worker is about to end in the middle of a trial: a "failure"; or all begin "again" with
        what takes less memory; or the meaning is the trial's outcome: there was not enough
        ("out_of_memory"), or the data is damaged ("data_error"); or the sweep halts (one of
        HALTS)."""
        with self._changed:
            if number != self._number or self._last_words is not None or not self._under_way:
                return
            self._last_words = words
            if meaning in ("out_of_memory", "data_error", *HALTS):
                self._end(meaning, words)
            else:
                self._interrupted(words, is_failure=meaning == "failure")

    def _channel(self, trial: str) -> ReportChannel | None:
        """Of the trial that was sent last under this name."""
        with self._changed:
            known = (*reversed(self._sent), *([self._current] if self._current else []))
            return next((one.channel for one in known if one.spec.trial == trial), None)

    def _channel_of(self, number: int) -> ReportChannel | None:
        with self._changed:
            if self._current is None or number != self._number:
                return None
            return self._current.channel

    def _is_open(self, rank: int, after: int) -> bool:
        """Whether a worker gets the trial now. All others follow rank 0, so that none takes a trial
        that it has not taken."""
        return self._under_way and self._number > after and (rank == 0 or 0 in self._begun)

    def _notice_the_dead(self, rank: int, after: int) -> None:
        """A worker that asks for a trial which it has taken before is a new one."""
        if self._under_way and self._number > after and rank in self._begun:
            self._interrupted("its worker died without a message", is_failure=True)
        if self._under_way and self._failures > self._max_failures:
            self._end("failed", self._last_words or "its worker died without a message")

    def _interrupted(self, words: str, *, is_failure: bool) -> None:
        """The workers have died, and others are to continue."""
        self._begun.clear()
        self._workers.rest()
        what = "failed"
        if self._taken_back:
            what, words = "preempted", f"its machine was taken back: {words}"
        elif self._clock.woke_lately():
            what, words = SUSPENDED, f"its workers were suspended: {words}"
        self._failures += is_failure and what == "failed"
        self._taken_back = False
        self._report(Report(interrupted=what, message=words))

    def _end(self, outcome: str, message: str) -> None:
        self._report(Report(outcome=outcome, message=message))
        self._rest()

    def _report(self, report: Report) -> None:
        if self._current is not None:
            self._current.channel.put(report)

    def _rest(self) -> None:
        """The workers have ended a trial: nothing more of it is wanted."""
        if self._current is not None:
            self._current.channel.drop()
        self._under_way = False
        self._workers.rest()
        self._changed.notify_all()

    def _begin_next(self) -> None:
        if not self._sent:
            return
        self._current, self._under_way = self._sent.popleft(), True
        self._number += 1
        self._failures, self._last_words, self._taken_back = 0, None, False
        self._begun.clear()
        self._workers.rest()

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(condition, timeout=self._poll_seconds)


def _hang(seconds: float) -> WorkersError:
    return WorkersError(f"its workers hang: no sign of life for {seconds:.0f} s")
