"""An eval loss as the trainers report it: the mean, and the loss of each source and kind of token.

Promise: of one source the kinds' losses, weighted by their tokens, are the mean; of several the
sources' losses are, weighted as the configuration says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sftray.config.data_config import WeightedSource
from sftray.data.chat.token_kinds import KINDS
from sftray.storage.journal.event_types import LossOf


@dataclass(frozen=True)
class EvalLoss:
    """In nats a supervised token."""

    mean: float
    by_kind: Sequence[LossOf] = ()
    """Of the kinds of tokens that there are, in all sources together."""
    by_source: Sequence[LossOf] = ()
    """Where there are several."""

    @classmethod
    def of(
        cls,
        sums: Sequence[Sequence[float]],
        counts: Sequence[Sequence[int]],
        mixture: Sequence[WeightedSource] = (),
    ) -> EvalLoss:
        """From each source's sum of all losses and, behind it, of each of KINDS, and the tokens of
        each of KINDS."""
        tokens = [sum(column) for column in zip(*counts, strict=True)]
        _, *of_kinds = (math.fsum(column) for column in zip(*sums, strict=True))
        by_kind = [
            (name, loss / count, count)
            for name, loss, count in zip(KINDS, of_kinds, tokens, strict=True)
            if count
        ]
        means = [one[0] / sum(count) for one, count in zip(sums, counts, strict=True)]
        if len(means) == 1:
            return cls(means[0], by_kind)
        by_source = [
            (one.name, loss, sum(count))
            for one, loss, count in zip(mixture, means, counts, strict=True)
        ]
        weighted = (
            one.weight * mean for one, mean in zip(mixture, means, strict=True) if one.weight
        )
        return cls(math.fsum(weighted), by_kind, by_source)
