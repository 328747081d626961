"""The evaluation set is chosen by content, and duplicates never straddle it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftray.data.source.eval_split import held_out, limited, turn_hash
from sftray.errors import DataError


def held(hashes: np.ndarray, fraction: float, most: int) -> np.ndarray:
    (chosen,) = held_out([hashes], fraction, most)
    return chosen


def hashes(texts: list[str], seed: int = 0) -> np.ndarray:
    return np.array([turn_hash(text, seed) for text in texts], dtype=np.uint64)


@given(st.lists(st.integers(0, 30), min_size=40), st.floats(0.01, 0.9), st.integers(1, 50))
def test_duplicates_never_straddle_train_and_eval(
    kinds: list[int], fraction: float, most: int
) -> None:
    texts = [str(kind) for kind in kinds]
    try:
        chosen = held(hashes(texts), fraction, most)
    except DataError:
        room = min(max(1, np.ceil(fraction * len(texts))), most)
        assert min(texts.count(text) for text in set(texts)) > room or len(set(texts)) == 1
        return
    evaluated = {text for text, held in zip(texts, chosen, strict=True) if held}
    trained = {text for text, held in zip(texts, chosen, strict=True) if not held}
    assert evaluated.isdisjoint(trained)
    assert evaluated
    assert trained
    assert chosen.sum() <= min(np.ceil(fraction * len(texts)), most)


def test_the_choice_follows_the_conversation_wherever_it_stands() -> None:
    texts = [f"question {k}" for k in range(500)]
    chosen = held(hashes(texts), 0.1, 500)
    reversed_choice = held(hashes(texts[::-1]), 0.1, 500)
    assert chosen.tolist() == reversed_choice[::-1].tolist()
    assert chosen.sum() == 50


def test_the_seed_makes_another_choice_and_spaces_do_not() -> None:
    texts = [f"question {k}" for k in range(500)]
    chosen = held(hashes(texts), 0.1, 500)
    assert chosen.tolist() != held(hashes(texts, seed=1), 0.1, 500).tolist()
    assert chosen.tolist() == held(hashes([f" {t}\n" for t in texts]), 0.1, 500).tolist()


def test_a_dataset_with_one_question_only_cannot_hold_any_out() -> None:
    with pytest.raises(DataError, match=r"give data\.eval_source"):
        held(hashes(["Hello"] * 100), 0.1, 500)


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=20), min_size=2, max_size=3),
    st.floats(0.05, 0.5),
)
def test_a_question_of_two_sources_is_on_one_side_of_both(
    kinds: list[list[int]], fraction: float
) -> None:
    sources = [hashes([str(kind) for kind in source]) for source in kinds]
    try:
        chosen = held_out(sources, fraction, 10)
    except DataError:
        return
    pairs = [*zip(sources, chosen, strict=True)]
    evaluated = np.concatenate([one[mask] for one, mask in pairs])
    trained = np.concatenate([one[~mask] for one, mask in pairs])
    assert not np.isin(evaluated, trained).any()
    for one, mask in pairs:
        assert 0 < mask.sum() <= min(10, max(1, np.ceil(fraction * len(one))))


def test_a_given_evaluation_set_is_cut_to_its_limit() -> None:
    texts = [f"question {k}" for k in range(100)]
    assert limited(hashes(texts), 10).sum() == 10
    assert limited(hashes(texts), 1000).all()
