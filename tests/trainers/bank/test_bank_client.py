"""A bank's client whose driver was suspended, with Ray and a bank that trains nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import ray

from sftray.config import TrialConfig
from sftray.errors import BankError
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.bank.bank_client import BankClient
from sftray.trainers.bank.leases import LEASE_SECONDS, LapsedError
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

TRIAL = TrialConfig("none", effective_batch_size=4)
PLAN = plan_trial(TRIAL, 100, ladder=(), evals_per_trial=2, execution=ONE_ROW)
SPEC = TrialSpec("t0000", TRIAL, PLAN, "packs", "t0000")


class LapsingBank:
    """Gives a lease up after each report."""

    def __init__(self) -> None:
        self._leases = 0
        self._reports = 0

    def leases(self) -> int:
        return self._leases

    def attach(self, spec: TrialSpec, opening: Any) -> int:
        self._leases = 1
        return 1

    def next_report(self, trial: str) -> Report:
        if not self._leases:
            raise LapsedError(f"{trial}: its lease was given up")
        self._leases, self._reports = 0, self._reports + 1
        return Report({"step": self._reports})  # type: ignore[typeddict-item]

    def drop(self, trial: str) -> None:
        self._leases = 0


def test_a_trial_whose_driver_was_suspended_continues_and_no_failure_is_counted() -> None:
    now = 0.0
    bank = ray.remote(LapsingBank).options(num_cpus=0).remote()
    client = BankClient.__new__(BankClient)
    config: Any = {"trial": "t0000", "point": {}, "base_eval_loss": None}
    begin = partial(client.setup, config, banks=[bank], to_spec=lambda config: SPEC)
    begin(opening=None, clock=lambda: now)  # type: ignore[arg-type]
    for step in (1, 2, 3):
        assert client.step()["step"] == step
        now += LEASE_SECONDS + 60  # Tune asks for nothing
        assert client.step() == {
            "interrupted": "suspended",
            "message": "its driver was suspended for 7 min",
        }
    client.step()
    with pytest.raises(BankError, match="its lease was given up"):
        client.step()  # of a bank that is a new one: that is a failure
    ray.kill(bank)
