"""How steps are timed, and what is kept of it.

Promise: on a GPU the times are between CUDA events behind every step, so that timing makes neither
side wait; on a CPU they are the wall clock's.
"""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
import transformers

from sftray.trial import gpu_memory

WARM_UP = 3
"""Steps before the first that counts."""


class Clock:
    """Times between ticks."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ticks: list[Any] = []

    def tick(self) -> None:
        """Mark the end of a step."""
        if self._device.type != "cuda":
            self._ticks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._ticks.append(event)

    def seconds(self) -> list[float]:
        """Of every step but the first."""
        if self._device.type != "cuda":
            return [after - before for before, after in pairwise(self._ticks)]
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(self._ticks)]


@dataclass(frozen=True)
class Speed:
    """One way to train, measured."""

    name: str
    rows: int
    """Packed rows a step."""
    length: int
    """Positions a row."""
    steps: int
    """Steps timed."""
    seconds: float
    """A step's, the median."""
    fastest: float
    slowest: float
    supervised_tokens: float
    """A step's, the mean."""
    peak_gib: float
    """Of GPU memory while training; 0 on a CPU."""

    @property
    def positions_per_second(self) -> float:
        return self.rows * self.length / self.seconds

    @property
    def supervised_per_second(self) -> float:
        return self.supervised_tokens / self.seconds

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "positions_per_second": self.positions_per_second,
            "supervised_per_second": self.supervised_per_second,
        }


def speed(
    name: str, clock: Clock, *, rows: int, length: int, supervised: int, peak_gib: float
) -> Speed:
    """The speed of a side whose clock ticked once a step, WARM_UP steps and those that count;
    `supervised` are the tokens trained on in all of them."""
    seconds = clock.seconds()[WARM_UP - 1 :]
    return Speed(
        name=name,
        rows=rows,
        length=length,
        steps=len(seconds),
        seconds=statistics.median(seconds),
        fastest=min(seconds),
        slowest=max(seconds),
        supervised_tokens=supervised / (WARM_UP + len(seconds)),
        peak_gib=peak_gib,
    )


def free_memory() -> None:
    """Give back what the last side has held, and measure the peak anew."""
    gpu_memory.free_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def quiet() -> None:
    """The libraries' bars and advice are not the result."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("bitsandbytes", "accelerate", "trl"):
        logging.getLogger(name).setLevel(logging.ERROR)


def device_name(device: torch.device) -> str:
    """The GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
