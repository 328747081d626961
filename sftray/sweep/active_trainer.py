"""The trainer that runs a sweep's trials, and the one that takes its place."""

from __future__ import annotations

from sftray.cluster.connect import Cluster
from sftray.config import SweepConfig
from sftray.errors import ConfigError, Log
from sftray.plan.trainer_choice import without_bank
from sftray.storage.model_files import BaseConfig
from sftray.trainers.ray_train.local_runner import LocalRunner
from sftray.trainers.runner import FittedTrainer, Runner


class ActiveTrainer:
    """The trainer at work for a sweep; another takes its place where it has to."""

    runner: Runner

    def __init__(self, base: BaseConfig, cluster: Cluster, local: bool, log: Log) -> None:
        self._base, self._cluster, self._local, self._log = base, cluster, local, log
        self._trainer = self.told = ""
        """told: which it is, and why."""

    def start(self, trainer: str, why: str, sweep: SweepConfig) -> None:
        """A bank begins to load its base."""
        self._trainer = trainer
        self.told = "in this process" if self._local else f"{trainer} ({why})"
        if self._local:
            self.runner = LocalRunner(self._cluster, sweep)
        elif trainer == "train":
            from sftray.trainers.ray_train.train_runner import TrainRunner

            self.runner = TrainRunner(self._cluster, sweep)
        else:
            from sftray.trainers.bank.bank_runner import BankRunner

            self.runner = BankRunner(self._cluster, sweep, self._log)

    def fit(self, sweep: SweepConfig) -> FittedTrainer:
        """What runs its trials; by `train` where no bank fits. Raises ConfigError."""
        fitted = self.runner.fit(sweep, self._base)
        if fitted is None:
            fitted = self._replaced(*without_bank(sweep), sweep)
        assert fitted is not None  # `train` has raised
        return fitted

    def change_to(self, trainer: str | None, sweep: SweepConfig) -> FittedTrainer | None:
        """Put another trainer to work, if that is another. Raises ConfigError where it cannot."""
        if self._local or trainer in (None, self._trainer):
            return None
        fitted = self._replaced(trainer, "asked for", sweep)
        if fitted is None:
            raise ConfigError(
                "confirm_trainer: got 'bank', must be 'train': no bank fits the memory"
            )
        return fitted

    def _replaced(self, trainer: str, why: str, sweep: SweepConfig) -> FittedTrainer | None:
        """Another trainer in the place of the one at work; None where it does not fit."""
        self.runner.close()
        self.start(trainer, why, sweep)
        return self.runner.fit(sweep, self._base)

    def gpus(self) -> float:
        """How many of those that the sweep asked for are up."""
        return min(self.runner.gpus, self._cluster.gpus_up()) if self.runner.gpus else 0.0
