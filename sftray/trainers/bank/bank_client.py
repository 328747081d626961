"""A trial of a bank as Ray Tune sees it: a lease on a slot, and the reports that come of it.

Promise: without torch, so its process starts at once and serves one trial after another
(`reuse_actors`). Tune asks for the next step only when the search lets the trial continue, and the
client says so to the bank, where the trial waits at a rung. A bank whose machine was taken back is
no failure: the trial continues in another one, or in the same when Ray has started it elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import ray
from ray.exceptions import ActorDiedError, RayActorError
from ray.tune import Trainable

from sftray.cluster.awake_clock import AwakeClock
from sftray.errors import BankError
from sftray.storage.journal.event_types import SUSPENDED
from sftray.trainers.bank.bank_process import Opening
from sftray.trainers.bank.leases import LEASE_SECONDS, LapsedError
from sftray.trainers.report_channel import next_report, tune_step
from sftray.trainers.runner import ToSpec, TuneConfig
from sftray.trial.trial_report import Report

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

RESTART_SECONDS = 900.0
"""How long to wait for a bank that is started again."""
PREEMPTED_SECONDS = 4 * 3600.0
"""How long to wait where the machines were taken back, until the cloud has others."""
RETRY_SECONDS = 2.0


class BankClient(Trainable):  # type: ignore[misc]  # Ray is untyped
    """The trial of a Tune config, in the emptiest of `banks`."""

    _last: Report
    """Its newest report."""

    def setup(
        self,
        config: TuneConfig,
        *,
        banks: Sequence[ActorHandle],
        to_spec: ToSpec,
        opening: Opening,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._awake = clock, AwakeClock.started()
        self._asked = clock()
        """When the driver has asked for a report, or got one, last."""
        self._banks, self._to_spec, self._opening = banks, to_spec, opening
        self._roll = RollCall(banks)
        self._begin(config)

    def step(self) -> Mapping[str, object]:
        silent = self._clock() - self._asked
        self._last, values = tune_step(self._last, lambda: self._following(silent))
        self._asked = self._clock()
        return values

    def reset_config(self, new_config: TuneConfig) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        if self._bank is not None:
            self._bank.drop.remote(self._spec.trial)

    def _begin(self, config: TuneConfig) -> None:
        self._spec = self._to_spec(config)
        self._last = Report()
        self._taken_back = False
        """Its bank's machine is about to go, or has gone."""
        self._bank = self._free_bank()
        """None where it has to look for one."""

    def _following(self, silent: float) -> Report:
        """The trial's next report, for a driver that has asked for none for so many seconds: longer
        than a lease lasts, it was suspended. Where no machine comes in the place of one that was
        taken back, the trial has ended. Raises BankError where the bank died."""
        if self._bank is None:
            self._bank = self._free_bank()
        if self._bank is None:
            message = f"bank: none answered for {PREEMPTED_SECONDS / 60:.0f} min"
            message = f"its machine was taken back; {message}"
            return Report(outcome="preempted", message=message)
        report = self._last
        try:
            while (report := next_report(self._bank, self._spec.trial, report)).taken_back:
                self._taken_back = True
        except LapsedError:
            if silent < LEASE_SECONDS:
                raise
            self._bank = None
            message = f"its driver was suspended for {silent / 60:.0f} min"
            return Report(interrupted=SUSPENDED, message=message)
        except RayActorError as error:
            self._taken_back = self._taken_back or error.preempted
            if not self._taken_back:
                raise BankError("bank: its process died") from error
            self._bank = None
            return Report(interrupted="preempted", message="bank: its machine was taken back")
        return report

    def _free_bank(self) -> ActorHandle | None:
        """A bank with a place for the trial; None where no machine comes in the place of one that
        was taken back. Raises BankError where a bank that died does not come back."""
        preempted, self._taken_back = self._taken_back, False
        patience = PREEMPTED_SECONDS if preempted else RESTART_SECONDS
        deadline = self._awake() + patience
        while self._awake() < deadline:
            # where several clients ask at once, all see the same bank as the emptiest
            for bank in self._by_leases():
                try:
                    if ray.get(bank.attach.remote(self._spec, self._opening)):
                        return bank
                except (RayActorError, BankError):
                    continue  # it is being started again
            time.sleep(RETRY_SECONDS)
        if preempted:
            return None
        raise BankError(f"bank: none answered for {patience / 60:.0f} min")

    def _by_leases(self) -> list[ActorHandle]:
        """The banks that answer, the emptiest first. One that waits for a machine does not."""
        leases = self._roll.leases(RETRY_SECONDS)
        if self._roll.all_dead:
            raise BankError("bank: its process died too often to be started again")
        return [self._banks[number] for number in sorted(leases, key=leases.__getitem__)]


class RollCall:
    """Which of a sweep's banks answer: a cloud may not have given, or may have taken back, the
    machines of some. One that waits for a machine is not asked twice."""

    def __init__(self, banks: Sequence[ActorHandle]) -> None:
        self._banks = banks
        self._asked: dict[int, ObjectRef[int]] = {}
        """By bank: the question that it has not answered yet."""
        self._dead = 0
        """How often in a row all of them have been dead."""

    @property
    def all_dead(self) -> bool:
        """Whether all are gone for good: of one roll call alone, the questions may have been lost
        with the processes that they were put to."""
        return self._dead > 1

    def leases(self, timeout: float) -> dict[int, int]:
        """The leases of each bank that answers in time, in seconds, by its place."""
        for number, bank in enumerate(self._banks):
            if number not in self._asked:
                self._asked[number] = bank.leases.remote()
        waiting = list(self._asked.values())
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=timeout)
        leases: dict[int, int] = {}
        dead = 0
        for number, asked in list(self._asked.items()):
            if asked in ready:
                del self._asked[number]
                try:
                    leases[number] = ray.get(asked)
                except ActorDiedError:
                    dead += 1
                except RayActorError:
                    continue  # it is being started again
        self._dead = self._dead + 1 if dead == len(self._banks) else 0
        return leases
