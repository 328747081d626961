"""The one row order: which packed row a trial reads at which place, a function of (seed, epoch)."""

from __future__ import annotations

import numpy as np


def row_stream(rows_per_epoch: int, length: int, seed: int) -> np.ndarray:
    """Row numbers of the epochs laid end to end, the first `length` of them; int64 [length].

    Every epoch is a permutation of its own, seeded by (seed, epoch), so that trials of any batch
    size or number of epochs see the same rows at the same place (decision 3).
    """
    epochs = -(-length // rows_per_epoch)
    permutations = [
        np.random.default_rng([seed, epoch]).permutation(rows_per_epoch) for epoch in range(epochs)
    ]
    return np.concatenate(permutations)[:length].astype(np.int64)
