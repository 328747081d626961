"""One micro-step of all slots: forward and backward over a packed batch, on a GPU as a CUDA graph.

Promise: a replayed graph computes what the eager step does, for any rows. Batches differ in how
many documents and supervised positions they have, a graph does not: buffers have a fixed capacity,
the smallest that holds the batch is taken, and what is left of it changes nothing. A size is
captured when it is first needed. Price of a capture: about a second; of a replay: one launch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sftray.data.packs.packs import MappedRows
from sftray.trainers.bank.adapters import Adapters
from sftray.trainers.bank.batches import (
    Batch,
    Buffers,
    Capacity,
    PackedRow,
    assemble,
    idle_row,
    read_row,
)
from sftray.trainers.bank.cuda_graphs import Graphs
from sftray.trainers.bank.decoder import Decoder

SAMPLED_ROWS = 2048
"""Rows from which the usual sizes of a batch are estimated."""
USUAL = 0.98
"""Share of the batches that the smaller of two captured sizes should hold."""


class Steps:
    """Runs micro-steps of K slots × `rows` packed rows."""

    def __init__(
        self,
        decoder: Decoder,
        adapters: Adapters,
        loss: Tensor,
        *,
        rows: int,
        recompute: bool,
        capacities: Sequence[Capacity] = (),
        graphs: Graphs | None = None,
        dropout: bool = False,
    ) -> None:
        """loss [K] gets the sums of token losses added. Without capacities, batches are as large as
        they come; without `graphs`, steps run eagerly."""
        self._decoder, self._adapters, self._loss = decoder, adapters, loss
        self._rows, self._recompute = rows, recompute
        self._capacities, self._graphs = list(capacities), graphs
        count = adapters.slots * rows
        self.rate = torch.zeros(count, device=loss.device) if dropout else None
        """LoRA dropout of each packed row's slot."""
        self._prepared: dict[Capacity, tuple[Buffers, Callable[[], None]]] = {}

    def run(self, rows: Sequence[PackedRow], seeds: Sequence[int] | None = None) -> None:
        """Add the gradients and losses of K × rows packed rows, slot after slot."""
        fitting = [size for size in self._capacities if size.holds(rows)]
        if not fitting:
            batch = assemble(rows, self._loss.device, seeds)
            batch.rate = self.rate
            self._accumulate(batch)
            return
        buffers, step = self._prepared.get(fitting[0]) or self._prepare(fitting[0])
        buffers.fill(rows, seeds)
        step()

    def _accumulate(self, batch: Batch) -> None:
        adapters = self._adapters
        sums = self._decoder.accumulate(
            batch, adapters.work, adapters.grad, recompute=self._recompute
        )
        self._loss.add_(sums)

    def _prepare(self, capacity: Capacity) -> tuple[Buffers, Callable[[], None]]:
        """Buffers of one size, and the step recorded on idle rows, which change no gradient."""
        count = self._adapters.slots * self._rows
        length = self._decoder.max_length
        buffers = Buffers(capacity, count, length, self._loss.device)
        buffers.batch.rate = self.rate
        step = functools.partial(self._accumulate, buffers.batch)
        if self._graphs is not None:
            buffers.fill([idle_row(length)] * count)
            self._prepared[capacity] = (buffers, self._graphs.record(step))
        else:
            self._prepared[capacity] = (buffers, step)
        return self._prepared[capacity]


def capacities(rows: MappedRows, count: int) -> list[Capacity]:
    """The sizes to capture for batches of `count` rows, smallest first: one that holds nearly all
    batches, and one that holds every batch."""
    random = np.random.default_rng(0)
    sample = random.permutation(len(rows))[:SAMPLED_ROWS]
    read = [read_row(rows[int(index)]) for index in sample]
    facts = np.array([[len(r.lengths), r.lengths.max(), len(r.where)] for r in read])
    draws = facts[random.integers(0, len(facts), size=(512, count))]
    documents, targets = (np.quantile(draws[:, :, i].sum(1), USUAL) for i in (0, 2))
    longest = np.quantile(draws[:, :, 1].max(1), USUAL)
    idle = len(idle_row(rows.max_length).lengths)
    most = max(rows.most_documents() + idle, 1) * count
    every = Capacity(most, rows.max_length, rows.max_length * count)
    usual = Capacity(
        min(_up(max(documents, idle * count), 32), most),
        min(_up(longest, 128), rows.max_length),
        min(_up(targets, 256), every.targets),
    )
    return [usual, every]


def _up(value: float, step: int) -> int:
    return int(-(-value // step)) * step
