"""Packed rows → the tensors of one micro-batch. Documents stay apart by their positions alone:
no attention mask is passed, since an all-ones mask would take the isolation away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

RowLayout = Literal["stacked", "flat", "apart"]
"""One row beneath another; laid end to end; or every document a row of its own."""
ALIKE = 0.75
"""Of the longest document of a group, what its shortest has at least."""


def collate(
    rows: Sequence[Mapping[str, Any]], layout: RowLayout, *, kinds: bool = False
) -> dict[str, Any]:
    """The model inputs of `rows`, each with input_ids and labels [L] and seq_lengths summing to L;
    with the `kinds` of their tokens, as eval packs have them, laid out as labels are.

    Stacked: input_ids, labels and position_ids (restarting at every document), int64 [B, L]. Flat:
    the same as [1, B·L], with the boundaries that variable-length attention kernels take,
    cu_seq_lens_q/k int32 [documents + 1] and max_length_q/k, and what convolutions and recurrences
    take, seq_idx int32 [1, B·L]. Apart: input_ids and labels as stacked, and as `documents` the
    model inputs of groups of documents of like length, padded on the right, which a causal model
    does not see.
    """
    lengths = [np.asarray(row["seq_lengths"]) for row in rows]
    columns = {
        name: np.stack([np.asarray(row[name], dtype=np.int64) for row in rows])
        for name in ("input_ids", "labels", *(("kinds",) if kinds else ()))
    }
    if layout == "apart":
        flat = {name: values.reshape(-1) for name, values in columns.items()}
        groups = groups_of(np.concatenate(lengths))
        stacked = {name: torch.from_numpy(values) for name, values in columns.items()}
        return stacked | {"documents": [_padded(flat, group) for group in groups]}
    columns["position_ids"] = np.stack([positions(row_lengths) for row_lengths in lengths])
    if layout == "stacked":
        return {name: torch.from_numpy(values) for name, values in columns.items()}
    batch: dict[str, Any] = {
        name: torch.from_numpy(values.reshape(1, -1)) for name, values in columns.items()
    }
    documents = np.concatenate(lengths)
    boundaries = torch.from_numpy(np.concatenate([[0], np.cumsum(documents)]).astype(np.int32))
    batch["cu_seq_lens_q"] = batch["cu_seq_lens_k"] = boundaries
    batch["max_length_q"] = batch["max_length_k"] = int(documents.max())
    numbers = np.repeat(np.arange(len(documents), dtype=np.int32), documents)
    batch["seq_idx"] = torch.from_numpy(numbers)[None]
    return batch


def positions(lengths: np.ndarray) -> np.ndarray:
    """0, 1, … within each document: [3, 2] → 0 1 2 0 1, int64."""
    starts = np.cumsum(lengths) - lengths
    places: np.ndarray = np.arange(lengths.sum(), dtype=np.int64) - np.repeat(starts, lengths)
    return places


def model_inputs(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a model is to be called with, one after another: a batch, or its documents."""
    documents: list[dict[str, Any]] | None = batch.get("documents")
    return [dict(batch)] if documents is None else documents


def groups_of(lengths: np.ndarray) -> list[list[tuple[int, int]]]:
    """(start, length) of documents that lie end to end, in groups of like length, longest first."""
    starts = np.cumsum(lengths) - lengths
    groups: list[list[tuple[int, int]]] = []
    for number in np.argsort(-lengths, kind="stable"):
        document = int(starts[number]), int(lengths[number])
        if groups and document[1] >= ALIKE * groups[-1][0][1]:
            groups[-1].append(document)
        else:
            groups.append([document])
    return groups


def _padded(
    columns: Mapping[str, np.ndarray], documents: Sequence[tuple[int, int]]
) -> dict[str, torch.Tensor]:
    shape = len(documents), documents[0][1]
    padded = {
        name: np.full(shape, -100 if name == "labels" else 0, dtype=np.int64) for name in columns
    }
    for row, (start, length) in enumerate(documents):
        for name, values in columns.items():
            padded[name][row, :length] = values[start : start + length]
    return {name: torch.from_numpy(values) for name, values in padded.items()}
