"""The proof that a loaded base on packed rows is the model that was named.

Promise: what a trial computes is compared with transformers' eager attention in float32, each
document alone, layer by layer, each layer fed with the reference's input; outputs and the gradient
of the inputs. A path passes where its error is at most twice that of eager attention in the same
precision. Price: one layer of each kind, the embedding and the head on a few hundred tokens.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sftray.plan.proof_memory import MOST_SCORES, document_lengths, longest_document
from sftray.trial.attention import Attention
from sftray.trial.base_model import Computing
from sftray.trial.collate import collate
from sftray.trial.decoder_layers import decoder_layers, first_of_each_kind, longest_window
from sftray.trial.fp8_rounding import computes_in_fp8
from sftray.trial.layer_trace import HEAD, LayerTrace, Place, layer_place
from sftray.trial.reference_model import hollow, reference_model

MOST_RATIO = 2.0
"""Of a path's error to that of eager attention in the same precision."""
ROUNDING = 1e-5
"""Error that is allowed besides, of the scale of what is compared: sums in another order."""
SUMMED = 2**-24
"""The same at the head, times the root of the vocabulary where that is more: float32 sums of so
many exponentials. Of Gemma 3's 262,144, eager attention's own are off by 1.5e-5."""
QUANTILE = 0.999
LOSSES = 8
"""Tokens at each document's end of which the losses are compared."""


@dataclass(frozen=True)
class Equality:
    """How far a path is from the reference, at the place where it is farthest."""

    place: str
    """"layer 0 (LlamaDecoderLayer)", the embedding or the head."""
    what: str
    """Its output, or the gradient of its input."""
    ratio: float
    """Of its error to that of eager attention in the same precision; infinite where that is 0."""
    error: float
    """Of the scale of what is compared."""
    precision: str
    window: int | None = None
    """A window beyond which no document reaches, for want of memory or `max_length`."""

    @property
    def passed(self) -> bool:
        return self.ratio <= MOST_RATIO

    def text(self) -> str:
        """One line for a log."""
        size = f"{self.error:.1g} of its scale"
        if math.isfinite(self.ratio) and self.ratio > 0:
            size = f"{self.ratio:.2g} × the error of eager attention in {self.precision}"
        if not self.passed:
            return f"{self.what} of {self.place} differs from eager attention in float32 by {size}"
        equal = f"equal to eager attention in float32: {size}"
        if self.window is None:
            return equal
        return f"{equal}; no document reaches beyond its window of {self.window:,}"


