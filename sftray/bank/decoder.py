"""The decoder with K stacked adapters: loss and gradients, written out without autograd.

Promise: the gradients of every slot are those of its own run, since a slot's tokens meet only its
own adapter; equal to transformers and PEFT to 1e-5 in float32. One product with the base serves all
slots; residual sums ride on the products, LoRA is accumulated in place, logits exist only where
there is something to train on.

T tokens = K slots × rows × max_length, slot after slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sftray.bank import ops
from sftray.bank.adapters import Layout, Place, joint_first, second
from sftray.bank.attention import BankAttention, Documents, choose
from sftray.bank.base import DOWN, GATE_UP, GROUPS, OUT, QKV, Base
from sftray.bank.settings import LOGITS_AT_ONCE

ANSWER_TOKENS = 64
"""The most tokens that a sample answer adds to its prompt."""


@dataclass
class Batch:
    """Packed rows on the device, slot after slot."""

    ids: Tensor
    """int64 [T]"""
    positions: Tensor
    """int64 [T], restarting at every document."""
    documents: Documents
    where: Tensor
    """int64 [M]: positions whose next token is trained on; T in unused entries."""
    targets: Tensor
    """int64 [M]: that next token; −1 in unused entries."""
    rate: Tensor | None = None
    """float32 [rows]: LoRA dropout; None where no slot has any."""
    seeds: Tensor | None = None
    """int64 [rows]: the seed of each row's dropout."""


