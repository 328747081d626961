"""Positions in queries and keys: rotary embeddings (Su et al. 2021, arXiv:2104.09864), and the
scale of queries by position.

Promise: the tables are transformers' own. A document that is longer than the original positions of
LongRoPE (Ding et al. 2024, arXiv:2402.13753) is turned by the long factors, its neighbours are not.
Names of tensors end in their shape, as in `decoder`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sftray.trainers.bank.backend import fastest
from sftray.trainers.bank.batches import Batch
from sftray.trainers.bank.frozen_base import Base


class Rotary:
    """The tables of one base."""

    def __init__(self, base: Base, longest: int) -> None:
        """`longest`: positions of the longest text."""
        self._shape, description = base.shape, base.description
        self._family, self._kinds = description.family, description.kinds
        self._ops = fastest(base.device)
        places_L = torch.arange(longest, device=base.device)
        names = {kind.rotary for kind in self._kinds if kind.rotary is not None}
        original = description.original
        self._original = original if original is not None and original < longest else None
        """Positions beyond which a document is turned by other factors, where there are any."""
        self._tables = {name: self._table(base, places_L, name) for name in names}
        self._back = {name: -sin for name, (_, sin) in self._tables.items()}  # it turns back
        beta, length = description.stretch
        scale_L = 1 + beta * torch.log(1 + torch.floor(places_L / length))
        self._scale_L = scale_L.to(base.dtype) if beta and longest > length else None
        """Of queries by position, where any is not 1."""

    def _table(self, base: Base, places_L: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """cos and sin [L, E]; where there are long factors, those behind the others, [2 · L, E]."""
        parts = [base.rotary(places_L, name)]
        if self._original is not None:
            cos_LE, sin_LE = (torch.zeros_like(table) for table in parts[0])
            short = base.rotary(places_L[: self._original], name)
            cos_LE[: self._original], sin_LE[: self._original] = short
            parts.insert(0, (cos_LE, sin_LE))
        cos_LE, sin_LE = (torch.cat(tables) for tables in zip(*parts, strict=True))
        if self._family.interleaved and not self._family.paired_tables:
            half = cos_LE.shape[1] // 2
            cos_LE, sin_LE = (t[:, :half].repeat_interleave(2, dim=1) for t in (cos_LE, sin_LE))
        return cos_LE, sin_LE

    def turn_(self, heads_THE: Tensor, index: int, batch: Batch, *, back: bool = False) -> None:
        """Rotate queries and keys of a layer by their positions, and scale queries; `back` is both
        for a gradient."""
        shape, rotary = self._shape, self._kinds[index].rotary
        if rotary is not None:
            cos_LE, sin_LE = self._tables[rotary]
            sin_LE = self._back[rotary] if back else sin_LE
            rotated = shape.heads + shape.kv_heads
            where = (cos_LE, sin_LE, self._rows(batch, len(cos_LE) // 2), rotated)
            self._ops.rope_(heads_THE, *where, interleaved=self._family.interleaved)
        if self._scale_L is not None:
            heads_THE[:, : shape.heads].mul_(self._scale_L[batch.positions][:, None, None])

    def _rows(self, batch: Batch, half: int) -> Tensor:
        """Of the tables for each token: those of the long factors begin at `half`."""
        if self._original is None:
            return batch.positions
        bounds = batch.documents.boundaries
        places_T = torch.arange(len(batch.ids), device=bounds.device, dtype=bounds.dtype)
        end_T = torch.searchsorted(bounds, places_T, right=True)
        is_long_T = bounds[end_T] - bounds[end_T - 1] > self._original
        is_long_T |= batch.positions >= self._original  # of a text that grows
        return batch.positions + half * is_long_T
