"""Which of a sweep's banks answer: a cloud may not have given, or may have taken back, the machines
of some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ray
from ray.exceptions import ActorDiedError, RayActorError

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle


class RollCall:
    """Asks banks for their leases; one that waits for a machine is not asked twice."""

    def __init__(self, banks: Sequence[ActorHandle]) -> None:
        self._banks = banks
        self._asked: dict[int, ObjectRef[int]] = {}
        """By bank: the question that it has not answered yet."""
        self.dead = 0
        """How many could not be asked the last time, for their process was gone for good."""

    def leases(self, timeout: float) -> dict[int, int]:
        """The leases of each bank that answers in time, in seconds, by its place."""
        for number, bank in enumerate(self._banks):
            if number not in self._asked:
                self._asked[number] = bank.leases.remote()
        waiting = list(self._asked.values())
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=timeout)
        leases: dict[int, int] = {}
        self.dead = 0
        for number, asked in list(self._asked.items()):
            if asked in ready:
                del self._asked[number]
                try:
                    leases[number] = ray.get(asked)
                except ActorDiedError:
                    self.dead += 1
                except RayActorError:
                    continue  # it is being started again
        return leases
