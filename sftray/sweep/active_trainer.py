"""The trainer that runs a sweep's trials, and the one that takes its place."""

from __future__ import annotations

from dataclasses import replace

from sftray.cluster.connect import Cluster
from sftray.config import SweepConfig
from sftray.errors import ConfigError, Log
from sftray.plan.trainer_choice import without_bank
from sftray.plan.trial_plan import planner
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.storage.journal.event_types import UNFIT_TRAINER
from sftray.storage.model_files import BaseConfig
from sftray.trainers.ray_train.local_runner import LocalRunner
from sftray.trainers.runner import FittedTrainer, Runner, TrialSpecs


def refitted(specs: TrialSpecs, rows: int, trials: FittedTrainer) -> TrialSpecs:
    """The trials as another trainer runs them. rows: of the packs."""
    return replace(specs, plan=planner(specs.sweep, rows, execution=trials.fit.execution))


class ActiveTrainer:
    """The trainer of a sweep, from its start on; another takes its place where it has to."""

    def __init__(
        self,
        choice: tuple[str, str],
        sweep: SweepConfig,
        base: BaseConfig,
        cluster: Cluster,
        local: bool,
        log: Log,
    ) -> None:
        """`choice`: which, and why. A bank begins to load its base."""
        self._base, self._cluster, self._local, self._log = base, cluster, local, log
        self._trainer, self._why = choice
        self.runner = self._started(sweep)

    def __str__(self) -> str:
        return "in this process" if self._local else f"{self._trainer} ({self._why})"

    def fit(self, sweep: SweepConfig) -> FittedTrainer:
        """What runs its trials; by `train` where no bank fits. Raises ConfigError."""
        fitted = self.runner.fit(sweep, self._base)
        return fitted or self._replaced(*without_bank(sweep), sweep)

    def change_to(self, trainer: str | None, sweep: SweepConfig) -> FittedTrainer | None:
        """Put another trainer to work, if that is another. Raises ConfigError where it cannot."""
        if self._local or trainer is None or trainer == self._trainer:
            return None
        return self._replaced(trainer, "asked for", sweep)

    def run(
        self,
        trials: FittedTrainer,
        specs: TrialSpecs,
        rows: int,
        search: Search,
        recorder: Recorder,
    ) -> None:
        """Run trials until the search has no more; by `train` where a bank turns out not to compute
        the base, unless only a bank may. rows: of the packs."""
        trials.run(specs, search, recorder)
        halt = search.halted
        only = specs.sweep.trainer == "bank" or specs.sweep.trial.base_precision == "fp8"
        if halt is None or halt[0] != UNFIT_TRAINER or only:
            return
        self._log(f"trainer: train instead of the bank: {halt[1]}")
        search.continue_elsewhere()
        other = self._replaced("train", halt[1], specs.sweep)
        self.run(other, refitted(specs, rows, other), rows, search, recorder)

    def gpus(self) -> float:
        """How many of those that the sweep asked for are up."""
        return min(self.runner.gpus, self._cluster.gpus_up()) if self.runner.gpus else 0.0

    def _replaced(self, trainer: str, why: str, sweep: SweepConfig) -> FittedTrainer:
        self.runner.close()
        self._trainer, self._why = trainer, why
        self.runner = self._started(sweep)
        if fitted := self.runner.fit(sweep, self._base):
            return fitted
        raise ConfigError("confirm_trainer: got 'bank', but none fits the memory", "take 'train'")

    def _started(self, sweep: SweepConfig) -> Runner:
        if self._local:
            return LocalRunner(self._cluster, sweep)
        if self._trainer == "train":
            from sftray.trainers.ray_train.train_runner import TrainRunner

            return TrainRunner(self._cluster, sweep)
        from sftray.trainers.bank.bank_runner import BankRunner

        return BankRunner(self._cluster, sweep, self._log)
