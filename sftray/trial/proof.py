"""Which attention computes a loaded base right: the fastest that passes both proofs.

Promise: nothing is trained or reported with a model that is not the one that was named. Documents
of a row do not see each other (`isolation`), and layers, embedding and head are equal to
transformers' eager attention in float32 (`equality`). A path that fails is passed over and said.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from sftray.config import TrialConfig
from sftray.errors import BrokenBaseError
from sftray.trial.attention import Attention, possible_attentions, use_attention
from sftray.trial.base_model import Computing, computing_as
from sftray.trial.equality import Equality, Reference
from sftray.trial.gpu_memory import is_out_of_memory
from sftray.trial.isolation import prove_isolation


@dataclass(frozen=True)
class Proof:
    """What was found of a loaded base."""

    attention: Attention
    """With the reason why no faster one is taken, if one failed."""
    equality: Equality
    isolation: float
    """The largest change of a document's logits when another of its row is changed."""


def prove(
    model: PreTrainedModel,
    trial: TrialConfig,
    max_length: int,
    computing: Computing | None = None,
) -> Proof:
    """Set the fastest attention in `model` that computes it right on rows of `max_length` tokens,
    in the context `computing`, by default the trial's.

    Raises BrokenBaseError where none does.
    """
    computing = computing or functools.partial(computing_as, trial, model.device)
    was_training = model.training
    model.eval()
    reference = _reference(model, trial, max_length, computing)
    candidates = possible_attentions(trial, model.device)
    proof, refused = first_that_passes(model, candidates, reference, computing)
    model.train(was_training)
    if proof is None:
        raise BrokenBaseError(*_none_left(trial, refused))
    return proof


def _reference(
    model: PreTrainedModel, trial: TrialConfig, max_length: int, computing: Computing
) -> Reference:
    try:
        return Reference(model, max_length, computing)
    except (ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        raise BrokenBaseError(
            f"trial.model: got {trial.model}, which eager attention does not compute here "
            f"({str(error).splitlines()[0]})",
            "take another base, or another base_precision",
        ) from error


def first_that_passes(
    model: PreTrainedModel,
    candidates: Sequence[Attention],
    reference: Reference,
    computing: Computing,
) -> tuple[Proof | None, list[str]]:
    """The proof of the first of some attentions that passes, set in `model`, and why each one
    before it is refused."""
    refused: list[str] = []
    for attention in candidates:
        found = _prove_one(model, attention, reference, computing)
        if not isinstance(found, str):
            reason = "; ".join(dict.fromkeys(refused))
            return replace(found, attention=replace(attention, reason=reason)), refused
        refused.append(f"{attention.name}: {found}")
    return None, refused


def _prove_one(
    model: PreTrainedModel,
    attention: Attention,
    reference: Reference,
    computing: Computing,
) -> Proof | str:
    """What the proofs found, or why this attention is refused."""
    try:
        use_attention(model, attention)
        change = prove_isolation(model, attention, computing)
        equality = reference.compare(model, attention)
    except (ValueError, RuntimeError, TypeError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        return str(error).splitlines()[0]
    return Proof(attention, equality, change) if equality.passed else equality.text()


def _none_left(trial: TrialConfig, refused: Sequence[str]) -> tuple[str, str]:
    """What is wrong, and the fix."""
    asked = "" if trial.attention is None else f" with attention={trial.attention!r}"
    fix = "leave trial.attention None to take one that does" if asked else "take another base"
    wrong = (
        f"trial.model: got {trial.model}{asked}, which no attention computes as transformers' "
        f"eager attention in float32 does ({'; '.join(refused)})"
    )
    return wrong, fix
