"""Events of any kind, and events compared without their times."""

from __future__ import annotations

from typing import Any, cast

from sftray.storage.journal import Event


def an_event(name: str, trial: str | None = None, /, **fields: Any) -> Event:
    return cast(Event, {"event": name, "trial": trial, **fields})


def timeless(events: list[Event], told: tuple[str, ...]) -> list[Event]:
    return [{**one, "time": None} for one in events if one["event"] in told]
