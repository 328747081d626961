"""Text on its way to a terminal, a log or a page: control characters are shown, not sent.

Promise: in what `visible` returns no character moves a cursor, writes a clipboard, hides or turns
round what stands beside it; line ends and tabs are left. Every line that sftray prints or logs goes
through `put` or `log_handler` (tests/house/test_terminal.py). Price: 0.1 ms for 10,000 characters.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TextIO

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # ESC, which begins colours and clipboard writes, \r, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # right to left
    "\u2028\u2029\ud800-\udfff]"  # line ends for some, and halves of characters
)
_COLOUR = re.compile(r"(\x1b\[(?:[0-9;]*m|\?25h))")
"""And what shows the cursor again."""
_INDENT = " " * 10
"""As wide as the time before a line of a sweep's log."""


def visible(text: str) -> str:
    """The text with its control characters as Python writes them: `\\x1b`, `\\u202e`."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def log_line(text: str) -> str:
    """A line of a log: what follows a line end within is indented, so that it begins no other."""
    return visible(text).replace("\n", f"\n{_INDENT}")


def put(text: str, stream: TextIO | None = None, *, coloured: bool = False) -> None:
    """Write a line to standard output, or to another stream.

    coloured: colours are sent; the caller has made all text of others in it `visible`.
    """
    to = sys.stdout if stream is None else stream
    pieces = _COLOUR.split(text) if coloured else [text]  # every other one is a colour
    shown = "".join(one if at % 2 else visible(one) for at, one in enumerate(pieces))
    encoding = to.encoding or "utf-8"
    to.write(f"{shown}\n".encode(encoding, "backslashreplace").decode(encoding))
    to.flush()


def log_handler() -> logging.Handler:
    """What Python's logging is given in a process of its own: lines with their time, through
    `put`."""
    handler = _Lines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    return handler


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        put(log_line(self.format(record)), sys.stderr)
