"""The one row order: which packed row a trial reads at which place, a function of (seed, epoch) and
of the shares of several sources."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from sftray.plan.trial_plan import TrialPlan


def row_order(rows: Sequence[int], plan: TrialPlan, seed: int) -> np.ndarray:
    """Row numbers of a trial's whole stream, of packs with so many rows of each source; int64
    [plan.rows]."""
    shares = [one.share for one in plan.mixture] or [1.0]
    return mixed_stream(rows, shares, plan.rows, seed)


def row_stream(rows_per_epoch: int, length: int, seed: int, source: int = 0) -> np.ndarray:
    """Row numbers of the epochs laid end to end, the first `length` of them; int64 [length].

    Every epoch is a permutation of its own, seeded by (seed, epoch, source), so that trials of any
    batch size or number of epochs see the same rows at the same place (decision 3).
    """
    epochs = -(-length // rows_per_epoch)
    permutations = [
        np.random.default_rng([seed, epoch, source]).permutation(rows_per_epoch)
        for epoch in range(epochs)
    ]
    return np.concatenate([np.empty(0, np.int64), *permutations])[:length].astype(np.int64)


def mixed_stream(
    rows: Sequence[int], shares: Sequence[float], length: int, seed: int
) -> np.ndarray:
    """Row numbers of a trial on several sources of so many rows each, which lie behind one another;
    int64 [length].

    Each source is read in the order of its own `row_stream`, begun again where it runs out;
    `source_order` says whose turn it is.
    """
    turns, stream = source_order(tuple(shares), length), np.empty(length, np.int64)
    first = np.cumsum([0, *rows])
    for source, number in enumerate(rows):
        places = np.flatnonzero(turns == source)
        stream[places] = first[source] + row_stream(number, len(places), seed, source)
    return stream


@functools.lru_cache(maxsize=32)
def source_order(shares: tuple[float, ...], length: int) -> np.ndarray:
    """Which source each place of a stream is drawn from; int64 [length].

    At every place each source has had its share of the rows so far to less than one row (of two
    sources to half a row), and a longer stream begins like a shorter one: Tijdeman 1980, "The
    chairman assignment problem", Discrete Mathematics 32. Price: 1 µs a row.
    """
    drawn = [(source, share) for source, share in enumerate(shares) if share > 0]
    if len(drawn) == 1:
        return np.full(length, drawn[0][0])
    slack = 1 / (2 * len(drawn) - 2)
    had = [0] * len(shares)
    order = []
    for place in range(1, length + 1):
        due = [(source, share, share * place - had[source]) for source, share in drawn]
        ripe = [one for one in due if one[2] >= slack - 1e-9]
        chosen = min(ripe, key=lambda one: (1 - slack - one[2]) / one[1])[0]
        had[chosen] += 1
        order.append(chosen)
    return np.array(order, np.int64)
