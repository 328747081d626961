"""sftray: hyper-parameter sweeps for QLoRA supervised fine-tuning on Ray."""

from sftray.cli.launch import launch
from sftray.config import (
    DataConfig,
    SweepConfig,
    TrialConfig,
    choice,
    fitting,
    loguniform,
    randint,
    uniform,
)

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
