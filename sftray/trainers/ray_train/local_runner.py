"""`--local`: one trial at a time in this process, where a debugger works."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from sftray.cluster.connect import Cluster
from sftray.config import SweepConfig
from sftray.plan.device_fit import fit_train
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.storage.journal.event_types import STOP
from sftray.storage.model_files import BaseConfig
from sftray.trainers.runner import FittedTrainer, TrialSpecs, submit_task
from sftray.trial.progress import StoppedError
from sftray.trial.trial_report import Report

if TYPE_CHECKING:
    from ray import ObjectRef


class LocalRunner:
    """Trials one after another in this process, by SFTTrainer: an exception stops the sweep with
    its traceback, and a debugger works."""

    def __init__(self, cluster: Cluster, sweep: SweepConfig) -> None:
        self._use_gpu = cluster.use_gpu(sweep)
        self._memory = cluster.gpu_memory(sweep)
        self.gpus = int(self._use_gpu)

    def fit(self, sweep: SweepConfig, base: BaseConfig) -> FittedTrainer:
        return FittedTrainer(fit_train(sweep, base, self._memory), self._run)

    def _run(self, specs: TrialSpecs, search: Search, recorder: Recorder) -> None:
        import torch

        from sftray.trainers.ray_train.attempts import run_trial
        from sftray.trainers.ray_train.base_cache import Bases

        device, bases = torch.device("cuda", 0) if self._use_gpu else torch.device("cpu"), Bases()
        waiting = search.unfinished()

        def stepped() -> bool:
            recorder.stepped()
            return False

        while not search.stopped:
            suggestion = waiting.pop(0) if waiting else search.suggest()
            if suggestion is None:
                return
            search.attempt(suggestion.trial)
            report = functools.partial(_report_locally, search, recorder, suggestion.trial)
            spec = specs.of(
                {
                    "trial": suggestion.trial,
                    "point": suggestion.point,
                    "judged": suggestion.judged,
                    "base_eval_loss": search.base_eval_loss(),
                }
            )
            with contextlib.suppress(StoppedError):
                run_trial(spec, report, device, bases, stepped)
            if search.outcome_of(suggestion.trial) is None and not search.stopped:
                search.returned(suggestion.trial)
            recorder.finish_trials()

    def submit(self, function: Callable[..., object], *arguments: object) -> ObjectRef:
        return submit_task(function, *arguments, use_gpu=self._use_gpu)

    def close(self) -> None:
        """Nothing was taken."""


def _report_locally(search: Search, recorder: Recorder, trial: str, report: Report) -> None:
    decision = search.record(trial, report.measured(), report.outcome, report.message)
    recorder.result(trial, report.values())
    if decision == STOP and report.outcome is None:
        raise StoppedError
