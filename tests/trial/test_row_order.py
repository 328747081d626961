"""The one row order: a function of (seed, epoch), the same for every trial of a sweep."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sftray.trial.row_order import row_stream

ROWS, SEEDS = st.integers(1, 200), st.integers(0, 2**31)


@given(rows=ROWS, epochs=st.integers(1, 4), seed=SEEDS)
def test_every_epoch_has_every_row_once(rows: int, epochs: int, seed: int) -> None:
    stream = row_stream(rows, rows * epochs, seed).reshape(epochs, rows)
    assert (np.sort(stream, axis=1) == np.arange(rows)).all()


@given(rows=ROWS, shorter=st.integers(1, 500), longer=st.integers(1, 500), seed=SEEDS)
def test_a_longer_trial_begins_with_the_rows_of_a_shorter_one(
    rows: int, shorter: int, longer: int, seed: int
) -> None:
    shorter, longer = sorted((shorter, longer))
    assert (
        row_stream(rows, longer, seed)[:shorter] == row_stream(rows, shorter, seed)
    ).all()  # whatever the batch size, the number of epochs or the place where a trial stops


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = row_stream(100, 200, seed=3).reshape(2, 100)
    assert (first != second).any()
    assert (row_stream(100, 100, seed=4) != first).any()


def test_the_order_is_the_recorded_one() -> None:
    # a trial that resumes under another version of numpy must meet the same rows
    recorded = [2, 4, 3, 6, 5, 0, 1, 7, 1, 3, 7, 6, 0, 4, 2, 5]
    assert row_stream(8, 16, seed=0).tolist() == recorded
