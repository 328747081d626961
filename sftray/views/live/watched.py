"""A sweep's folder, local or a URI, read as it grows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from sftray.config import SweepConfig
from sftray.results.log_lines import line
from sftray.results.records import Records
from sftray.results.spending import Spent
from sftray.results.sweep_folder import read_record
from sftray.storage import files
from sftray.storage.journal import Event, reader
from sftray.storage.journal.event_types import EventName, SpentSoFar
from sftray.storage.paths import SweepPaths, is_uri, name_of
from sftray.storage.terminal_text import log_line
from sftray.views.live.snapshot import Clock, Plans, State, state_of

PAUSE_SECONDS = 60.0
"""Where nothing was journalled for so long before a trial starts, no driver was there."""
POLL_SECONDS, REMOTE_SECONDS = 1.0, 10.0
KEPT_LINES = 50
_STARTS = (EventName.ATTEMPT_STARTED, EventName.TRIAL_SUGGESTED, EventName.DRIVER_STARTED)


class Watched:
    """What has been read of a sweep, and its state."""

    def __init__(
        self, folder: str, driven: SweepConfig | None = None, now: Callable[[], float] = time.time
    ) -> None:
        """driven: the sweep, where this process is its driver; it need not have begun."""
        self._paths, self._driven, self._now = SweepPaths(folder), driven, now
        self.poll_seconds = REMOTE_SECONDS if is_uri(folder) else POLL_SECONDS
        """Between two looks at the journal."""
        self._begun = now()
        self._journal = reader(self._paths.journal)
        self._plans: Plans | None = None
        self._records: Records | None = None
        self._ended = False
        self._first = self._last = 0.0
        self._pauses: list[tuple[float, float]] = []
        self._spent: SpentSoFar | None = None
        """The newest event of spending."""
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        """Of its events, each with the seconds since the first; the driver's log has its own."""

    def catch_up(self) -> list[str]:
        """Read what the journal has got since; its lines. Raises OSError where the storage is out
        of reach, JournalError where the journal is damaged."""
        if self._records is None or self._plans is None:
            if not files.exists(self._paths.sweep):
                return []
            self._plans = Plans(read_record(self._paths.sweep), self._driven)
            self._records = Records()
        fresh = []
        for event in self._journal.new():
            self._take(event)
            self._records.add([event])
            if text := line(event, self._records):
                fresh.append(log_line(f"{self._last - self._first:7.1f}s  {text}"))
        self.lines.extend(fresh)
        return fresh

    @property
    def over(self) -> bool:
        """Whether the sweep has come to its end and no trial runs, or its budget is used up."""
        if self._spent and self._spent["budget"] and self._last == self._spent["time"]:
            return True
        trials = self._records.trials if self._records else []
        return self._ended and all(trial.outcome is not None for trial in trials)

    def state(self, lines: tuple[str, ...] | None = None) -> State:
        """The sweep now. lines: what to show as the last lines, if not the journal's own."""
        shown = tuple(self.lines) if lines is None else lines
        if self._plans is None or self._records is None or not self._first:
            name = name_of(self._paths.root)
            doing = "packing…" if self._plans is None else "starting…"
            return State(name, doing, elapsed=self._now() - self._begun, lines=shown)
        return state_of(self._plans, self._records, self._clock(), shown, ended=self._ended)

    def _take(self, event: Event) -> None:
        time = event.get("time", self._last)
        self._first = self._first or time
        if event["event"] in _STARTS and time - self._last > PAUSE_SECONDS and self._last:
            self._pauses.append((self._last, time))
        self._last = time
        if event["event"] == EventName.SPENT:
            self._take_spent(event)
        self._ended = self._ended or event["event"] == EventName.SWEEP_ENDED

    def _take_spent(self, event: SpentSoFar) -> None:
        """A driver that continues says first what earlier drivers spent."""
        if self._spent and "time" in event and "time" in self._spent:
            passed = event["time"] - self._spent["time"]
            paused = passed - (event["wall_seconds"] - self._spent["wall_seconds"])
            if paused > PAUSE_SECONDS:
                self._pauses.append((event["time"] - paused, event["time"]))
        self._spent = event

    def _clock(self) -> Clock:
        now, first, pauses = self._now(), self._first, self._pauses
        if self.over:
            now = self._last
        elif self._driven is not None and self._last < self._begun:
            pauses = [*pauses, (self._last, self._begun)]  # this driver has journalled nothing yet
        if self._driven is not None and first > self._begun:
            first = self._begun  # it has packed before
        spent = None
        if self._spent and self._plans:
            seconds = (self._spent["wall_seconds"], self._spent["gpu_seconds"])
            spent = Spent.of(self._plans.sweep, *seconds)
        used_up = self._spent["budget"] if self._spent else ""
        return Clock(now, first, self._last, tuple(pauses), spent, used_up)
