"""Whether a machine under a trial is about to be taken back, as Ray knows it.

Promise: from the notice (`sftray.cluster.spot_notice`, a raylet that must end) to the machine's
end, whoever trains is asked every AGAIN_SECONDS to save what it has, so no more than that is lost.
Price: one question to the cluster every ASK_SECONDS, 1 ms. Torch is not needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from sftray.cluster import ray_private

ASK_SECONDS = 5.0
"""Half a minute is the shortest notice that clouds give."""
AGAIN_SECONDS = 15.0
"""A checkpoint of a whole bank takes seconds."""


def draining_nodes() -> set[str]:
    """The nodes that Ray drains, as hex ids: what `ray.train.get_preemption_info`
    reads, too, but without all workers having to ask in the same step."""
    return set(ray_private.cluster_state().get_draining_nodes())


class PreemptionWatch:
    """The notice to some nodes."""

    def __init__(
        self,
        nodes: Collection[str],
        draining: Callable[[], Collection[str]] = draining_nodes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`nodes`: hex ids of those that a trial runs on; `clock` in seconds."""
        self._nodes, self._draining, self._clock = frozenset(nodes), draining, clock
        self._asked = -ASK_SECONDS
        self._saved = -AGAIN_SECONDS
        self.noticed = False
        """One of the nodes is about to go; that is never taken back."""

    def save_now(self) -> bool:
        """Whether what is trained is to be saved: at the notice, and again until the end."""
        now = self._clock()
        if not self.noticed:
            if not self._nodes or now - self._asked < ASK_SECONDS:
                return False
            self._asked = now
            self.noticed = not self._nodes.isdisjoint(self._draining())
        if not self.noticed or now - self._saved < AGAIN_SECONDS:
            return False
        self._saved = now
        return True
