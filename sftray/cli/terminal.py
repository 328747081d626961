"""What every command prints with: lines, errors without tracebacks, messages without secrets."""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections.abc import Callable
from functools import partial
from types import TracebackType

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
        put("\ninterrupted; the same command continues from here", sys.stderr)
        return 130


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


def quiet_libraries() -> None:
    """Loading bars and notes to developers are not for who wants an answer."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
