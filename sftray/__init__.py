"""sftray: hyper-parameter sweeps for QLoRA supervised fine-tuning on Ray."""

from sftray.cli import launch
from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.spaces import choice, fitting, loguniform, randint, uniform

__all__ = [
    "DataConfig",
    "SweepConfig",
    "TrialConfig",
    "choice",
    "fitting",
    "launch",
    "loguniform",
    "randint",
    "uniform",
]
