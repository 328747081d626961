"""What every command prints with: lines, errors without tracebacks, messages without secrets."""

from __future__ import annotations

import contextlib
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType

from sftray.errors import SftrayError, SweepFailedError
from sftray.storage.redact import redact
from sftray.storage.terminal_text import put, visible

_WRAPPED = partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)
WIDTH = 110
"""The most columns of a line of prose."""


def with_plain_errors(run: Callable[[], int]) -> int:
    """Turn our own errors into a message and an exit status; all others keep their traceback."""
    try:
        return run()
    except SftrayError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        put(redact(f"error: {error.message}{hint}"), sys.stderr)
        return 1 if isinstance(error, SweepFailedError) else 2
    except KeyboardInterrupt:
        put("\ninterrupted", sys.stderr)
        return 128 + signal.SIGINT


class Stop:
    """SIGTERM, which SLURM, Kubernetes and `timeout` send, ends a sweep as Ctrl-C does."""

    def __init__(self, last_words: Callable[[], None]) -> None:
        """`last_words` prints what the sweep has so far."""
        self._last_words: Callable[[], None] | None = last_words
        self._number = signal.SIGINT
        signal.signal(signal.SIGTERM, self._take)

    def finish(self) -> int:
        """Say that the sweep was interrupted, once; the exit status: 130, or 143 by SIGTERM."""
        say_last, self._last_words = self._last_words, None
        if say_last is not None:
            say_last()
            put("\ninterrupted: run the same command to continue", sys.stderr)
        return 128 + self._number

    def finish_if_terminated(self) -> int | None:
        """The same where SIGTERM has come; else None."""
        return self.finish() if self._number == signal.SIGTERM else None

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._number == signal.SIGTERM:  # `timeout` sends it twice
            return
        self._number = signal.SIGTERM
        interrupt = signal.getsignal(signal.SIGINT)  # Tune's, while trials run
        if not callable(interrupt):  # ignored, as in the background of a script
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)


def say_mistakes_plainly() -> None:
    """Where a sweep file has a mistake, say so with its line, without a traceback."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        frames = list(traceback.walk_tb(trace))
        own = [one for one in frames if _is_of_the_file(one[0])]
        written = own[-1:] == frames[-1:] and own[-1][0].f_code.co_name == "<module>"
        if not own or not (isinstance(error, SftrayError) or written):
            before(kind, error, trace)
            return
        frame, line = own[-1]
        words = "".join(traceback.format_exception_only(error)).strip()
        hint = ""
        if isinstance(error, SftrayError):
            words, hint = error.message, error.hint and f"\nhint: {error.hint}"
        place = f"{frame.f_code.co_filename}, line {line}"
        put(redact(f"error: {place}: {words}{hint}"), sys.stderr)
        raise SystemExit(2)

    sys.excepthook = hook


def _is_of_the_file(frame: FrameType) -> bool:
    """Whether a frame is of the file that was started; code of `python -c` is in no file, and has
    no line that could be shown."""
    return (
        frame.f_globals.get("__name__") == "__main__" and Path(frame.f_code.co_filename).is_file()
    )


def hook_without_secrets(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A traceback as Python prints it, but for the secrets that libraries put into messages."""
    put(redact("".join(traceback.format_exception(kind, error, trace)).rstrip()), sys.stderr)


def wrapped(text: str) -> str:
    """Lines of at most 110 columns; what follows a break is indented by four more."""
    lines: list[str] = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())] + "    "
        lines += [line] if len(line) <= WIDTH else _WRAPPED(line, WIDTH, subsequent_indent=indent)
    return "\n".join(lines)


def say(text: str, *, coloured: bool = False) -> None:
    """Print; coloured text has all that others wrote in it made visible."""
    put(text, coloured=coloured)


def agreed(question: str) -> bool:
    """Ask; whether the answer is yes."""
    return input(visible(f"{question} [y/N] ")).lower() in ("y", "yes")


def asked(prompt: str) -> str | None:
    """A line of the user's; None where there are no more."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # the arrow keys of `input`
    try:
        return input(visible(prompt))
    except EOFError:
        return None


def quiet_libraries() -> None:
    """Loading bars and notes to developers are not for who wants an answer."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
