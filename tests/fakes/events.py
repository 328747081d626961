"""Events compared without their times."""

from __future__ import annotations

from sftray.storage.journal import Event


def timeless(events: list[Event], told: tuple[str, ...]) -> list[Event]:
    return [{**one, "time": None} for one in events if one["event"] in told]
