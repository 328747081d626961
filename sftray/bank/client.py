"""A trial of a bank as Ray Tune sees it: a lease on a slot, and the reports that come of it.

Promise: without torch, so its process starts at once and serves one trial after another
(`reuse_actors`). Tune asks for the next step only when the search lets the trial go on, and that is
what the bank waits for at a rung.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError
from ray.tune import Trainable

from sftray.errors import BankError
from sftray.search.state import Suggestion
from sftray.trial.spec import TrialSpec

RESTART_SECONDS = 900.0
"""How long to wait for a bank that is started again."""
RETRY_SECONDS = 2.0


class BankClient(Trainable):  # type: ignore[misc]  # Ray is untyped
    """The trial {"trial", "point"} of a Tune config, in the emptiest of `banks`."""

    _bank: Any
    _trial: str
    _last: dict[str, Any]
    """Its newest report."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        banks: Sequence[Any],
        to_spec: Callable[[Suggestion], TrialSpec],
        opening: Mapping[str, Any],
    ) -> None:
        self._banks, self._to_spec, self._opening = banks, to_spec, opening
        self._enter(config)

    def step(self) -> dict[str, Any]:
        if "outcome" in self._last:  # told before; now Tune may end the trial
            return {**self._last, "done": True}
        metrics = None
        try:
            while metrics is None:
                metrics = ray.get(self._bank.next_report.remote(self._trial))
        except RayActorError as error:
            raise BankError("bank: its process died") from error
        self._last = metrics
        return dict(metrics)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._enter(new_config)
        return True

    def cleanup(self) -> None:
        self._bank.drop.remote(self._trial)

    def _enter(self, config: Mapping[str, Any]) -> None:
        spec = self._to_spec(Suggestion(config["trial"], config["point"]))
        self._trial, self._last = spec.trial, {}
        deadline = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                leases = ray.get([bank.leases.remote() for bank in self._banks])
                order = sorted(range(len(leases)), key=leases.__getitem__)
                # where several clients ask at once, all see the same bank as the emptiest
                for bank in (self._banks[index] for index in order):
                    if ray.get(bank.attach.remote(spec.to_json(), self._opening)):
                        self._bank = bank
                        return
                time.sleep(RETRY_SECONDS)
            except ActorDiedError as error:
                raise BankError("bank: its process died too often to be started again") from error
            except (RayActorError, BankError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
