"""The proof that documents of a packed row do not see each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sftray.trial.attention import Attention
from sftray.trial.base_model import Computing
from sftray.trial.collate import collate, groups_of
from sftray.trial.decoder_layers import decoder_layers, has_experts

PROBE_LENGTHS = (7, 11, 6)
"""Tokens of the documents with which an attention is proved to keep them apart."""
NOISE_DRAWS = 4
MOST_NOISE = 4.0
"""Change that is allowed, of that which documents of a batch, apart, have on each other."""
SUMS = 2e-6
"""Of the largest logit: a sum of float32 in another order."""


@torch.no_grad()
def prove_isolation(
    model: PreTrainedModel, attention: Attention, computing: Computing = nullcontext
) -> float:
    """The largest change of any document's logits when another document of its row is changed.

    Three documents of 7, 11 and 6 tokens; the middle one is replaced and the logits of the others
    compared. Experts sum their tokens in another order when other documents are routed to them:
    what that does is measured on documents that are rows of a batch, and allowed. Raises
    RuntimeError where there is more.
    """
    was_training = model.training
    model.eval()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    with computing():
        change = isolation_change(vocabulary, lambda row: _row_logits(model, row, attention))
        allowed = _order_of_sums(model, vocabulary) if change else 0.0
    model.train(was_training)
    refuse_leak(attention.name, "logits", change, allowed)
    return change


def isolation_change(
    vocabulary: int, outputs: Callable[[np.ndarray], Tensor], draw: int = 0
) -> float:
    """The largest change of what `outputs` gives for a row of documents of PROBE_LENGTHS at the
    other documents' positions, when the middle one is replaced."""
    generator = np.random.default_rng(draw)
    tokens = generator.integers(0, vocabulary, size=24)
    other = tokens.copy()
    other[7:18] = (other[7:18] + 1) % vocabulary
    before, after = (outputs(row) for row in (tokens, other))
    kept = torch.cat([torch.arange(7), torch.arange(18, 24)])
    return float((before[kept] - after[kept]).float().abs().max())


def _order_of_sums(model: PreTrainedModel, vocabulary: int) -> float:
    """How far logits may move without a leak: by what another row of their batch does to them, a
    few times; of a model with experts also by float32's rounding of a sum."""
    largest = 0.0

    def logits(tokens: np.ndarray) -> Tensor:
        ids = np.zeros((len(PROBE_LENGTHS), max(PROBE_LENGTHS)), dtype=np.int64)
        for row, part in zip(ids, np.split(tokens, np.cumsum(PROBE_LENGTHS)[:-1]), strict=True):
            row[: len(part)] = part
        inputs = torch.from_numpy(ids).to(model.device)
        found = model(input_ids=inputs, use_cache=False).logits
        nonlocal largest
        largest = max(largest, float(found.abs().max()))
        parts = [row[:n] for row, n in zip(found, PROBE_LENGTHS, strict=True)]
        return torch.cat(parts).float().cpu()

    noise = max(isolation_change(vocabulary, logits, draw) for draw in range(NOISE_DRAWS))
    sums = SUMS * largest if any(has_experts(layer) for layer in decoder_layers(model)) else 0.0
    return max(MOST_NOISE * noise, sums)


def refuse_leak(attention: str, what: str, change: float, allowed: float = 0.0) -> None:
    """Raise RuntimeError where documents have seen each other."""
    if not change <= allowed:  # NaN, too
        raise RuntimeError(
            f"attention {attention!r} lets the documents of a packed row see each other: "
            f"changing one document moved another's {what} by {change:.3g}"
        )


def _row_logits(model: PreTrainedModel, tokens: np.ndarray, attention: Attention) -> Tensor:
    lengths = np.array(PROBE_LENGTHS)
    labels = np.full(tokens.shape, -100)
    row = {"input_ids": tokens, "labels": labels, "seq_lengths": lengths}
    batch = collate([row], attention.layout)
    if attention.layout != "apart":
        del batch["labels"]
        return _logits(model, batch)[0]
    out: Tensor | None = None
    for group, inputs in zip(groups_of(lengths), batch["documents"], strict=True):
        logits = _logits(model, {"input_ids": inputs["input_ids"]})
        out = logits.new_empty(len(tokens), logits.shape[-1]) if out is None else out
        for document, (start, length) in zip(logits, group, strict=True):
            out[start : start + length] = document[:length]
    assert out is not None
    return out


def _logits(model: PreTrainedModel, batch: dict[str, Tensor | int]) -> Tensor:
    inputs = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits.float().cpu()
