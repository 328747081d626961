"""Which events of a journal are refused, though they are JSON: a journal may be damaged, or made by
somebody else.

Promise: of every event that passes, each field that event_types.py knows holds what it says there,
a trial's name leads to no folder but its own, and a number fits a float. Fields and events that are
not known, as of a later version, pass. Price: 4 µs an event.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from sftray.storage.journal.event_types import CONTINUE, STOP, EventName

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Kind = tuple[Callable[[object], bool], str]
"""Whether a value is one, and what it must be."""


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**1023)


def _is_finite(value: object) -> bool:
    return _is_number(value) and math.isfinite(value)  # type: ignore[arg-type]


def _are_lists(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, list) for one in value)


def _are_flags(value: object) -> bool:
    return _are_lists(value) and all(isinstance(flag, str) for one in value for flag in one)  # type: ignore[attr-defined]


def _are_losses(value: object) -> bool:
    return _are_lists(value) and all(
        len(one) == 3 and isinstance(one[0], str) and _is_number(one[1]) and _is_count(one[2])
        for one in value  # type: ignore[attr-defined]
    )


NAME: Kind = (
    _is_name,
    "at most 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
)
COUNT: Kind = (_is_count, "a whole number from 0 to 2^63")
NUMBER: Kind = (_is_number, "a number")
FINITE: Kind = (_is_finite, "a finite number")
TEXT: Kind = (lambda value: isinstance(value, str), "text")
OBJECT: Kind = (lambda value: isinstance(value, Mapping), "an object")
POINTS: Kind = (_are_lists, "lists of numbers")
FLAGS: Kind = (_are_flags, "lists of words")
LOSSES: Kind = (_are_losses, "lists of a name, a loss and a count")
OBJECTS: Kind = (
    lambda value: isinstance(value, list) and all(isinstance(one, dict) for one in value),
    "a list of objects",
)
SEEDS: Kind = (lambda value: isinstance(value, list) and all(map(_is_count, value)), "seeds")
DECISION: Kind = (lambda value: value in (CONTINUE, STOP), f"{CONTINUE} or {STOP}")

EVENT: Mapping[str, Kind] = {
    "trial": NAME, "confirms": NAME, "step": COUNT, "attempt": COUNT, "rung": COUNT,
    "time": FINITE, "wall_seconds": FINITE, "gpu_seconds": FINITE, "cutoff": NUMBER,
    "metric": NUMBER, "outcome": TEXT, "message": TEXT, "class": TEXT, "bracket": TEXT,
    "budget": TEXT, "folder": TEXT, "uid": TEXT, "owner": TEXT, "lease": TEXT, "point": OBJECT,
    "metrics": OBJECT, "decision": DECISION, "seeds": SEEDS, "answer_flags": FLAGS,
    "last_curve": POINTS, "first": OBJECTS,
}  # fmt: skip
REQUIRED: Mapping[str, Sequence[str]] = {
    EventName.TRIAL_SUGGESTED: ("trial", "point"),
    EventName.CONFIRMATION: ("trial", "seeds"),
    EventName.ATTEMPT_STARTED: ("trial", "attempt"),
    EventName.ATTEMPT_ENDED: ("trial", "attempt", "class", "message"),
    EventName.RESULT: ("trial", "step", "metrics"),
    EventName.DECISION: ("trial", "step", "rung", "decision", "bracket"),
    EventName.TRIAL_ENDED: ("trial", "outcome", "message"),
    EventName.SPENT: ("wall_seconds", "gpu_seconds", "budget"),
}
METRICS: Mapping[str, Kind] = {
    "step": COUNT, "rows": COUNT, "tokens": COUNT, "supervised_tokens": COUNT, "bank_slots": COUNT,
    "eval_loss": NUMBER, "metric": NUMBER, "train_loss": NUMBER, "grad_norm": NUMBER,
    "learning_rate": NUMBER, "epoch": NUMBER, "seconds": FINITE, "gpu_seconds": FINITE,
    "energy_wh": FINITE,
    "tokens_per_second": NUMBER, "gpu_memory_gb": NUMBER, "data_wait": NUMBER, "device": TEXT,
    "attention": TEXT, "curve": POINTS, "answer_flags": FLAGS, "eval_loss_by_kind": LOSSES,
    "eval_loss_by_source": LOSSES,
}  # fmt: skip


def refusal(event: Mapping[str, object]) -> str:
    """What is wrong with an event, as name, got and must; nothing where it passes. A field that is
    null is one that is not there."""
    name = str(event["event"])
    required = REQUIRED.get(name, ())
    for field in required:
        if event.get(field) is None:
            return f"{name}: got no {field!r}, must have {', '.join(required)}"
    if wrong := _wrong(event, EVENT):
        return wrong
    metrics = event.get("metrics")
    return _wrong(metrics, METRICS) if isinstance(metrics, Mapping) else ""


def _wrong(values: Mapping[str, object], kinds: Mapping[str, Kind]) -> str:
    for name, value in values.items():
        if value is not None and name in kinds:
            holds, must = kinds[name]
            if not holds(value):
                return f"{name}: got {value!r:.80}, must be {must}"
    return ""
