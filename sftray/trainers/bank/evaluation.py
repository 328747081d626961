"""The exact eval loss of one adapter at a time, on a GPU as a CUDA graph.

Promise: the sum of token losses over the number of supervised tokens of all rows of the split; the
same from a graph as from the eager pass. Costs nothing for slots that are not due: it is a pass of
one adapter over full batches. The packs stay on the device, 16 bytes a token and what it trains on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sftray.data.packs.packs import MappedRows
from sftray.trainers.bank.batches import Buffers, idle_row, read_row, smallest
from sftray.trainers.bank.cuda_graphs import Graphs
from sftray.trainers.bank.decoder import Decoder


class EvalPass:
    """All rows of the eval split in batches of one size."""

    def __init__(
        self, decoder: Decoder, rows: MappedRows, count: int, graphs: Graphs | None
    ) -> None:
        """`count` rows go through the decoder at once; without `graphs`, eagerly."""
        self._decoder, self._graphs = decoder, graphs
        device = decoder.base.device
        count = min(count, len(rows))
        read = [read_row(rows[index]) for index in range(len(rows))]
        read += [idle_row(rows.max_length)] * (-len(read) % count)
        batches = [read[start : start + count] for start in range(0, len(read), count)]
        capacity = smallest(batches)
        self._batches = [Buffers(capacity, count, rows.max_length, device) for _ in batches]
        for buffers, batch in zip(self._batches, batches, strict=True):
            buffers.fill(batch)
        self.supervised_tokens = sum(len(row.where) for row in read)
        self._work = torch.zeros(1, decoder.layout.size, dtype=decoder.base.dtype, device=device)
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._current = Buffers(capacity, count, rows.max_length, device)
        self._pass: Callable[[], None] | None = None

    def losses(self, works: Sequence[Tensor]) -> list[float]:
        """The eval loss, in nats a token, under each of several adapters [P]. All are under way
        before the first is waited for."""
        if self._pass is None:
            self._pass = self._add if self._graphs is None else self._graphs.record(self._add)
        sums = [self._under(work, self._pass) for work in works]
        return [float(total) / self.supervised_tokens for total in sums]

    def _under(self, work: Tensor, add: Callable[[], None]) -> Tensor:
        self._work[0].copy_(work)
        self._sum.zero_()
        for batch in self._batches:
            self._current.copy_(batch)
            add()
        return self._sum.clone()

    def _add(self) -> None:
        """Add the losses of the current batch to the sum."""
        losses = self._decoder.losses(self._current.batch, self._work)
        self._sum.add_(losses.double().sum())
