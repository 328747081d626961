"""A sweep as frozen, checked dataclasses. Promise: the standard library only."""

from sftray.config.spaces import (
    Choice,
    RandInt,
    Space,
    Uniform,
    choice,
    fitting,
    loguniform,
    randint,
    uniform,
)
from sftray.config.sweep_config import DataConfig, SweepConfig, TrialConfig

__all__ = [
    "Choice",
    "DataConfig",
    "RandInt",
    "Space",
    "SweepConfig",
    "TrialConfig",
    "Uniform",
    "choice",
    "fitting",
    "loguniform",
    "randint",
    "uniform",
]
