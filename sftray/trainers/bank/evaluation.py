"""The exact eval loss of one adapter at a time, on a GPU as a CUDA graph.

Promise: of each source the sum of token losses over the number of supervised tokens of all its
rows; the same from a graph as from the eager pass. Costs nothing for slots that are not due: it is
a pass of one adapter over full batches. The packs stay on the device, 16 bytes a token and what it
trains on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sftray.config.data_config import WeightedSource
from sftray.data.chat.token_kinds import KINDS
from sftray.data.packs.packs import MappedRows
from sftray.trainers.bank.batches import Buffers, PackedRow, idle_row, read_row, smallest
from sftray.trainers.bank.cuda_graphs import Graphs
from sftray.trainers.bank.decoder import Decoder
from sftray.trial.eval_losses import EvalLoss


class EvalPass:
    """All rows of the eval split in batches of one size."""

    def __init__(
        self,
        decoder: Decoder,
        rows: MappedRows,
        sources: Sequence[int],
        count: int,
        graphs: Graphs | None,
    ) -> None:
        """`count` rows go through the decoder at once; without `graphs`, eagerly. `sources`: the
        rows of each source."""
        self._decoder, self._graphs = decoder, graphs
        device = decoder.base.device
        count = min(count, len(rows))
        edges = np.cumsum([0, *sources]).tolist()
        starts = [range(first, stop, count) for first, stop in pairwise(edges)]
        read, idle = [read_row(rows[k]) for k in range(len(rows))], [idle_row(rows.max_length)]
        batches = [
            [read[at : min(at + count, of.stop)] + idle * (at + count - of.stop) for at in of]
            for of in starts
        ]
        capacity = smallest([batch for of in batches for batch in of])
        kinds = [rows[k]["kinds"][read[k].where + 1] for k in range(len(rows))]
        self._tokens = [
            np.bincount(np.concatenate(kinds[of.start : of.stop]), minlength=len(KINDS)).tolist()
            for of in starts
        ]
        self._kinds = [
            [_padded(kinds[at : min(at + count, of.stop)], capacity.targets, device) for at in of]
            for of in starts
        ]
        self._batches = [
            [_filled(Buffers(capacity, count, rows.max_length, device), batch) for batch in of]
            for of in batches
        ]
        self._work = torch.zeros(1, decoder.layout.size, dtype=decoder.base.dtype, device=device)
        self._sums = torch.zeros(1 + len(KINDS), dtype=torch.float64, device=device)
        """Of all losses of a source, and by kind."""
        self._current = Buffers(capacity, count, rows.max_length, device)
        self._current_kinds = torch.zeros_like(self._kinds[0][0])
        self._numbers = torch.arange(len(KINDS), device=device)[:, None]
        self._pass: Callable[[], None] | None = None

    def losses(
        self, works: Sequence[Tensor], mixture: Sequence[WeightedSource] = ()
    ) -> list[EvalLoss]:
        """Under each of several adapters [P]. All are under way before the first is waited for."""
        if self._pass is None:
            self._pass = self._add if self._graphs is None else self._graphs.record(self._add)
        sums = [self._under(work, self._pass) for work in works]
        together = torch.stack(sums).tolist() if sums else []
        return [EvalLoss.of(one, self._tokens, mixture) for one in together]

    def _under(self, work: Tensor, add: Callable[[], None]) -> Tensor:
        """Sums of each source, [sources, 1 + kinds]."""
        self._work[0].copy_(work)
        sums = []
        for batches, kinds in zip(self._batches, self._kinds, strict=True):
            self._sums.zero_()
            for batch, of_batch in zip(batches, kinds, strict=True):
                self._current.copy_(batch)
                self._current_kinds.copy_(of_batch)
                add()
            sums.append(self._sums.clone())
        return torch.stack(sums)

    def _add(self) -> None:
        """Add the losses of the current batch to the sums."""
        losses = self._decoder.losses(self._current.batch, self._work).double()
        self._sums[0].add_(losses.sum())
        is_kind = self._current_kinds == self._numbers
        self._sums[1:].add_(torch.where(is_kind, losses, 0).sum(1))


def _filled(buffers: Buffers, rows: Sequence[PackedRow]) -> Buffers:
    buffers.fill(rows)
    return buffers


def _padded(kinds: Sequence[NDArray[np.int32]], targets: int, device: torch.device) -> Tensor:
    """The kinds of a batch's targets, [targets]; of unused entries, whose loss is 0, the first."""
    padded = torch.zeros(targets, dtype=torch.int64, device=device)
    given = np.concatenate(kinds).astype(np.int64)
    padded[: len(given)] = torch.from_numpy(given)
    return padded
