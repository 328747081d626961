"""Leases: which client holds which trial, and who has fallen silent."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftray.storage.outages import PATIENCE_SECONDS
from sftray.trial.trial_spec import TrialSpec

if TYPE_CHECKING:
    from sftray.trainers.bank.slot import Slot

LEASE_SECONDS = PATIENCE_SECONDS + 60
"""A client that is alive asks far more often, but where the driver waits for storage."""
POLL_SECONDS = 5.0
"""A client's question waits so long for an answer."""


@dataclass
class Lease:
    spec: TrialSpec
    seen: float
    """When its client last asked."""
    reports: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)
    slot: Slot | None = None
    told: int = -1
    """The step of the last report that the client has got."""
