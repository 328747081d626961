"""Reports of trials, as Tune gets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sftray.trial.trial_report import Report


def into(reports: list[dict[str, Any]]) -> Callable[[Report], None]:
    """A trial's `report` that appends to a list."""
    return lambda report: reports.append(report.values())
