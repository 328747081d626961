"""Packed rows → the tensors of one micro-batch. Documents stay apart by their positions alone:
no attention mask is passed, since an all-ones mask would take the isolation away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


def collate(rows: Sequence[Mapping[str, Any]], *, flatten: bool) -> dict[str, Any]:
    """The model inputs of `rows`, each with input_ids and labels [L] and seq_lengths summing to L.

    Returns input_ids, labels and position_ids (restarting at every document), int64, of shape
    [B, L]; with `flatten`, of shape [1, B·L] together with the boundaries that variable-length
    attention kernels take: cu_seq_lens_q/k int32 [documents + 1] and max_length_q/k.
    """
    lengths = [np.asarray(row["seq_lengths"]) for row in rows]
    columns = {
        "input_ids": np.stack([np.asarray(row["input_ids"], dtype=np.int64) for row in rows]),
        "labels": np.stack([np.asarray(row["labels"], dtype=np.int64) for row in rows]),
        "position_ids": np.stack([positions(row_lengths) for row_lengths in lengths]),
    }
    if not flatten:
        return {name: torch.from_numpy(values) for name, values in columns.items()}
    batch: dict[str, Any] = {
        name: torch.from_numpy(values.reshape(1, -1)) for name, values in columns.items()
    }
    documents = np.concatenate(lengths)
    boundaries = torch.from_numpy(np.concatenate([[0], np.cumsum(documents)]).astype(np.int32))
    batch["cu_seq_lens_q"] = batch["cu_seq_lens_k"] = boundaries
    batch["max_length_q"] = batch["max_length_k"] = int(documents.max())
    return batch


def positions(lengths: np.ndarray) -> np.ndarray:
    """0, 1, … within each document: [3, 2] → 0 1 2 0 1, int64."""
    starts = np.cumsum(lengths) - lengths
    places: np.ndarray = np.arange(lengths.sum(), dtype=np.int64) - np.repeat(starts, lengths)
    return places
