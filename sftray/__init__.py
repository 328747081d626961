"""sftray: hyper-parameter sweeps for QLoRA supervised fine-tuning on Ray."""

from sftray.cli.main import launch
from sftray.config import SweepConfig, choice, fitting, loguniform, randint, uniform
from sftray.config.sweep_config import DataConfig, TrialConfig

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
