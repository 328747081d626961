"""Leases: which client holds which trial, who waits for a slot, and who has fallen silent.

Promise: a trial's reports come in order; a client that has not asked for LEASE_SECONDS loses its
lease, and its slot is freed; trials get slots in the order in which they came.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftray.errors import BankError, PacksError, SftrayError
from sftray.storage.journal.event_types import Outcome
from sftray.storage.outages import PATIENCE_SECONDS
from sftray.trainers.report_channel import ReportChannel, SignsOfLife
from sftray.trial.trial_report import Report, halt_of
from sftray.trial.trial_spec import TrialSpec

if TYPE_CHECKING:
    from sftray.trainers.bank.slot import Slot

LEASE_SECONDS = PATIENCE_SECONDS + 60
"""A client that is alive asks far more often, but where the driver waits for storage."""


class LapsedError(BankError):
    """A trial without a lease: it was given up because nobody asked, or the bank is a new one."""


@dataclass
class Lease:
    spec: TrialSpec
    channel: ReportChannel
    client: SignsOfLife
    slot: Slot | None = None


class Leases:
    """Those of one bank; any thread may call it."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        channel: Callable[[], ReportChannel],
        prepare: Callable[[Lease], Future[Slot]],
        go_on: Callable[[Slot], None],
        free: Callable[[Slot], None],
    ) -> None:
        """`channel` makes a trial's; `prepare` begins to read or make its adapter; `go_on` lets a
        slot train past its rung, and `free` frees it."""
        self._clock, self._channel, self._prepare = clock, channel, prepare
        self._go_on, self._free = go_on, free
        self._lock = threading.Lock()
        self._leases: dict[str, Lease] = {}
        self._waiting: deque[tuple[Lease, Future[Slot]]] = deque()
        self._expected: int | None = None
        """Trials that the bank waits for before its first step; None afterwards."""

    def __len__(self) -> int:
        return len(self._leases)

    def expect(self, trials: int | None) -> None:
        """So many are sure to come, and no others are taken before `begin`."""
        self._expected = trials

    def all_there(self) -> bool:
        return len(self._leases) >= (self._expected or 1)

    def begin(self) -> None:
        """Those suggested first enter first, reach their rungs together and are judged together."""
        with self._lock:
            self._expected = None
            self._waiting = deque(sorted(self._waiting, key=lambda pair: pair[0].spec.trial))

    def attach(self, spec: TrialSpec) -> int:
        """Lease a place to a trial; returns the leases there are, 0 where it is not taken."""
        lease = Lease(spec, self._channel(), SignsOfLife(LEASE_SECONDS, self._clock))
        lease.client.alive()
        self.drop(spec.trial)  # a client that has died may have left it here
        with self._lock:
            if self._expected is not None and len(self._leases) >= self._expected:
                return 0
            self._leases[spec.trial] = lease
            self._waiting.append((lease, self._prepare(lease)))
            return len(self._leases)

    def next_report(self, trial: str) -> Report | None:
        """A trial's next report; None if there is none yet. Raises LapsedError where the lease has
        been given up."""
        lease = self._of(trial)
        report = lease.channel.next_report()
        lease.client.alive()
        return report

    def go_on(self, trial: str) -> None:
        """The search lets a trial continue from the rung whose report its client has got. Raises
        LapsedError where the lease has been given up."""
        lease = self._of(trial)
        if lease.channel.go_on() and lease.slot is not None:
            self._go_on(lease.slot)

    def drop(self, trial: str) -> None:
        """End a trial's lease, if it has one, and free its slot."""
        with self._lock:
            lease = self._leases.pop(trial, None)
        if lease is not None:
            lease.channel.drop()
            if lease.slot is not None:
                self._free(lease.slot)

    def give_up_silent(self) -> None:
        """Free the slots of clients that do not ask any more."""
        with self._lock:
            silent = [name for name, one in self._leases.items() if one.client.silence()]
        for trial in silent:
            logging.warning("bank: %s: its client has not asked for %g s", trial, LEASE_SECONDS)
            self.drop(trial)

    def next_prepared(self, seconds: float) -> Slot | None:
        """The slot of the trial that has waited longest; None where there is none, or its adapter
        is not there after so many seconds. Trials that could not be prepared have ended."""
        while True:
            with self._lock:
                if not self._waiting:
                    return None
                first = self._waiting[0][1]
            wait([first], timeout=seconds)
            with self._lock:
                if not (self._waiting and self._waiting[0][1].done()):
                    return None
                lease, prepared = self._waiting.popleft()
                if self._leases.get(lease.spec.trial) is not lease:
                    continue
                try:  # under the lock, so that whoever drops the lease sees its slot
                    lease.slot = prepared.result()
                    return lease.slot
                except (SftrayError, OSError) as error:
                    lease.channel.put(Report(outcome=_outcome(error), message=str(error)))

    def prepare_again(self, restart: Callable[[], None]) -> None:
        """Every lease waits for a slot again, in the engine that `restart` begins to build."""
        with self._lock:  # who attaches meanwhile must not take the threads that load the base
            restart()
            self._waiting.clear()
            for lease in self._leases.values():
                lease.slot = None
                self._waiting.append((lease, self._prepare(lease)))

    def put(self, report: Report) -> None:
        """The same report to all."""
        with self._lock:
            for lease in self._leases.values():
                lease.channel.put(report)

    def fail(self, error: BankError) -> None:
        """All clients get this error."""
        with self._lock:
            for lease in self._leases.values():
                lease.channel.fail(error)

    def clear(self) -> None:
        with self._lock:
            self._leases.clear()
            self._waiting.clear()

    def _of(self, trial: str) -> Lease:
        lease = self._leases.get(trial)
        if lease is None:
            raise LapsedError(f"{trial}: its lease was given up, because its client stopped asking")
        lease.client.alive()
        return lease


def _outcome(error: Exception) -> str:
    """What becomes of a trial that could not be prepared."""
    if halt := halt_of(error):
        return halt
    return Outcome.DATA_ERROR if isinstance(error, PacksError) else Outcome.FAILED
