"""Packed rows as the bank takes them: boundaries, targets, padding, capacities, mapped rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bank_models import random_rows, roomy_batch

from sftray.data.packs.packs import MappedRows, Packs
from sftray.trainers.bank.batches import (
    IDLE,
    Batch,
    Buffers,
    Capacity,
    PackedRow,
    assemble,
    idle_row,
    read_row,
)
from sftray.trainers.bank.micro_steps import capacities

CPU = torch.device("cpu")
LENGTH = 12


def row(*lengths: int, untrained: tuple[int, ...] = (), first: int = 100) -> dict[str, Any]:
    """A row of documents, all but their first tokens and `untrained` places trained on; what is
    left of LENGTH is padding, with a length of its own as in the packs."""
    ids = np.arange(first, first + LENGTH, dtype=np.int32)
    labels = ids.copy()
    labels[np.cumsum(lengths) - lengths] = labels[list(untrained)] = labels[sum(lengths) :] = -100
    left = LENGTH - sum(lengths)
    return {
        "input_ids": ids,
        "labels": labels,
        "seq_lengths": np.array([*lengths, *([left] if left else [])]),
        "documents": np.arange(len(lengths)),
    }


ROWS = [row(5, 7, untrained=(1, 2, 6)), row(3, 4, 2, first=200)]


def documents_of(batch: Batch) -> list[int]:
    """The document of every token, by the boundaries."""
    places = torch.arange(len(batch.ids), dtype=torch.int32)
    bounds = batch.documents.boundaries
    return (torch.searchsorted(bounds, places, right=True) - 1).tolist()


def test_a_row_is_read_as_the_packs_have_it() -> None:
    full, padded = (read_row(values) for values in ROWS)
    assert full.lengths.tolist() == [5, 7]
    assert padded.lengths.tolist() == [3, 4, 2, 3]
    assert np.shares_memory(full.ids, ROWS[0]["input_ids"])  # without a copy
    # labels of places 3, 4 and 7 … 11 are predicted one place before
    assert full.where.tolist() == [2, 3, 6, 7, 8, 9, 10]
    assert full.targets.tolist() == [103, 104, 107, 108, 109, 110, 111]
    assert padded.where.tolist() == [0, 1, 3, 4, 5, 7]


def test_padding_is_cut_into_pieces_that_are_cheap_for_attention() -> None:
    length = 3 * IDLE + 50
    ids = np.zeros(length, dtype=np.int32)
    values = {
        "input_ids": ids,
        "labels": np.full(length, -100),
        "seq_lengths": np.array([40, length - 40]),
        "documents": np.array([7]),
    }
    assert read_row(values).lengths.tolist() == [40, IDLE, IDLE, IDLE, 10]
    assert idle_row(length).lengths.tolist() == [IDLE, IDLE, IDLE, 50]
    assert idle_row(2 * IDLE).lengths.tolist() == [IDLE, IDLE]
    assert idle_row(20).lengths.tolist() == [20]


def test_rows_lie_behind_each_other_with_the_boundaries_of_their_documents() -> None:
    batch = assemble([read_row(values) for values in ROWS], CPU)
    assert batch.ids.tolist() == [*range(100, 112), *range(200, 212)]
    assert batch.documents.boundaries.tolist() == [0, 5, 12, 15, 19, 21, 24]
    assert batch.documents.boundaries.dtype == torch.int32
    assert batch.documents.longest == 7
    assert batch.documents.rows == 2


def test_positions_restart_at_every_document_and_piece_of_padding() -> None:
    batch = assemble([read_row(values) for values in ROWS], CPU)
    first = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]
    second = [0, 1, 2, 0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert batch.positions.tolist() == first + second


def test_a_target_is_the_next_token_of_the_same_document_and_row() -> None:
    batch = assemble([read_row(values) for values in ROWS], CPU)
    document = documents_of(batch)
    assert len(batch.where) == 7 + 6
    for place, target in zip(batch.where.tolist(), batch.targets.tolist(), strict=True):
        assert target == batch.ids[place + 1]
        assert document[place] == document[place + 1]
    labels = np.concatenate([values["labels"] for values in ROWS])
    assert (batch.where + 1).tolist() == np.flatnonzero(labels != -100).tolist()


def test_idle_rows_train_nothing_and_are_documents_of_their_own() -> None:
    batch = assemble([idle_row(LENGTH), read_row(ROWS[0]), idle_row(LENGTH)], CPU)
    assert batch.documents.boundaries.tolist() == [0, 12, 17, 24, 36]
    assert batch.where.min() >= LENGTH
    assert batch.where.max() < 2 * LENGTH
    alone = assemble([read_row(ROWS[0])], CPU)
    assert batch.targets.equal(alone.targets)
    nothing = assemble([idle_row(LENGTH)], CPU)
    assert (len(nothing.where), len(nothing.targets)) == (0, 0)


def test_unused_entries_point_behind_the_tokens_and_are_empty_documents() -> None:
    rows = [read_row(values) for values in ROWS]
    exact, roomy = assemble(rows, CPU), roomy_batch(rows, documents=3, targets=4)
    tokens = len(exact.ids)
    assert roomy.documents.boundaries.tolist() == [
        *exact.documents.boundaries.tolist(),
        *[tokens] * 3,
    ]
    assert roomy.where.tolist() == [*exact.where.tolist(), *[tokens] * 4]
    assert roomy.targets.tolist() == [*exact.targets.tolist(), *[-1] * 4]


def test_a_buffer_forgets_what_it_held_before() -> None:
    rows = [read_row(values) for values in random_rows(6, 40, 97, seed=0)]
    capacity = Capacity(documents=12, longest=40, targets=100)
    buffers = Buffers(capacity, rows=2, length=40, device=CPU)
    for start in (0, 2, 4):
        buffers.fill(rows[start : start + 2], seeds=[3, 4])
    buffers.fill([idle_row(40), rows[5]])
    batch, expected = buffers.batch, assemble([idle_row(40), rows[5]], CPU)
    assert batch.ids.equal(expected.ids)
    assert batch.positions.equal(expected.positions)
    documents, targets = len(expected.documents.boundaries), len(expected.where)
    assert batch.documents.boundaries[:documents].equal(expected.documents.boundaries)
    assert set(batch.documents.boundaries[documents:].tolist()) == {80}
    assert batch.where[:targets].equal(expected.where)
    assert batch.targets[:targets].equal(expected.targets)
    assert set(batch.where[targets:].tolist()) == {80}
    assert set(batch.targets[targets:].tolist()) == {-1}
    assert batch.seeds is not None
    assert batch.seeds.tolist() == [0, 0]
    assert not batch.documents.masks


def test_seeds_of_dropout_go_with_their_rows() -> None:
    batch = assemble([read_row(values) for values in ROWS], CPU, [2**62, 7])
    assert batch.seeds is not None
    assert batch.seeds.tolist() == [2**62, 7]


@pytest.mark.parametrize(
    ("capacity", "holds"),
    [
        (Capacity(6, 7, 13), True),
        (Capacity(5, 7, 13), False),
        (Capacity(6, 6, 13), False),
        (Capacity(6, 7, 12), False),
    ],
)
def test_a_capacity_holds_what_fits_in_every_respect(capacity: Capacity, holds: bool) -> None:
    assert capacity.holds([read_row(values) for values in ROWS]) == holds


@pytest.mark.parametrize("split", ["train", "eval"])
def test_mapped_rows_are_the_rows_of_the_dataset(small_packs: Packs, split: str) -> None:
    dataset = small_packs.dataset(split)
    mapped = MappedRows(dataset)
    assert len(mapped) == len(dataset) == small_packs.rows(split)
    assert mapped.max_length == small_packs.max_length
    documents = []
    for index, expected in enumerate(dataset):
        found = mapped[index]
        assert {name: found[name].tolist() for name in found} == expected
        documents.append(len(expected["documents"]))
    assert mapped.most_documents() == max(documents)
    assert int(mapped.tokens().sum()) == small_packs.manifest["splits"][split]["tokens"]
    assert mapped.tokens().tolist() == [
        sum(values["seq_lengths"][: len(values["documents"])]) for values in dataset
    ]


def test_mapped_rows_of_several_parts_are_those_of_the_dataset(
    small_packs: Packs,
) -> None:
    import datasets

    whole = small_packs.dataset("train")
    parts = [whole, small_packs.dataset("eval").remove_columns("kinds")]
    mapped = MappedRows(datasets.concatenate_datasets(parts))
    rows = [*parts[0], *parts[1]]
    assert len(mapped) == len(rows)
    for index in (0, len(whole) - 1, len(whole), len(rows) - 1):
        found = mapped[index]
        assert {name: found[name].tolist() for name in found} == rows[index]
    assert mapped.tokens().tolist() == [
        *MappedRows(parts[0]).tokens().tolist(),
        *MappedRows(parts[1]).tokens().tolist(),
    ]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_no_target_of_a_pack_is_in_another_document(small_packs: Packs, split: str) -> None:
    rows = MappedRows(small_packs.dataset(split))
    supervised = 0
    for index in range(len(rows)):
        values, packed = rows[index], read_row(rows[index])
        document = np.repeat(np.arange(len(packed.lengths)), packed.lengths)
        assert (document[packed.where] == document[packed.where + 1]).all()
        assert (packed.targets == values["input_ids"][packed.where + 1]).all()
        assert (document[packed.where] < len(values["documents"])).all()  # none in the padding
        supervised += len(packed.where)
    assert supervised == small_packs.manifest["splits"][split]["supervised_tokens"]


@pytest.mark.parametrize("count", [1, 4])
def test_the_larger_size_holds_every_batch_and_the_smaller_most(
    small_packs: Packs, count: int
) -> None:
    rows = MappedRows(small_packs.dataset("train"))
    usual, every = capacities(rows, count)
    assert usual.documents <= every.documents
    assert usual.longest <= every.longest
    assert usual.targets <= every.targets
    read = [read_row(rows[index]) for index in range(len(rows))]
    idle = idle_row(rows.max_length)
    random = np.random.default_rng(1)
    batches = [[read[i] for i in random.integers(0, len(read), size=count)] for _ in range(500)]
    assert sum(usual.holds(batch) for batch in batches) >= 0.9 * len(batches)
    assert usual.holds([idle] * count)
    assert all(every.holds(batch) for batch in batches)
    for worst in _worst(read):
        assert every.holds([worst] * count)


def _worst(rows: list[PackedRow]) -> list[PackedRow]:
    """The row with the most documents, that with the longest, and that with the most targets."""
    return [
        max(rows, key=lambda row: len(row.lengths)),
        max(rows, key=lambda row: int(row.lengths.max())),
        max(rows, key=lambda row: len(row.where)),
    ]
