"""The energy that a GPU has taken, by its own counter.

Promise: watt-hours as NVML counts them: of the whole board, by whomever it is used; nothing is
estimated. None where the counter (Volta and newer) or the package nvidia-ml-py is missing. Price: a
call of NVML, at most ten a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

MILLIJOULES = 3_600_000
"""Of a watt-hour."""
SECONDS = 0.1
"""The counter moves ten to fifty times a second."""


class GpuEnergy:
    """Watt-hours of one GPU since they were last taken."""

    def __init__(self, device: torch.device) -> None:
        self._counter = counter_of(device)
        self._known = 0 if self._counter is None else self._counter()
        self._looked = time.monotonic()

    def taken(self) -> float | None:
        """Since the last call, 0 where that is less than SECONDS ago; None where nothing counts."""
        if self._counter is None:
            return None
        if time.monotonic() - self._looked < SECONDS:
            return 0.0
        before, self._known = self._known, self._counter()
        self._looked = time.monotonic()
        return (self._known - before) / MILLIJOULES


def counter_of(device: torch.device) -> Callable[[], int] | None:
    """What reads a GPU's millijoules since its driver was loaded."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        counter = partial(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        counter()
    except pynvml.NVMLError:
        return None
    return counter
