"""Leases without a bank: who is silent, and who was only asleep."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import pytest

from sftray.cluster.awake_clock import AwakeClock
from sftray.config import TrialConfig
from sftray.errors import BankError
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.bank.leases import LEASE_SECONDS, LapsedError, Leases
from sftray.trainers.report_channel import ReportChannel, SignsOfLife
from sftray.trial.trial_spec import TrialSpec

TRIAL = TrialConfig("none", effective_batch_size=4)
PLAN = plan_trial(TRIAL, 100, ladder=(), evals_per_trial=2, execution=ONE_ROW)
SPEC = TrialSpec("t0000", TRIAL, PLAN, "packs", "t0000")


def leases_by(clock: Callable[[], float]) -> Leases:
    life = SignsOfLife(60.0, clock)
    return Leases(
        clock=clock,
        channel=lambda: ReportChannel(life, lambda silent: BankError("hangs"), 0.0),
        prepare=lambda lease: Future(),
        go_on=lambda slot: None,
        free=lambda slot: None,
    )


def test_a_client_that_asks_for_nothing_loses_its_lease() -> None:
    now = 0.0
    leases = leases_by(AwakeClock(lambda: now))
    assert leases.attach(SPEC) == 1
    for _ in range(int(LEASE_SECONDS / 20) + 1):
        now += 20
        leases.give_up_silent()
    with pytest.raises(LapsedError, match="t0000: its lease was given up"):
        leases.next_report("t0000")


def test_a_bank_that_was_suspended_with_its_clients_keeps_their_leases() -> None:
    now = 0.0
    leases = leases_by(AwakeClock(lambda: now))
    assert leases.attach(SPEC) == 1
    now += 3600
    leases.give_up_silent()
    assert leases.next_report("t0000") is None