class Decoder:
    """A base with room for adapters of one layout."""

    def __init__(
        self, base: Base, layout: Layout, max_length: int, attention: str | None = None
    ) -> None:
        """`attention` as in TrialConfig."""
        self.base, self.layout, self.max_length = base, layout, max_length
        self.attention: BankAttention = choose(base.shape, base.dtype, base.device, attention)
        places = torch.arange(max_length + ANSWER_TOKENS, device=base.device)
        self._cos, self._sin = base.rotary(places)
        self._back = -self._sin  # the backward pass turns the other way
        self._ops = ops.fastest(base.device)

    @torch.inference_mode()
    def losses(self, batch: Batch, work: Tensor) -> Tensor:
        """Losses in nats of the supervised positions, float32 [M], under the adapters `work`
        [K, P]; nothing is kept for a backward pass."""
        return self._head(self._last(batch, work), batch, gradient=False)[0]

    @torch.inference_mode()
    def hidden(self, batch: Batch, work: Tensor) -> Tensor:
        """The normed last hidden states [T, hidden]."""
        return self._norm(self._last(batch, work), self.base.norm)[0]

    @torch.no_grad()
    def accumulate(self, batch: Batch, work: Tensor, grad: Tensor, *, recompute: bool) -> Tensor:
        """Add the gradients of each slot's loss sum to grad, float32 [K, P]; returns the sums, [K].

        With `recompute` only the input of each layer is kept, and it is run again backwards.
        """
        x = self.base.embedding[batch.ids]
        kept: list[Any] = []
        for index in range(self.base.shape.layers):
            before = x
            x, saved = self._layer(x, index, batch, work)
            kept.append(before if recompute else saved)
            del saved, before
        losses, dx = self._head(x, batch, gradient=True)
        del x
        for index in reversed(range(self.base.shape.layers)):
            saved = kept.pop()
            if recompute:
                saved = self._layer(saved, index, batch, work)[1]
            dx = self._layer_backward(dx, saved, index, batch, work, grad)
            del saved
        batch.documents.mask = None
        return self._sums(losses, batch, work.shape[0])

    def _last(self, batch: Batch, work: Tensor) -> Tensor:
        """The last layer's output [T, hidden], with nothing kept."""
        x = self.base.embedding[batch.ids]
        for index in range(self.base.shape.layers):
            x, _ = self._layer(x, index, batch, work)
        batch.documents.mask = None
        return x

    def _layer(self, x: Tensor, index: int, batch: Batch, work: Tensor) -> tuple[Tensor, Any]:
        layer, shape, fast = self.base.layers[index], self.base.shape, self._ops
        normed, rstd = self._norm(x, layer.input_norm)
        qkv, h_qkv = self._linear(normed, index, QKV, batch, work)
        heads = qkv.view(x.shape[0], -1, shape.head_dim)
        raw = None
        if layer.head_norms is not None:
            raw = heads
            heads = fast.head_norm(raw, layer.head_norms, shape.epsilon)
        rotated = shape.heads + shape.kv_heads
        fast.rope_(heads, self._cos, self._sin, batch.positions, rotated)
        by_head, attended = self.attention.forward(heads, batch.documents)
        mixed = by_head.reshape(x.shape[0], -1)
        middle, h_out = self._linear(mixed, index, OUT, batch, work, plus=x)
        normed2, rstd2 = self._norm(middle, layer.middle_norm)
        gate_up, h_gate_up = self._linear(normed2, index, GATE_UP, batch, work)
        active = fast.swiglu(gate_up)
        out, h_down = self._linear(active, index, DOWN, batch, work, plus=middle)
        first = (x, normed, rstd, h_qkv, raw, heads, mixed, attended, h_out)
        return out, (first, (middle, normed2, rstd2, h_gate_up, gate_up, h_down))

    def _layer_backward(
        self, dx: Tensor, saved: Any, index: int, batch: Batch, work: Tensor, grad: Tensor
    ) -> Tensor:
        """Turn the gradient of a layer's output into that of its input, in place."""
        layer, shape, fast = self.base.layers[index], self.base.shape, self._ops
        first, (middle, normed2, rstd2, h_gate_up, gate_up, h_down) = saved
        x, normed, rstd, h_qkv, raw, heads, mixed, attended, h_out = first
        both = (batch, work, grad)

        dactive, dh = self._input_gradient(dx, index, DOWN, batch, work)
        fast.swiglu_backward_(gate_up, dactive)
        active, dgate_up = dactive, gate_up
        self._lora_grads(dx, active, h_down, dh, index, DOWN, *both)
        dnormed, dh = self._input_gradient(dgate_up, index, GATE_UP, batch, work)
        self._lora_grads(dgate_up, normed2, h_gate_up, dh, index, GATE_UP, *both)
        fast.rms_norm_backward_(dx, dnormed, middle, layer.middle_norm, rstd2)

        dmixed, dh = self._input_gradient(dx, index, OUT, batch, work)
        self._lora_grads(dx, mixed, h_out, dh, index, OUT, *both)
        dheads = torch.empty_like(heads)
        by_head = dmixed.view(-1, shape.heads, shape.head_dim)
        self.attention.backward(by_head, heads, attended, batch.documents, dheads)
        rotated = shape.heads + shape.kv_heads
        fast.rope_(dheads, self._cos, self._back, batch.positions, rotated)
        if raw is not None:
            fast.head_norm_backward_(dheads, raw, layer.head_norms, shape.epsilon)
        dqkv = dheads.view(x.shape[0], -1)
        if index == 0:  # the embedding is frozen
            dh = self._inner_gradient(dqkv, index, QKV, work)
            self._lora_grads(dqkv, normed, h_qkv, dh, index, QKV, *both)
            return dx
        dnormed, dh = self._input_gradient(dqkv, index, QKV, batch, work)
        self._lora_grads(dqkv, normed, h_qkv, dh, index, QKV, *both)
        fast.rms_norm_backward_(dx, dnormed, x, layer.input_norm, rstd)
        return dx

    def _norm(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        normed, rstd = self._ops.rms_norm(x, weight, self.base.shape.epsilon)
        return normed, rstd

    def _linear(
        self,
        x: Tensor,
        index: int,
        group: int,
        batch: Batch,
        work: Tensor,
        plus: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """plus + x · Wᵀ + bias + LoRA, and LoRA's inner [K, T / K, projections · rank]."""
        weights = self.base.layers[index].groups[group]
        matrix, bias = weights.matrix().T, weights.bias
        inner = self._inner(x, index, group, batch, work)
        all_adapted = len(self.layout.of(index, group)) == len(GROUPS[group])
        if inner is not None and all_adapted and plus is None and bias is None:
            # LoRA first: what it writes is read where the large product ends, which costs nothing
            y = x.new_empty(x.shape[0], sum(weights.widths))
            for part, b, h in self._parts(y, inner, index, group, work):
                torch.bmm(h, b, out=part)
            return y.addmm_(x, matrix), inner
        if plus is not None:
            y = torch.addmm(plus, x, matrix)
            if bias is not None:
                y.add_(bias)
        else:
            y = x @ matrix if bias is None else torch.addmm(bias, x, matrix)
        if inner is not None:
            for part, b, h in self._parts(y, inner, index, group, work):
                part.baddbmm_(h, b)
        return y, inner

    def _parts(
        self, y: Tensor, inner: Tensor, index: int, group: int, work: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The columns of y of each adapted projection, its lora_Bᵀ and its inner activations."""
        for number, place in enumerate(self.layout.of(index, group)):
            part = _by_slot(y, work)[:, :, self._columns(place, index, group)]
            b = second(work, place, self.layout.rank).transpose(1, 2)
            yield part, b, inner[:, :, self._ranks(number)]

    def _inner(
        self, x: Tensor, index: int, group: int, batch: Batch, work: Tensor
    ) -> Tensor | None:
        """x · lora_Aᵀ of a group's adapted projections, each with a dropout of its own."""
        places = self.layout.of(index, group)
        if not places:
            return None
        a = joint_first(work, places, self.layout.rank)
        if batch.rate is None:
            return torch.bmm(_by_slot(x, work), a.transpose(1, 2))
        rank = self.layout.rank
        parts = []
        for number, place in enumerate(places):
            dropped = self._ops.dropout(x, batch.rate, batch.seeds, _module_number(place))
            part = a[:, number * rank : (number + 1) * rank]
            parts.append(torch.bmm(_by_slot(dropped, work), part.transpose(1, 2)))
        return torch.cat(parts, dim=2)

    def _input_gradient(
        self, dy: Tensor, index: int, group: int, batch: Batch, work: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of a linear layer's input, and that of LoRA's inner activations."""
        matrix = self.base.layers[index].groups[group].matrix()
        dinner = self._inner_gradient(dy, index, group, work)
        if dinner is None:
            return dy @ matrix, None
        places, rank = self.layout.of(index, group), self.layout.rank
        a = joint_first(work, places, rank)
        if batch.rate is None:
            dx = torch.bmm(dinner, a).view(dy.shape[0], -1)
            return dx.addmm_(dy, matrix), dinner
        dx = dy @ matrix
        for number, place in enumerate(places):
            columns = self._ranks(number)
            through = torch.bmm(dinner[:, :, columns], a[:, columns]).view(dx.shape)
            self._ops.dropout_add_(dx, through, batch.rate, batch.seeds, _module_number(place))
        return dx, dinner

    def _inner_gradient(self, dy: Tensor, index: int, group: int, work: Tensor) -> Tensor | None:
        places, rank = self.layout.of(index, group), self.layout.rank
        if not places:
            return None
        slots = work.shape[0]
        dinner = dy.new_empty(slots, dy.shape[0] // slots, len(places) * rank)
        for number, place in enumerate(places):
            part = _by_slot(dy, work)[:, :, self._columns(place, index, group)]
            dinner[:, :, self._ranks(number)] = torch.bmm(part, second(work, place, rank))
        return dinner

    def _lora_grads(
        self,
        dy: Tensor,
        x: Tensor,
        inner: Tensor | None,
        dinner: Tensor | None,
        index: int,
        group: int,
        batch: Batch,
        work: Tensor,
        grad: Tensor,
    ) -> None:
        """Add the gradients of lora_A and lora_B (without LoRA's scale, which `work` has in B)."""
        places, rank = self.layout.of(index, group), self.layout.rank
        if inner is None or dinner is None:
            return
        first = joint_first(grad, places, rank)
        if batch.rate is None:
            _accumulate(first, dinner.transpose(1, 2), _by_slot(x, work))
        for number, place in enumerate(places):
            columns = self._ranks(number)
            if batch.rate is not None:
                dropped = self._ops.dropout(x, batch.rate, batch.seeds, _module_number(place))
                slope = dinner[:, :, columns].transpose(1, 2)
                _accumulate(first[:, columns], slope, _by_slot(dropped, work))
            part = _by_slot(dy, work)[:, :, self._columns(place, index, group)]
            b_grad = second(grad, place, rank)
            _accumulate(b_grad, part.transpose(1, 2), inner[:, :, columns])

    def _head(self, x: Tensor, batch: Batch, *, gradient: bool) -> tuple[Tensor, Any]:
        """Losses [M] of the supervised positions and, with `gradient`, that of their sum [T, d]."""
        base, tokens = self.base, x.shape[0]
        picked = x[batch.where.clamp(max=tokens - 1)]
        normed, rstd = self._norm(picked, base.norm)
        losses = torch.empty(batch.where.shape[0], device=x.device)
        step = max(1, LOGITS_AT_ONCE // base.shape.vocabulary)
        for start in range(0, batch.where.shape[0], step):
            rows = slice(start, start + step)
            logits = normed[rows] @ base.head.T
            targets = batch.targets[rows]
            losses[rows] = self._ops.cross_entropy_(logits, targets, gradient=gradient)
            if gradient:
                torch.mm(logits, base.head, out=normed[rows])  # the gradient takes its place
            del logits
        if not gradient:
            return losses, None
        dpicked = torch.zeros_like(picked)
        self._ops.rms_norm_backward_(dpicked, normed, picked, base.norm, rstd)
        dx = x.new_zeros(tokens + 1, x.shape[1])  # unused entries go to the last row
        dx.index_copy_(0, batch.where, dpicked)
        return losses, dx[:tokens]

    def _sums(self, losses: Tensor, batch: Batch, slots: int) -> Tensor:
        tokens = batch.ids.shape[0]
        spread = losses.new_zeros(tokens + 1).index_copy_(0, batch.where, losses)
        return spread[:tokens].view(slots, -1).sum(1)

    def _columns(self, place: Place, index: int, group: int) -> slice:
        """The columns of a group's output that belong to a projection."""
        number = GROUPS[group].index(place.projection)
        start = sum(self.base.layers[index].groups[group].widths[:number])
        return slice(start, start + place.outputs)

    def _ranks(self, number: int) -> slice:
        """The columns of a group's inner activations that belong to its n-th adapted projection."""
        return slice(number * self.layout.rank, (number + 1) * self.layout.rank)


def _by_slot(x: Tensor, work: Tensor) -> Tensor:
    """[T, d] as [K, T / K, d]."""
    return x.view(work.shape[0], -1, x.shape[1])


def _accumulate(grad: Tensor, a: Tensor, b: Tensor) -> None:
    """grad += a · b, in float32 whatever the factors are."""
    if a.dtype == torch.float32:
        grad.baddbmm_(a, b)
    else:
        grad.add_(torch.bmm(a, b, out_dtype=torch.float32))


def _module_number(place: Place) -> int:
    """A number of its own for every projection of the model."""
    names = [name for group in GROUPS for name in group]
    return place.layer * len(names) + names.index(place.projection)
