"""A sweep as frozen, checked dataclasses. Promise: the standard library only."""

from sftray.config.data_config import DataConfig
from sftray.config.spaces import Space, choice, fitting, loguniform, randint, uniform
from sftray.config.sweep_config import SweepConfig
from sftray.config.trial_config import TrialConfig

__all__ = [
    "DataConfig",
    "Space",
    "SweepConfig",
    "TrialConfig",
    "choice",
    "fitting",
    "loguniform",
    "randint",
    "uniform",
]
