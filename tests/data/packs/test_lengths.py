"""Lengths counted chunk by chunk are those counted at once."""

from __future__ import annotations

import numpy as np

from sftray.data.packs.lengths import CUTS, count_lengths, lengths_of


def test_chunks_add_up() -> None:
    rng = np.random.default_rng(0)
    full = rng.integers(1, 6000, 1000)
    first = np.minimum(full, rng.integers(1, 3000, 1000))
    parts = [count_lengths(full[k : k + 300], first[k : k + 300]) for k in range(0, 1000, 300)]
    found = lengths_of([*parts, count_lengths(full[:0], first[:0])])
    assert found == lengths_of([count_lengths(full, first)])
    assert found["mean"] == round(float(full.mean()), 1)
    assert found["max"] == full.max()
    assert sum(found["histogram"].values()) == 1000
    assert found["histogram"]["64"] == np.count_nonzero((full > 32) & (full <= 64))
    for cut in CUTS:
        counts = found["cuts"][str(cut)]
        assert counts["whole"] == np.count_nonzero(full <= cut)
        assert counts["dropped"] == np.count_nonzero(first > cut)
        assert sum(counts.values()) == 1000


def test_a_split_without_a_source_has_zeros() -> None:
    table = lengths_of([])
    assert (table["mean"], table["max"], table["histogram"]) == (0, 0, {})
    assert all(sum(cut.values()) == 0 for cut in table["cuts"].values())
