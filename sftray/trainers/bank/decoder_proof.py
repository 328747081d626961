"""The proof that the bank's decoder computes the loaded base: isolation and equality.

Promise: as `trial.equality` for a model of transformers, on the weights that the bank has taken.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sftray.config import TrialConfig
from sftray.errors import UnfitTrainerError
from sftray.trainers.bank.batches import Batch, PackedRow, assemble
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.fp8_proof import ProductReference
from sftray.trial.base_model import computing_as
from sftray.trial.equality import Equality, Reference
from sftray.trial.fp8_rounding import computes_in_fp8
from sftray.trial.gpu_memory import is_out_of_memory
from sftray.trial.isolation import PROBE_LENGTHS, isolation_change, refuse_leak
from sftray.trial.kept_proofs import found_in, proof_key, read, write
from sftray.trial.layer_trace import EMBEDDING, GRADIENT, HEAD, OUTPUT, Place, directions


@dataclass(frozen=True)
class DecoderProof:
    """What was found of a decoder."""

    equality: Equality
    isolation: float
    attention: str
    passed_over: str = ""
    """Attentions that do not compute the base, and why."""
    products: float | None = None
    """The error of products in FP8, of their scale; None of another base."""

    def text(self) -> str:
        """One line for a log."""
        over = f"; passed over: {self.passed_over}" if self.passed_over else ""
        rounding = "" if self.products is None else f"; products in FP8 within {self.products:.1g}"
        return self.equality.text() + rounding + over


def begin_proof(
    model: PreTrainedModel, trial: TrialConfig, max_length: int, *, resident: bool
) -> Callable[[Decoder], DecoderProof]:
    """Begin with a loaded model, before its weights are taken; what is returned ends the proof with
    the decoder that has them. One that this machine has made before is not made again.

    The decoder then has the first attention that passes. Where none does, it raises RuntimeError if
    documents see each other, UnfitTrainerError if the decoder is not equal to the model.
    """
    of = "bank, base resident" if resident else "bank"
    key = proof_key(model, trial, max_length, of)
    with contextlib.suppress(KeyError, TypeError):  # none, or of another version
        kept = read(key) or {}
        names = (str(kept["attention"]), str(kept["passed_over"]))
        before = DecoderProof(*found_in(kept), *names, kept["products"])  # type: ignore[arg-type]
        return lambda decoder: _again(decoder, before)
    reference = Reference(model, max_length, functools.partial(computing_as, trial, model.device))
    products = ProductReference(model) if computes_in_fp8(model) else None

    def end_proof(decoder: Decoder) -> DecoderProof:
        error = None if products is None else products.prove(decoder)
        proof = replace(_first_that_passes(decoder, reference), products=error)
        write(key, asdict(proof))
        return proof

    return end_proof


def _again(decoder: Decoder, proof: DecoderProof) -> DecoderProof:
    while decoder.attention.name != proof.attention and decoder.pass_over():
        pass
    return proof


def _first_that_passes(decoder: Decoder, reference: Reference) -> DecoderProof:
    """The proof with the first of the decoder's attentions that passes."""
    refused: list[str] = []
    while True:
        name = decoder.attention.name
        try:
            isolation = prove_isolation(decoder)
            equality = prove_equality(decoder, reference)
            return DecoderProof(equality, isolation, name, "; ".join(refused))
        except (RuntimeError, UnfitTrainerError) as error:
            out_of_memory = isinstance(error, RuntimeError) and is_out_of_memory(error)
            if out_of_memory or not decoder.pass_over():
                raise
            refused.append(f"{name}: {str(error).splitlines()[0]}")


@torch.no_grad()
def prove_isolation(decoder: Decoder) -> float:
    """The largest change of a document's hidden states when another of its row is changed: 0, or a
    RuntimeError. As `trial.isolation`, on the bank's own decoder."""
    nothing = np.empty(0, dtype=np.int64)
    base = decoder.base
    work = torch.zeros(1, decoder.layout.size, dtype=base.dtype, device=base.device)

    def states(ids: np.ndarray) -> Tensor:
        row = PackedRow(ids, np.array(PROBE_LENGTHS), nothing, nothing)
        return decoder.hidden(assemble([row], base.device), work)

    change = isolation_change(base.shape.vocabulary, states)
    refuse_leak(decoder.attention.name, "hidden states", change)
    return change


def prove_equality(decoder: Decoder, reference: Reference) -> Equality:
    """How far the decoder is from the reference of the model that its weights were taken from.

    Raises UnfitTrainerError where that is too far.
    """
    base, ids = decoder.base, reference.tokens
    lengths, where = np.array(reference.lengths), reference.where
    row = PackedRow(ids, lengths, where, ids[where + 1])
    batch = assemble([row], base.device)
    values: dict[Place, Tensor] = {(EMBEDDING, OUTPUT): decoder.embed(batch.ids).float()}
    for number, place in reference.layers.items():
        x_TD = reference.inputs(place).to(base.device, base.dtype)
        dy_TD = directions(0, *x_TD.shape).to(base.device, base.dtype)
        y_TD, dx_TD = _layer_gradient(decoder, x_TD, dy_TD, number, batch)
        values |= {(place, OUTPUT): y_TD.float(), (place, GRADIENT): dx_TD.float()}
    x_TD = reference.inputs(HEAD).to(base.device, base.dtype)
    losses_M, dx_TD = decoder.head(x_TD, batch, gradient=True)
    values |= {(HEAD, OUTPUT): losses_M[: len(where), None], (HEAD, GRADIENT): dx_TD.float()}
    equality = reference.judge(values)
    if not equality.passed:
        raise UnfitTrainerError(f"in the bank's decoder {equality.text()}", "take trainer='train'")
    return equality


def _layer_gradient(
    decoder: Decoder, x_TD: Tensor, dy_TD: Tensor, index: int, batch: Batch
) -> tuple[Tensor, Tensor]:
    """A layer's output [T, D] without adapters, and for its gradient `dy` that of x."""
    work_KP = x_TD.new_zeros(1, decoder.layout.size)
    grad_KP = torch.zeros_like(work_KP, dtype=torch.float32)
    y_TD, saved = decoder.layer(x_TD, index, batch, work_KP)
    y_TD = y_TD.clone()  # the backward pass writes over what it has read
    where = (saved, index, batch, work_KP, grad_KP)
    dx_TD = decoder.layer_backward(dy_TD.clone(), *where, to_input=True)
    batch.documents.masks.clear()
    return y_TD, dx_TD
