"""The proof that documents of a packed row do not see each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel

from sftray.trial.attention import Attention, row_logits


@torch.no_grad()
def prove_isolation(model: PreTrainedModel, attention: Attention) -> float:
    """The largest change of any document's logits when another document of its row is changed.

    Three documents of 7, 11 and 6 tokens; the middle one is replaced and the logits of the others
    compared. Raises RuntimeError where there is any: an attention that lets documents see each
    other is refused, not used.
    """
    was_training = model.training
    model.eval()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    change = isolation_change(vocabulary, lambda row: row_logits(model, row, attention))
    model.train(was_training)
    refuse_leak(attention.name, "logits", change)
    return change


def isolation_change(vocabulary: int, outputs: Callable[[np.ndarray], torch.Tensor]) -> float:
    """The largest change of what `outputs` gives for a row of documents of PROBE_LENGTHS at the
    other documents' positions, when the middle one is replaced."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, vocabulary, size=24)
    other = tokens.copy()
    other[7:18] = (other[7:18] + 1) % vocabulary
    before, after = (outputs(row) for row in (tokens, other))
    kept = torch.cat([torch.arange(7), torch.arange(18, 24)])
    return float((before[kept] - after[kept]).float().abs().max())


def refuse_leak(attention: str, what: str, change: float) -> None:
    """Raise RuntimeError where documents have seen each other."""
    if change != 0:  # NaN, too
        raise RuntimeError(
            f"attention {attention!r} lets the documents of a packed row see each other: "
            f"changing one document moved another's {what} by {change:.3g}"
        )
