"""What a report leads to: a decision at a rung, or an end."""

from __future__ import annotations

from sftray.search.search_trials import OUTCOMES
from sftray.storage.journal.journal import Event


def end_event(trial: str, outcome: str, message: str) -> Event:
    if outcome not in OUTCOMES:
        raise ValueError(f"outcome: got {outcome!r}, must be one of {', '.join(OUTCOMES)}")
    return {"event": "trial_ended", "trial": trial, "outcome": outcome, "message": message}
