"""Time in which this process could run: Ctrl-Z, a laptop's lid, a paused container or machine.

Promise: what passes while a process is suspended is left out, so that nobody is taken for silent or
dead because of it. Price: a thread that looks at the clock once a second.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

LOOK_SECONDS = 1.0
GAP_SECONDS = 30.0
"""A process that has not looked for so long was suspended: one that is only slowed down does."""
AFTERMATH_SECONDS = 60.0
"""What ends so soon after a process has woken up ended because of that."""


class AwakeClock:
    """Seconds since it was made for which the process was awake; any thread may ask."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, gap_seconds: float = GAP_SECONDS
    ) -> None:
        """Somebody has to ask more often than `gap_seconds`, as `started` does."""
        self._clock, self._gap_seconds = clock, gap_seconds
        self._lock = threading.Lock()
        self._last, self._awake, self._woke = clock(), 0.0, -math.inf

    @classmethod
    def started(cls) -> AwakeClock:
        """One that a thread of its own keeps looking at."""
        clock = cls()
        threading.Thread(target=clock._keep_looking, name="sftray-awake", daemon=True).start()
        return clock

    def __call__(self) -> float:
        with self._lock:
            now = self._clock()
            passed, self._last = now - self._last, now
            if passed > self._gap_seconds:
                self._woke = self._awake
            else:
                self._awake += passed
            return self._awake

    def woke_lately(self) -> bool:
        """Whether the process was suspended until a moment ago."""
        return self() - self._woke < AFTERMATH_SECONDS

    def _keep_looking(self) -> None:
        while True:
            self()
            time.sleep(LOOK_SECONDS)
