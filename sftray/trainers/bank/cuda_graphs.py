"""Device work recorded as CUDA graphs, all of which share one pool of memory.

Promise: a replay is one launch, whatever it consists of. Price: about a second to record; inputs
and outputs must be tensors that stay where they are, and graphs of one pool must not run at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


class Graphs:
    """Records graphs that run one after another."""

    def __init__(self) -> None:
        self._first: torch.cuda.CUDAGraph | None = None
        """Whose pool all others share."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Do the work twice, the second time only to record it; returns its replay."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()  # the graph has memory of its own
        graph = torch.cuda.CUDAGraph()
        pool = None if self._first is None else self._first.pool()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        self._first = self._first or graph
        replay: Callable[[], None] = graph.replay
        return replay
