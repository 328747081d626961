"""Packed rows as tensors: documents are told apart by their positions, and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sftray.trial.collate import ALIKE, collate, groups_of, model_inputs


def row(*lengths: int, first: int = 0) -> dict[str, Any]:
    tokens = np.arange(first, first + sum(lengths), dtype=np.int32)
    return {
        "input_ids": tokens,
        "labels": np.where(tokens % 2 == 0, -100, tokens),
        "seq_lengths": list(lengths),
        "documents": list(range(len(lengths))),
    }


ROWS = [row(3, 2, 1), row(1, 5, first=6)]


def test_positions_restart_at_every_document() -> None:
    batch = collate(ROWS, "stacked")
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]]


def test_rows_are_stacked_as_they_are() -> None:
    batch = collate(ROWS, "stacked")
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert batch["labels"].tolist() == [[-100, 1, -100, 3, -100, 5], [-100, 7, -100, 9, -100, 11]]
    assert {values.dtype for values in batch.values()} == {torch.int64}


def test_no_attention_mask_is_passed() -> None:
    # an all-ones mask would let the documents of a row see each other (pitfall P15)
    assert set(collate(ROWS, "stacked")) == {"input_ids", "labels", "position_ids"}


def test_flattened_rows_carry_the_boundaries_of_their_documents() -> None:
    flat, stacked = collate(ROWS, "flat"), collate(ROWS, "stacked")
    for name in ("input_ids", "labels", "position_ids"):
        assert flat[name].shape == (1, 12)
        assert flat[name].flatten().equal(stacked[name].flatten())
    for side in ("q", "k"):
        assert flat[f"cu_seq_lens_{side}"].tolist() == [0, 3, 5, 6, 7, 12]
        assert flat[f"cu_seq_lens_{side}"].dtype == torch.int32
        assert flat[f"max_length_{side}"] == 5


def test_flattened_rows_number_their_documents_for_recurrences() -> None:
    assert collate(ROWS, "flat")["seq_idx"].tolist() == [[0, 0, 0, 1, 1, 2, 3, 4, 4, 4, 4, 4]]


def test_documents_apart_are_all_there_once_with_their_labels() -> None:
    batch = collate(ROWS, "apart")
    groups = model_inputs(batch)
    assert batch["labels"].equal(collate(ROWS, "stacked")["labels"])
    tokens = sorted(
        (int(token), int(label))
        for group in groups
        for ids, labels in zip(group["input_ids"], group["labels"], strict=True)
        for token, label in zip(ids, labels, strict=True)
        if label != -100
    )
    expected = [(n, n) for n in range(12) if n % 2]
    assert tokens == expected
    assert {tuple(group["input_ids"].shape) for group in groups} == {(1, 5), (1, 3), (1, 2), (2, 1)}


def test_a_group_is_padded_by_a_third_at_most() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, size=200)
    groups = groups_of(lengths)
    padded = sum(len(group) * group[0][1] for group in groups)
    assert padded <= lengths.sum() / ALIKE
    starts = [start for group in groups for start, _ in group]
    assert sorted(starts) == (np.cumsum(lengths) - lengths).tolist()