class Reference:
    """What eager attention in float32 makes of a loaded base, and its error as trials compute."""

    def __init__(
        self, model: PreTrainedModel, max_length: int, computing: Computing = nullcontext
    ) -> None:
        """`computing`: a context in which a trial computes. Documents fill `max_length` at most."""
        self._computing = computing
        window = longest_window(model)
        self.lengths = document_lengths(window, max_length, _longest_document(model))
        self._window = window if window and self.lengths[0] <= window else None
        vocabulary = model.get_input_embeddings().weight.shape[0]
        generator = np.random.default_rng(0)
        self.tokens = generator.integers(0, vocabulary, size=sum(self.lengths))
        """Of documents of `lengths`, end to end."""
        self._at_head = max(ROUNDING, SUMMED * math.sqrt(vocabulary))
        ends = np.cumsum(self.lengths)
        self.where = np.concatenate([np.arange(end - LOSSES, end) - 1 for end in ends])
        """Positions of which losses are compared; their targets are the next tokens."""
        layers = decoder_layers(model)
        self.layers = {n: layer_place(n, layers[n]) for n in first_of_each_kind(model)}
        """Those that are compared, with their places' names."""
        plain = self._copy(model, torch.float32)
        with torch.autocast(model.device.type, enabled=False):
            self._trace = self._run_alone(plain, None)
        del plain
        eager = self._copy(model, None)
        if computes_in_fp8(model):  # a sum in another order may come to another code
            computing = functools.partial(torch.autocast, model.device.type, torch.bfloat16)
        with computing():
            self._eager = self._errors(self._run_alone(eager, self._trace).values())
            self.precision = _precision(eager)

    def compare(self, model: PreTrainedModel, attention: Attention) -> Equality:
        """How far `model` with `attention` is from the reference on a row of its documents."""
        with self._computing():
            if attention.layout == "apart":
                return self.judge(self._run_alone(model, self._trace).values())
            trace = LayerTrace(self._trace)
            where, targets = (
                torch.from_numpy(v) for v in (self.where, self.tokens[self.where + 1])
            )
            batch = _packed(self.tokens, self.lengths, attention)
            trace.run(model, list(self.layers), batch, where, targets)
            return self.judge(trace.values())

    def inputs(self, place: str) -> Tensor:
        """What the reference has come to a layer or to the head, [tokens, width] in float32."""
        return self._trace.inputs(place)

    def judge(self, values: Mapping[Place, Tensor]) -> Equality:
        """How far what some places give for the reference's inputs is from the reference."""
        return self._worst(self._errors(values))

    def _copy(self, model: PreTrainedModel, dtype: torch.dtype | None) -> PreTrainedModel:
        left_out = [layer for i, layer in enumerate(decoder_layers(model)) if i not in self.layers]
        return reference_model(model, {layer: hollow(layer) for layer in left_out}, dtype)

    def _run_alone(self, model: PreTrainedModel, fed: LayerTrace | None) -> LayerTrace:
        trace = LayerTrace(fed)
        for tokens in np.split(self.tokens, np.cumsum(self.lengths)[:-1]):
            ids = torch.from_numpy(tokens)
            where = torch.arange(len(ids))[-LOSSES - 1 : -1]
            trace.run(model, list(self.layers), {"input_ids": ids[None]}, where, ids[where + 1])
        return trace

    def _errors(
        self, values: Mapping[Place, Tensor]
    ) -> dict[tuple[Place, str], tuple[float, float]]:
        """(error, scale of the reference) by place and statistic: RMS over tokens, and quantile."""
        errors = {}
        for place, expected in self._trace.values().items():
            if place not in values:
                continue
            found = values[place].to(expected.device)
            off = (found.double() - expected.double()).square().mean(dim=-1)
            size = expected.double().square().mean(dim=-1)
            errors[place, "mean"] = float(off.mean().sqrt()), float(size.mean().sqrt())
            errors[place, "peak"] = _quantile(off), _quantile(size)
        return errors

    def _worst(self, errors: Mapping[tuple[Place, str], tuple[float, float]]) -> Equality:
        worst = Equality(HEAD, "the output", -1.0, 0.0, self.precision, self._window)
        for key, (error, scale) in errors.items():
            (place, what), _ = key
            rounding = self._at_head if place == HEAD else ROUNDING
            over, eager = error - rounding * scale, self._eager[key][0]
            ratio = math.inf
            if math.isfinite(error):
                ratio = 0.0 if over <= 0 else over / eager if eager > 0 else math.inf
            relative = error / scale if scale else error
            if ratio > worst.ratio or (ratio == worst.ratio and relative > worst.error):
                worst = Equality(place, what, ratio, relative, self.precision, self._window)
        return worst


def _longest_document(model: PreTrainedModel) -> int:
    """Tokens of a document whose scores fit MOST_SCORES, or half of the GPU's free memory."""
    room = MOST_SCORES
    if model.device.type == "cuda":
        room = max(room, torch.cuda.mem_get_info(model.device)[0] // 2)
    heads = getattr(model.config.get_text_config(), "num_attention_heads", None) or 1
    return longest_document(heads, room)


def _packed(
    tokens: np.ndarray, lengths: list[int], attention: Attention
) -> dict[str, Tensor | int]:
    row = {
        "input_ids": tokens,
        "labels": np.full(tokens.shape, -100),
        "seq_lengths": np.array(lengths),
    }
    batch = collate([row], attention.layout)
    del batch["labels"]
    return batch


def _quantile(squares: Tensor) -> float:
    return float(torch.quantile(squares, QUANTILE).sqrt())


def _precision(model: PreTrainedModel) -> str:
    device = model.device.type
    if torch.is_autocast_enabled(device):
        return str(torch.get_autocast_dtype(device)).removeprefix("torch.")
    return str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
