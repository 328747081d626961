"""Questions that are nearly the same are found, and kept on one side of the evaluation set."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sftray.data.source.eval_split import held_out, kept_together, turn_hash
from sftray.data.source.near_duplicates import bands_of, grouped, is_near

WORDS = [
    "lamp",
    "river",
    "stone",
    "quick",
    "blue",
    "under",
    "seven",
    "light",
    "garden",
    "window",
    "paper",
    "copper",
]
BUNDLED = Path(__file__).parents[3] / "sftray" / "demo" / "chats.jsonl"


def pieces(text: str) -> set[str]:
    return {text[k : k + 8] for k in range(len(text) - 7)}


def changed(text: str, rng: random.Random, times: int) -> str:
    words = text.split()
    for _ in range(times):
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words)


def test_pairs_are_found_as_often_as_their_jaccard_index_says() -> None:
    """1 - (1 - J^6)^8, over pairs whose J is counted."""
    rng = random.Random(0)
    found: dict[int, list[tuple[bool, float]]] = {}
    for number in range(1500):
        one = " ".join(rng.choices(WORDS, k=60))
        other = changed(one, rng, number % 30)
        jaccard = len(pieces(one) & pieces(other)) / len(pieces(one) | pieces(other))
        near = bool(is_near(bands_of([one]), bands_of([other]))[0])
        wanted = 1 - (1 - jaccard**6) ** 8
        found.setdefault(int(jaccard * 5), []).append((near, wanted))
    for pairs in found.values():
        share, expected = np.mean(pairs, axis=0)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(pairs)))


def test_bands_of_a_batch_are_those_of_each_alone() -> None:
    texts = ["", "Hi", "a" * 8, "Is it far to the sea?", "Grüße, 你好 🙂?", " ".join(WORDS * 50)]
    together = bands_of(texts)
    assert together.tolist() == [bands_of([text])[0].tolist() for text in texts]
    assert (
        bands_of(["is IT far  to the sea"]).tolist() == bands_of(["Is it far to the sea?"]).tolist()
    )


def test_what_is_near_through_others_is_one_group() -> None:
    rng = random.Random(1)
    chain = [" ".join(rng.choices(WORDS, k=60))]
    chain += [changed(chain[0], rng, 1) for _ in range(5)]
    texts = [*chain, *(f"{rng.random()} or {rng.random()}" for _ in range(50))]
    hashes = np.array([turn_hash(text, 0) for text in texts], np.uint64)
    together, apart = grouped(hashes, bands_of(texts), 10)
    assert apart == 0
    assert set(together[:6].tolist()) == {min(hashes[:6].tolist())}
    assert together[6:].tolist() == hashes[6:].tolist()
    too_many, apart = grouped(hashes, bands_of(texts), 5)
    assert too_many.tolist() == hashes.tolist()
    assert apart == 6


def test_no_held_out_chat_of_the_bundled_ones_begins_nearly_like_a_trained_one() -> None:
    rows = [json.loads(line) for line in BUNDLED.read_text(encoding="utf-8").splitlines()]
    texts = [next(t["content"] for t in row["messages"] if t["role"] == "user") for row in rows]
    hashes = np.array([turn_hash(text, 0) for text in texts], np.uint64)
    bands = bands_of(texts)
    straddling = []
    for one in (hashes, kept_together([hashes], [bands], 0.02, 48)[0][0]):
        (chosen,) = held_out([one], 0.02, 48)
        straddling.append(int(is_near(bands[chosen], bands[~chosen]).sum()))
        assert chosen.sum() == 48
    assert straddling == [5, 0]


def test_grouping_takes_less_than_100_bytes_a_conversation() -> None:
    rng, number = np.random.default_rng(0), 50_000
    hashes = rng.integers(0, 2**63, number).astype(np.uint64)
    bands = rng.integers(0, 2**32, (number, 8)).astype(np.uint32)
    for column in bands.T:
        near = rng.random(number) < 0.02
        column[near] = column[rng.integers(0, number, near.sum())]
    tracemalloc.start()
    grouped(hashes, bands, 500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / number < 100
