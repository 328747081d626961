"""Hours, GPU-hours and cost of a running sweep, compared with its budgets."""

from __future__ import annotations

import time
from collections.abc import Callable

from sftray.config import SweepConfig
from sftray.errors import Log
from sftray.results.spending import Spent, shares, spent_in
from sftray.storage.journal import Journal
from sftray.storage.journal.event_types import EventName, SpentSoFar

LOOK_SECONDS = 1.0
"""Who asks again sooner gets the same answer."""
RECORD_SECONDS = 60.0
"""From one event of the journal to the next."""
NEARLY = 0.8
"""Of a budget, when that is said."""


class Meter:
    """The clock of a sweep that runs."""

    def __init__(
        self,
        sweep: SweepConfig,
        journal: Journal,
        gpus: Callable[[], float],
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        began: tuple[float, float] | None = None,
    ) -> None:
        """`gpus`: how many the sweep holds now; `clock` in seconds. `began`: when it did, by the
        clock, and how many there were then; None: now."""
        self._sweep, self._journal, self._gpus = sweep, journal, gpus
        self._log, self._clock = log, clock
        before = spent_in(sweep, journal.events())
        self._wall, self._gpu = before.wall_seconds, before.gpu_seconds
        self._number = sum(event["event"] == EventName.SPENT for event in journal.events())
        self._last, self._held = began or (clock(), gpus())
        self._recorded = self._last
        self._warned = False
        self.used_up = ""
        """The budget that is used up, as the field is called; or nothing."""
        self._ended_by = ""
        self._count()
        if self._number:  # a budget may have been raised
            self.record()

    @property
    def spent(self) -> Spent:
        """Until it was last looked at."""
        return Spent.of(self._sweep, self._wall, self._gpu)

    def look(self) -> str:
        """Which budget is used up now, as the field is called; or nothing."""
        if self._clock() - self._last >= LOOK_SECONDS:
            self._count()
        if self._last - self._recorded >= RECORD_SECONDS:
            self._write()
        return self.used_up

    def record(self) -> None:
        """Journal what has been spent until now."""
        self._count()
        self._write()

    def end(self) -> None:
        """Journal that the sweep ends here by its budget, with trials left."""
        self._ended_by = self.used_up
        self.record()

    def _count(self) -> None:
        now, held = self._clock(), self._gpus()
        passed, self._last = now - self._last, now
        self._wall += passed
        self._gpu += passed * min(self._held, held)  # those that have come since were not there
        self._held = held
        self._judge()

    def _write(self) -> None:
        self._recorded = self._last
        self._number += 1
        spent = SpentSoFar(
            event=EventName.SPENT,
            trial=None,
            attempt=self._number,
            wall_seconds=round(self._wall, 3),
            gpu_seconds=round(self._gpu, 3),
            budget=self._ended_by,
        )
        self._journal.append(spent)

    def _judge(self) -> None:
        most = max(shares(self._sweep, self.spent).items(), key=lambda one: one[1], default=None)
        if most is None:
            return
        name, share = most
        if share >= 1:
            self.used_up = name
        elif share >= NEARLY and not self._warned:
            self._warned = True
            limit = getattr(self._sweep, name)
            self._log(f"{share:.0%} of {name}={limit:g} is used: {self.spent}")
