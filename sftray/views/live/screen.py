"""The view on a terminal, and plain lines where there is none.

Promise: where the output is piped, TERM is dumb or `plain` is asked for, every line is printed as
it comes. On a terminal what libraries print is set above the view, which stays there when the
sweep ends or is interrupted. NO_COLOR and TTY_INTERACTIVE are heeded, as by rich.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sftray.config import SweepConfig
from sftray.errors import Log, SftrayError
from sftray.results.load import require_sweep
from sftray.storage import outages
from sftray.storage.paths import SweepPaths
from sftray.storage.redact import redact
from sftray.storage.terminal_text import log_line, put
from sftray.views.live.live_view import view
from sftray.views.live.watched import KEPT_LINES, Watched

DRAW_SECONDS = 1.0
END_SECONDS = 5.0
"""How long the end of a sweep waits for a look at storage that does not answer."""


@contextlib.contextmanager
def shown(sweep: SweepConfig, *, plain: bool) -> Iterator[Log]:
    """Show a sweep while this process drives it; gives what to log its lines with."""
    started = time.monotonic()

    def stamped(line: str) -> str:
        return log_line(redact(f"{time.monotonic() - started:7.1f}s  {line}"))

    console = Console()
    if plain or not _can_draw(console):
        yield lambda line: put(stamped(line))
        return
    watched = Watched(SweepPaths.of(sweep.storage, sweep.name).root, sweep)
    with _Screen(console, watched, deque(maxlen=KEPT_LINES)) as screen:
        yield lambda line: screen.log(stamped(line))


def watch(folder: str, *, plain: bool) -> None:
    """Show a sweep that another process drives, until it ends. Raises SftrayError where there is
    none."""
    require_sweep(folder)
    console, watched = Console(), Watched(folder)
    if plain or not _can_draw(console):
        while True:
            for line in watched.catch_up():
                put(line)
            if watched.over:
                return
            time.sleep(watched.poll_seconds)
    with _Screen(console, watched) as screen:
        screen.wait()


class _Screen:
    """A thread that draws the view anew as the journal grows, until it is left."""

    def __init__(self, console: Console, watched: Watched, log: deque[str] | None = None) -> None:
        """log: the lines to show; the journal's own if None."""
        self._console, self._watched, self._lines = console, watched, log
        self._live = Live(console=console, auto_refresh=False)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, name="live view", daemon=True)
        self._broken = True
        """Whether drawing has failed: the thread says so, and the sweep continues."""
        self._complained = ""
        self._read = -math.inf
        """When the journal was read, by time.monotonic."""

    def __enter__(self) -> _Screen:
        self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(END_SECONDS)
        try:
            if not (self._broken or self._thread.is_alive()):
                self._draw()
        finally:
            self._live.stop()

    def log(self, line: str) -> None:
        """Show a line below; a warning stays above the view."""
        if "warning:" in line.lower():
            self._console.print(Text(line))
        elif self._lines is not None:
            self._lines.append(line)

    def wait(self) -> None:
        """Return when the sweep has ended."""
        while self._thread.is_alive() and not self._watched.over:
            self._thread.join(DRAW_SECONDS)

    def _draw_on(self) -> None:
        while True:
            self._draw()
            if self._left.wait(DRAW_SECONDS):
                self._broken = False
                return

    def _draw(self) -> None:
        if self._left.is_set() or time.monotonic() - self._read >= self._watched.poll_seconds:
            self._catch_up()
        lines = None if self._lines is None else tuple(self._lines)
        width, height = self._console.size
        drawn = view(self._watched.state(lines), width, height - 1)
        self._live.update(drawn, refresh=True)

    def _catch_up(self) -> None:
        try:
            with outages.patience(0):
                self._watched.catch_up()
        except (OSError, SftrayError) as error:  # the next look may go better
            if str(error) != self._complained:
                self._console.print(Text(log_line(f"warning: {error}")))
            self._complained = str(error)
        self._read = time.monotonic()


def _can_draw(console: Console) -> bool:
    return console.is_interactive and sys.stdout.isatty()
