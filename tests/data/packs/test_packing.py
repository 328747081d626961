"""Packing loses no token, breaks no row, and fills the rows; what it is worth beside padding."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from data_templates import DEMO
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.loss_mask import Document, encode
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.data.packs.packing import (
    Rows,
    expected_longest,
    pack,
    padding_of,
    padding_text,
    shuffled,
)

SHARED = Path(__file__).parents[4] / "shared" / "data"
LENGTHS = np.array([60, 90, 400, 220, 60])


@settings(deadline=None, max_examples=300)
@given(st.integers(8, 200).flatmap(lambda m: st.tuples(st.just(m), st.lists(st.integers(1, m)))))
def test_no_token_is_lost_by_packing(case: tuple[int, list[int]]) -> None:
    max_length, lengths = case
    rows = pack(np.array(lengths, dtype=np.int64), max_length)
    packed = np.concatenate([np.empty(0, np.int64), *rows])
    assert sorted(packed.tolist()) == list(range(len(lengths)))
    assert all(0 < sum(lengths[k] for k in row) <= max_length for row in rows)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(1, 40), max_size=60))
def test_documents_of_one_length_at_once_are_best_fit_decreasing_one_by_one(
    lengths: list[int],
) -> None:
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [k for k, space in enumerate(spaces) if space >= length]
        if fitting:
            spaces[min(fitting, key=lambda k: spaces[k])] -= length
        else:
            spaces.append(40 - length)
    rows = pack(np.array(lengths, dtype=np.int64), 40)
    assert sorted(40 - sum(lengths[k] for k in row) for row in rows) == sorted(spaces)


def test_a_document_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got 3 … 9, must be 1 … 8"):
        pack(np.array([3, 9]), 8)


def test_rows_are_shuffled_by_the_seed_alone() -> None:
    rows = Rows(np.arange(50), np.arange(51))
    order = [int(row[0]) for row in shuffled(rows, 1)]
    assert order == [int(row[0]) for row in shuffled(rows, 1)]
    assert sorted(order) == list(range(50))
    assert order != [int(row[0]) for row in shuffled(rows, 2)]


def least_rows(lengths: NDArray[np.int64], max_length: int) -> int:
    """No packing has fewer rows: the bound L2 of Martello and Toth (Knapsack Problems, 1990)."""
    bounds = []
    for small in range(1, max_length // 2 + 1, 8):
        large = lengths[lengths > max_length // 2]
        fills = large[large <= max_length - small]
        rest = lengths[(lengths >= small) & (lengths <= max_length // 2)].sum()
        more = -(-(rest - (len(fills) * max_length - fills.sum())) // max_length)
        bounds.append(len(large) + max(0, more))
    return int(max(bounds))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["gsm8k_train", "alpaca_52k", "sgd_multiturn"])
def test_rows_of_real_conversations_are_nearly_as_few_as_can_be(name: str) -> None:
    chat = choose_format(read_tokenizer(str(DEMO)), template=None, date="2025-01-01", samples=[])
    lines = (SHARED / f"{name}.jsonl").read_bytes().splitlines()
    documents = encode(chat, [json.loads(line)["messages"] for line in lines[:20_000]], 2048)
    lengths = np.array([len(d.input_ids) for d in documents if isinstance(d, Document)])
    for max_length in (1024, 2048):
        fitting = lengths[lengths <= max_length]
        assert len(pack(fitting, max_length)) <= 1.02 * least_rows(fitting, max_length)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_expected_longest_is_the_mean_over_all_batches(size: int) -> None:
    longest = [max(batch) for batch in product(LENGTHS.tolist(), repeat=size)]
    assert expected_longest(LENGTHS, size) == pytest.approx(np.mean(longest))


def test_conversations_of_one_length_are_padded_to_it_without_waste() -> None:
    facts = padding_of(np.full(12, 100), rows=2, max_length=1000)
    assert facts["waste"] == pytest.approx(0.4)
    assert facts["waste_padded"] == pytest.approx(0.9)
    assert facts["waste_longest"] == pytest.approx({"8": 0, "16": 0})


def test_padding_is_shown_as_a_share_and_as_times_the_packed_positions() -> None:
    rows = len(pack(LENGTHS, 1024))
    facts = padding_of(LENGTHS, rows, 1024)
    assert rows == 1
    text = padding_text(facts, 1024)
    assert text.startswith(f"packing: {100 * (1 - 830 / 1024):.2f} % padding; ")
    assert f"padded to 1,024: {100 * (1 - 830 / 5120):.1f} % (5.0 × the positions)" in text
    times = 5 * expected_longest(LENGTHS, 8) / 1024
    assert f"to the longest of 8: {100 * facts['waste_longest']['8']:.1f} % ({times:.1f} ×" in text


def test_where_padding_takes_fewer_positions_than_packing_that_is_said() -> None:
    long = np.full(60, 700)
    facts = padding_of(long, len(pack(long, 1024)), 1024)
    said = "Padding to the longest of 8 or 16 takes fewer positions than packing"
    assert said in padding_text(facts, 1024)
    assert said not in padding_text(padding_of(long, len(pack(long, 7000)), 7000), 7000)
