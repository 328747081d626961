"""What packing is worth: padding of packed rows, of padded ones, and of batches' longest."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sftray.data.packs.packing import pack
from sftray.data.padding import expected_longest, padding_of, padding_text

LENGTHS = np.array([60, 90, 400, 220, 60])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_expected_longest_is_the_mean_over_all_batches(size: int) -> None:
    longest = [max(batch) for batch in product(LENGTHS.tolist(), repeat=size)]
    assert expected_longest(LENGTHS, size) == pytest.approx(np.mean(longest))


def test_conversations_of_one_length_are_padded_to_it_without_waste() -> None:
    facts = padding_of(np.full(12, 100), rows=2, max_length=1000)
    assert facts["waste"] == pytest.approx(0.4)
    assert facts["waste_padded"] == pytest.approx(0.9)
    assert facts["waste_longest"] == pytest.approx({"8": 0, "16": 0})


def test_padding_is_told_as_a_share_and_as_times_the_packed_positions() -> None:
    rows = len(pack(LENGTHS, 1024))
    facts = padding_of(LENGTHS, rows, 1024)
    assert rows == 1
    text = padding_text(facts, 1024)
    assert text.startswith(f"packing: {100 * (1 - 830 / 1024):.2f} % padding; ")
    assert f"padded to 1,024: {100 * (1 - 830 / 5120):.1f} % (5.0 × the positions)" in text
    times = 5 * expected_longest(LENGTHS, 8) / 1024
    assert f"to the longest of 8: {100 * facts['waste_longest']['8']:.1f} % ({times:.1f} ×" in text
