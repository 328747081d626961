"""A sweep as frozen, checked dataclasses. Promise: the standard library only."""

from sftray.config.data_config import DataConfig
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
from sftray.config.sweep_config import SweepConfig
from sftray.config.trial_config import TrialConfig

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
