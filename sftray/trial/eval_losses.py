"""An eval loss as the trainers report it: the mean of all, and of each kind of token.

Promise: the kinds' losses, weighted by their tokens, are the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftray.data.chat.token_kinds import KINDS
from sftray.storage.journal.event_types import LossOf


@dataclass(frozen=True)
class EvalLoss:
    """In nats a supervised token."""

    mean: float
    by_kind: Sequence[LossOf] = ()
    """Of the kinds of tokens that there are."""

    @classmethod
    def of(cls, total: float, sums: Sequence[float], counts: Sequence[int]) -> EvalLoss:
        """From the sum of all losses, and sums and tokens of each of KINDS."""
        kinds = [
            (name, loss / count, count)
            for name, loss, count in zip(KINDS, sums, counts, strict=True)
            if count
        ]
        return cls(total / sum(counts), kinds)
