"""The one row order: a function of (seed, epoch), the same for every trial of a sweep."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sftray.trial.row_order import mixed_stream, row_stream, source_order

SHARES = st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any)
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


@given(weights=SHARES, length=st.integers(1, 600))
def test_no_source_is_ever_a_row_away_from_its_share(weights: list[int], length: int) -> None:
    shares = np.array(weights) / sum(weights)
    order = source_order(tuple(shares), length)
    drawn = np.cumsum(order[:, None] == np.arange(len(shares)), axis=0)
    wanted = shares * np.arange(1, length + 1)[:, None]
    most = 0.5 if np.count_nonzero(shares) <= 2 else 1
    assert np.abs(drawn - wanted).max() < most + 1e-9
    assert (source_order(tuple(shares), length // 2) == order[: length // 2]).all()


@given(rows=st.lists(st.integers(1, 50), min_size=2, max_size=4), seed=SEEDS)
def test_each_source_is_read_whole_before_it_begins_again_in_another_order(
    rows: list[int], seed: int
) -> None:
    shares = np.arange(1, len(rows) + 1) / sum(range(1, len(rows) + 1))
    stream = mixed_stream(rows, shares.tolist(), 400, seed)
    first = np.cumsum([0, *rows])
    for source, number in enumerate(rows):
        inside = (first[source] <= stream) & (stream < first[source + 1])
        mine = stream[inside] - first[source]
        assert (mine == row_stream(number, len(mine), seed, source)).all()
        for start in range(0, len(mine) - number + 1, number):
            assert len({*mine[start : start + number].tolist()}) == number


def test_a_source_of_share_0_is_not_drawn_and_one_source_is_the_plain_stream() -> None:
    assert (mixed_stream([8, 50], [1.0, 0.0], 16, 0) == row_stream(8, 16, 0)).all()
    assert (mixed_stream([8], [1.0], 16, 3) == row_stream(8, 16, 3)).all()
    assert (mixed_stream([8, 8], [0.0, 1.0], 16, 0) - 8 != row_stream(8, 16, 0)).any()


def test_the_order_is_the_recorded_one() -> None:
    # a trial that resumes under another version of numpy must meet the same rows
    recorded = [2, 4, 3, 6, 5, 0, 1, 7, 1, 3, 7, 6, 0, 4, 2, 5]
    assert row_stream(8, 16, seed=0).tolist() == recorded
    mixed = [2, 9, 4, 3, 6, 10, 5, 0, 8, 1, 7, 8]
    assert mixed_stream([8, 3], [0.7, 0.3], 12, seed=0).tolist() == mixed
