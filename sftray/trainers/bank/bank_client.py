"""A trial of a bank as Ray Tune sees it: a lease on a slot, and the reports that come of it.

Promise: without torch, so its process starts at once and serves one trial after another
(`reuse_actors`). Tune asks for the next step only when the search lets the trial go on, and that is
what the bank waits for at a rung. A bank whose machine was taken back is no failure: the trial goes
on in another one, or in the same when Ray has started it elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.tune import Trainable

from sftray.errors import BankError
from sftray.search.search_trials import Suggestion
from sftray.trainers.bank.roll_call import RollCall
from sftray.trial.trial_spec import TrialSpec

RESTART_SECONDS = 900.0
"""How long to wait for a bank that is started again."""
PREEMPTED_SECONDS = 4 * 3600.0
"""How long to wait where the machines were taken back, until the cloud has others."""
RETRY_SECONDS = 2.0


class BankClient(Trainable):  # type: ignore[misc]  # Ray is untyped
    """The trial {"trial", "point"} of a Tune config, in the emptiest of `banks`."""

    _bank: Any
    """None where it has to look for one."""
    _spec: TrialSpec
    _last: dict[str, Any]
    """Its newest report."""
    _taken_back: bool
    """Its bank's machine is about to go, or has gone."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        banks: Sequence[Any],
        to_spec: Callable[[Suggestion], TrialSpec],
        opening: Mapping[str, Any],
    ) -> None:
        self._banks, self._to_spec, self._opening = banks, to_spec, opening
        self._roll = RollCall(banks)
        self._dead = 0
        """How often in a row all banks have been dead."""
        self._begin(config)

    def step(self) -> dict[str, Any]:
        if "outcome" in self._last:  # told before; now Tune may end the trial
            return {**self._last, "done": True}
        if self._bank is None:
            self._enter()
        if self._bank is None:
            return dict(self._last)
        metrics = None
        try:
            while metrics is None:
                metrics = ray.get(self._bank.next_report.remote(self._spec.trial))
                if metrics is not None and metrics.pop("taken_back", False):
                    self._taken_back, metrics = True, None
        except RayActorError as error:
            self._taken_back = self._taken_back or error.preempted
            if not self._taken_back:
                raise BankError("bank: its process died") from error
            self._bank = None
            metrics = {"interrupted": "preempted", "message": "bank: its machine was taken back"}
        self._last = metrics
        return dict(metrics)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        if self._bank is not None:
            self._bank.drop.remote(self._spec.trial)

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._spec = self._to_spec(Suggestion(config["trial"], config["point"]))
        self._last, self._taken_back = {}, False
        self._enter()

    def _enter(self) -> None:
        """Take a place in a bank. Where no machine comes in the place of one that was taken back,
        the trial has ended. Raises BankError where a bank that died does not come back."""
        self._bank = None
        preempted = self._taken_back
        patience = PREEMPTED_SECONDS if preempted else RESTART_SECONDS
        deadline = time.monotonic() + patience
        spec, self._taken_back = self._spec.to_json(), False
        while time.monotonic() < deadline:
            # where several clients ask at once, all see the same bank as the emptiest
            for bank in self._by_leases():
                try:
                    if ray.get(bank.attach.remote(spec, self._opening)):
                        self._bank = bank
                        return
                except (RayActorError, BankError):
                    continue  # it is being started again
            time.sleep(RETRY_SECONDS)
        message = f"bank: none was there for {patience / 60:.0f} min"
        if not preempted:
            raise BankError(message)
        self._last = {"outcome": "preempted", "message": f"its machine was taken back; {message}"}

    def _by_leases(self) -> list[Any]:
        """The banks that answer, the emptiest first. One that waits for a machine does not."""
        leases = self._roll.leases(RETRY_SECONDS)
        # once, the questions may have been lost with the processes that they were put to
        self._dead = self._dead + 1 if self._roll.dead == len(self._banks) else 0
        if self._dead > 1:
            raise BankError("bank: its process died too often to be started again")
        return [self._banks[number] for number in sorted(leases, key=leases.__getitem__)]
