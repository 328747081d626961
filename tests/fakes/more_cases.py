"""Cases of a test of which `make test` runs the first, and `make test-all` the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def shortened(cases: Iterable[Any], quick: int = 1) -> list[Any]:
    """The cases, all but the first `quick` of them marked `exhaustive`."""
    return [
        case if number < quick else pytest.param(case, marks=pytest.mark.exhaustive)
        for number, case in enumerate(cases)
    ]
