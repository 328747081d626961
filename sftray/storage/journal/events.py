"""A journal's events as lines of strict JSON, so that any language reads them.

NaN and the infinities, which JSON lacks, are the strings "NaN", "Infinity" and "-Infinity"; reading
turns these three back into floats.
"""

from __future__ import annotations

import json
import math
import numbers
import sys
from collections.abc import Mapping
from typing import NoReturn, cast

from sftray.errors import JournalError
from sftray.storage.journal.event_checks import refusal
from sftray.storage.journal.event_types import Event

_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(event: Event) -> bytes:
    """The line of an event."""
    line = json.dumps(_plain(event), ensure_ascii=False, allow_nan=False) + "\n"
    return line.encode("utf-8", "replace")  # half a character, as in a file's name, is "?"


def decode(line: bytes) -> Event:
    """The event of a line; ValueError where it is none."""
    event = _LINES.decode(line.decode())
    if b'"NaN"' in line or b'Infinity"' in line:
        event = _restored(event)
    if b"\\ud" in line or b"\\uD" in line:  # half a character, which no table and no terminal takes
        event = json.loads(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"))
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("an object with a name under 'event'")
    event.setdefault("trial", None)
    return cast(Event, event)


def parse(data: bytes, path: str, *, first: int = 1) -> tuple[list[Event], int]:
    """The events of whole lines, and where the last of these ends. first: the first line's number.

    Raises JournalError where a line before the last is no event, or any is one that no sweep has.
    """
    events: list[Event] = []
    end = 0
    *lines, torn = data.split(b"\n")
    for number, line in enumerate(lines, start=first):
        try:
            events.append(decode(line))
        except (ValueError, RecursionError) as error:
            if number == first + len(lines) - 1 and not torn:
                break  # a crash may leave the end of a line on the disk without its beginning
            raise JournalError(
                f"{path}, line {number}: got {line[:80]!r}, must be a JSON event ({error}); "
                "restore the file from a copy, or start the sweep afresh under another name"
            ) from error
        if wrong := refusal(events[-1]):
            raise JournalError(
                f"{path}, line {number}: {wrong}",
                "restore the file from a copy, or start the sweep afresh under another name",
            )
        end += len(line) + 1
    return events, end


def _plain(value: object) -> object:
    """As strict JSON has it; numpy's scalars become Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else ("Infinity" if number > 0 else "-Infinity")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _with_known_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; of a name that each of 200,000 metrics has there is one text, not 200,000."""
    return {sys.intern(name): value for name, value in pairs}


_LINES = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_with_known_names)


def _restored(value: object) -> object:
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return _SPELLED.get(value, value) if isinstance(value, str) else value


def no_longer_ours(path: str, what: str) -> JournalError:
    """The error of a driver whose sweep has gone from under it."""
    return JournalError(
        f"{path} {what}. This driver stops here, and claims no result",
        "if no other driver has taken the sweep over, put the folder back and start it again",
    )
