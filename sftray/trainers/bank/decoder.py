"""The decoder with K stacked adapters: loss and gradients, written out without autograd.

Promise: the gradients of every slot are those of its own run, since a slot's tokens meet only its
own adapter; equal to transformers and PEFT to 1e-5 in float32. One product with the base serves all
slots; residual sums ride on the products, LoRA is accumulated in place, logits exist only where
there is something to train on.

Names of tensors end in their shape; h is LoRA's inner activation, x · lora_Aᵀ:
    T tokens of all K slots, slot after slot    S tokens of one    M supervised positions, m a chunk
    D hidden    I, O inputs and outputs of a group of projections, o of one of it    V vocabulary
    H heads: query, key, value    Q query heads    E features of a head    F feed-forward    G 2 · F
    P parameters of a slot    R rank    J ranks of a group    U T + 1    L positions
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sftray.plan.bank_settings import LOGITS_AT_ONCE
from sftray.trainers.bank.adapters import Layout, Place, joint_first, second
from sftray.trainers.bank.backend import fastest
from sftray.trainers.bank.frozen_base import Base, Group
from sftray.trainers.bank.packed_attention import BankAttention, Documents, choose


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
        self, base: Base, layout: Layout, max_length: int, attention: str | None, reach: int = 0
    ) -> None:
        """`attention` as in TrialConfig; reach: how far a text may grow beyond a row."""
        self.base, self.layout, self.max_length = base, layout, max_length
        self.attention: BankAttention = choose(base.shape, base.dtype, base.device, attention)
        places = torch.arange(max_length + reach, device=base.device)
        self._cos, self._sin = base.rotary(places)
        self._back = -self._sin  # the backward pass turns the other way
        self._ops = fastest(base.device)
        self._linears = [
            [
                _Linear(weights, layout.of(index, group), layout.rank, self._ops)
                for group, weights in enumerate(layer.groups)
            ]
            for index, layer in enumerate(base.layers)
        ]

    @torch.inference_mode()
    def losses(self, batch: Batch, work_KP: Tensor) -> Tensor:
        """Losses in nats of the supervised positions, float32 [M], under the adapters `work`;
        nothing is kept for a backward pass."""
        return self.head(self._last(batch, work_KP), batch, gradient=False)[0]

    @torch.inference_mode()
    def hidden(
        self, batch: Batch, work_KP: Tensor, attention: BankAttention | None = None
    ) -> Tensor:
        """The normed last hidden states, [T, D]; by another attention than the decoder's own."""
        return self._norm(self._last(batch, work_KP, attention), self.base.norm)[0]

    @torch.no_grad()
    def accumulate(
        self, batch: Batch, work_KP: Tensor, grad_KP: Tensor, *, recompute: bool
    ) -> Tensor:
        """Add the gradients of each slot's loss sum to grad, float32; returns the sums, [K].

        With `recompute` only the input of each layer is kept, and it is run again backwards.
        """
        x_TD = self.base.embedding[batch.ids]
        kept: list[Any] = []
        for index in range(self.base.shape.layers):
            before_TD = x_TD
            x_TD, saved = self.layer(x_TD, index, batch, work_KP)
            kept.append(before_TD if recompute else saved)
            del saved, before_TD
        losses_M, dx_TD = self.head(x_TD, batch, gradient=True)
        del x_TD
        for index in reversed(range(self.base.shape.layers)):
            saved = kept.pop()
            if recompute:
                saved = self.layer(saved, index, batch, work_KP)[1]
            both = (batch, work_KP, grad_KP)
            # the embedding is frozen
            dx_TD = self.layer_backward(dx_TD, saved, index, *both, to_input=index > 0)
            del saved
        batch.documents.mask = None
        return self._sums(losses_M, batch, work_KP.shape[0])

    def _last(
        self, batch: Batch, work_KP: Tensor, attention: BankAttention | None = None
    ) -> Tensor:
        """The last layer's output, with nothing kept."""
        x_TD = self.base.embedding[batch.ids]
        for index in range(self.base.shape.layers):
            x_TD, _ = self.layer(x_TD, index, batch, work_KP, attention)
        batch.documents.mask = None
        return x_TD

    def layer(
        self,
        x_TD: Tensor,
        index: int,
        batch: Batch,
        work_KP: Tensor,
        attention: BankAttention | None = None,
    ) -> tuple[Tensor, Any]:
        layer, shape, fast = self.base.layers[index], self.base.shape, self._ops
        qkv, out, gate_up, down = self._linears[index]
        normed_TD, rstd_T = self._norm(x_TD, layer.input_norm)
        qkv_TO, hq_KSJ = qkv.forward(normed_TD, batch, work_KP)
        heads_THE = qkv_TO.view(x_TD.shape[0], -1, shape.head_dim)
        raw_THE = None
        if layer.head_norms is not None:
            raw_THE = heads_THE
            heads_THE = fast.head_norm(raw_THE, layer.head_norms, shape.epsilon)
        rotated = shape.heads + shape.kv_heads
        fast.rope_(heads_THE, self._cos, self._sin, batch.positions, rotated)
        mixed_TQE, attended = (attention or self.attention).forward(heads_THE, batch.documents)
        mixed_TI = mixed_TQE.reshape(x_TD.shape[0], -1)
        middle_TD, ho_KSJ = out.forward(mixed_TI, batch, work_KP, plus_TO=x_TD)
        normed2_TD, rstd2_T = self._norm(middle_TD, layer.middle_norm)
        gate_up_TG, hg_KSJ = gate_up.forward(normed2_TD, batch, work_KP)
        active_TF = fast.swiglu(gate_up_TG)
        out_TD, hd_KSJ = down.forward(active_TF, batch, work_KP, plus_TO=middle_TD)
        first = (x_TD, normed_TD, rstd_T, hq_KSJ, raw_THE, heads_THE, mixed_TI, attended, ho_KSJ)
        return out_TD, (first, (middle_TD, normed2_TD, rstd2_T, hg_KSJ, gate_up_TG, hd_KSJ))

    def layer_backward(
        self,
        dx_TD: Tensor,
        saved: Any,
        index: int,
        batch: Batch,
        work_KP: Tensor,
        grad_KP: Tensor,
        *,
        to_input: bool,
    ) -> Tensor:
        """Turn the gradient of a layer's output into that of its input, in place; without
        `to_input` only that of its adapters is computed."""
        layer, shape, fast = self.base.layers[index], self.base.shape, self._ops
        qkv, out, gate_up, down = self._linears[index]
        first, (middle_TD, normed2_TD, rstd2_T, hg_KSJ, gate_up_TG, hd_KSJ) = saved
        x_TD, normed_TD, rstd_T, hq_KSJ, raw_THE, heads_THE, mixed_TI, attended, ho_KSJ = first

        dactive_TF, dh_KSJ = down.input_gradient(dx_TD, batch, work_KP)
        fast.swiglu_backward_(gate_up_TG, dactive_TF)
        active_TF, dgate_up_TG = dactive_TF, gate_up_TG
        down.add_gradients(dx_TD, active_TF, hd_KSJ, dh_KSJ, batch, grad_KP)
        dnormed_TD, dh_KSJ = gate_up.input_gradient(dgate_up_TG, batch, work_KP)
        gate_up.add_gradients(dgate_up_TG, normed2_TD, hg_KSJ, dh_KSJ, batch, grad_KP)
        fast.rms_norm_backward_(dx_TD, dnormed_TD, middle_TD, layer.middle_norm, rstd2_T)

        dmixed_TI, dh_KSJ = out.input_gradient(dx_TD, batch, work_KP)
        out.add_gradients(dx_TD, mixed_TI, ho_KSJ, dh_KSJ, batch, grad_KP)
        dheads_THE = torch.empty_like(heads_THE)
        dmixed_TQE = dmixed_TI.view(-1, shape.heads, shape.head_dim)
        self.attention.backward(dmixed_TQE, heads_THE, attended, batch.documents, dheads_THE)
        rotated = shape.heads + shape.kv_heads
        fast.rope_(dheads_THE, self._cos, self._back, batch.positions, rotated)
        if raw_THE is not None:
            fast.head_norm_backward_(dheads_THE, raw_THE, layer.head_norms, shape.epsilon)
        dqkv_TO = dheads_THE.view(x_TD.shape[0], -1)
        if not to_input:
            dh_KSJ = qkv.inner_gradient(dqkv_TO, work_KP)
            qkv.add_gradients(dqkv_TO, normed_TD, hq_KSJ, dh_KSJ, batch, grad_KP)
            return dx_TD
        dnormed_TD, dh_KSJ = qkv.input_gradient(dqkv_TO, batch, work_KP)
        qkv.add_gradients(dqkv_TO, normed_TD, hq_KSJ, dh_KSJ, batch, grad_KP)
        fast.rms_norm_backward_(dx_TD, dnormed_TD, x_TD, layer.input_norm, rstd_T)
        return dx_TD

    def _norm(self, x_TD: Tensor, weight_D: Tensor) -> tuple[Tensor, Tensor]:
        normed_TD, rstd_T = self._ops.rms_norm(x_TD, weight_D, self.base.shape.epsilon)
        return normed_TD, rstd_T

    def head(self, x_TD: Tensor, batch: Batch, *, gradient: bool) -> tuple[Tensor, Any]:
        """Losses of the supervised positions and, with `gradient`, that of their sum, [T, D]."""
        base, tokens = self.base, x_TD.shape[0]
        picked_MD = x_TD[batch.where.clamp(max=tokens - 1)]
        normed_MD, rstd_M = self._norm(picked_MD, base.norm)
        losses_M = torch.empty(batch.where.shape[0], device=x_TD.device)
        step = max(1, LOGITS_AT_ONCE // base.shape.vocabulary)
        for start in range(0, batch.where.shape[0], step):
            rows = slice(start, start + step)
            logits_mV = normed_MD[rows] @ base.head.T
            targets_m = batch.targets[rows]
            losses_M[rows] = self._ops.cross_entropy_(logits_mV, targets_m, gradient=gradient)
            if gradient:
                torch.mm(logits_mV, base.head, out=normed_MD[rows])  # the gradient takes its place
            del logits_mV
        if not gradient:
            return losses_M, None
        dpicked_MD = torch.zeros_like(picked_MD)
        self._ops.rms_norm_backward_(dpicked_MD, normed_MD, picked_MD, base.norm, rstd_M)
        dx_UD = x_TD.new_zeros(tokens + 1, x_TD.shape[1])  # unused entries go to the last row
        dx_UD.index_copy_(0, batch.where, dpicked_MD)
        return losses_M, dx_UD[:tokens]

    def _sums(self, losses_M: Tensor, batch: Batch, slots: int) -> Tensor:
        tokens = batch.ids.shape[0]
        spread_U = losses_M.new_zeros(tokens + 1).index_copy_(0, batch.where, losses_M)
        return spread_U[:tokens].view(slots, -1).sum(1)


class _Linear:
    """The projections of one group, and the adapters on them, all slots' at once."""

    def __init__(self, weights: Group, places: list[Place], rank: int, ops: ModuleType) -> None:
        """`places` of those that are adapted; `ops` for dropout."""
        self._weights, self._places, self._rank, self._ops = weights, places, rank, ops

    def forward(
        self, x_TI: Tensor, batch: Batch, work_KP: Tensor, plus_TO: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """plus + x · Wᵀ + bias + LoRA, and LoRA's h."""
        matrix_IO, bias_O = self._weights.matrix().T, self._weights.bias
        h_KSJ = self._inner(x_TI, batch, work_KP)
        all_adapted = len(self._places) == len(self._weights.widths)
        if h_KSJ is not None and all_adapted and plus_TO is None and bias_O is None:
            # LoRA first: what it writes is read where the large product ends, which costs nothing
            y_TO = x_TI.new_empty(x_TI.shape[0], sum(self._weights.widths))
            for y_KSo, b_KRo, h_KSR in self._parts(y_TO, h_KSJ, work_KP):
                torch.bmm(h_KSR, b_KRo, out=y_KSo)
            return y_TO.addmm_(x_TI, matrix_IO), h_KSJ
        if plus_TO is not None:
            y_TO = torch.addmm(plus_TO, x_TI, matrix_IO)
            if bias_O is not None:
                y_TO.add_(bias_O)
        else:
            y_TO = x_TI @ matrix_IO if bias_O is None else torch.addmm(bias_O, x_TI, matrix_IO)
        if h_KSJ is not None:
            for y_KSo, b_KRo, h_KSR in self._parts(y_TO, h_KSJ, work_KP):
                y_KSo.baddbmm_(h_KSR, b_KRo)
        return y_TO, h_KSJ

    def input_gradient(
        self, dy_TO: Tensor, batch: Batch, work_KP: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of the input x, and that of LoRA's h."""
        matrix_OI = self._weights.matrix()
        dh_KSJ = self.inner_gradient(dy_TO, work_KP)
        if dh_KSJ is None:
            return dy_TO @ matrix_OI, None
        a_KJI = joint_first(work_KP, self._places, self._rank)
        if batch.rate is None:
            dx_TI = torch.bmm(dh_KSJ, a_KJI).view(dy_TO.shape[0], -1)
            return dx_TI.addmm_(dy_TO, matrix_OI), dh_KSJ
        dx_TI = dy_TO @ matrix_OI
        for place in self._places:
            lora_TI = torch.bmm(dh_KSJ[:, :, place.ranks], a_KJI[:, place.ranks]).view(dx_TI.shape)
            self._ops.dropout_add_(dx_TI, lora_TI, batch.rate, batch.seeds, place.number)
        return dx_TI, dh_KSJ

    def inner_gradient(self, dy_TO: Tensor, work_KP: Tensor) -> Tensor | None:
        """The gradient of LoRA's h; None where nothing is adapted."""
        if not self._places:
            return None
        slots = work_KP.shape[0]
        ranks = len(self._places) * self._rank
        dh_KSJ = dy_TO.new_empty(slots, dy_TO.shape[0] // slots, ranks)
        for place in self._places:
            dy_KSo = _by_slot(dy_TO, work_KP)[:, :, place.columns]
            dh_KSJ[:, :, place.ranks] = torch.bmm(dy_KSo, second(work_KP, place, self._rank))
        return dh_KSJ

    def add_gradients(
        self,
        dy_TO: Tensor,
        x_TI: Tensor,
        h_KSJ: Tensor | None,
        dh_KSJ: Tensor | None,
        batch: Batch,
        grad_KP: Tensor,
    ) -> None:
        """Add the gradients of lora_A and lora_B (without LoRA's scale, which `work` has in B)."""
        if h_KSJ is None or dh_KSJ is None:
            return
        da_KJI = joint_first(grad_KP, self._places, self._rank)
        if batch.rate is None:
            _accumulate(da_KJI, dh_KSJ.transpose(1, 2), _by_slot(x_TI, grad_KP))
        for place in self._places:
            if batch.rate is not None:
                dropped_TI = self._ops.dropout(x_TI, batch.rate, batch.seeds, place.number)
                dh_KRS = dh_KSJ[:, :, place.ranks].transpose(1, 2)
                _accumulate(da_KJI[:, place.ranks], dh_KRS, _by_slot(dropped_TI, grad_KP))
            dy_KSo = _by_slot(dy_TO, grad_KP)[:, :, place.columns]
            db_KoR = second(grad_KP, place, self._rank)
            _accumulate(db_KoR, dy_KSo.transpose(1, 2), h_KSJ[:, :, place.ranks])

    def _inner(self, x_TI: Tensor, batch: Batch, work_KP: Tensor) -> Tensor | None:
        """x · lora_Aᵀ of the adapted projections, each with a dropout of its own."""
        if not self._places:
            return None
        a_KJI = joint_first(work_KP, self._places, self._rank)
        if batch.rate is None:
            return torch.bmm(_by_slot(x_TI, work_KP), a_KJI.transpose(1, 2))
        parts = []
        for place in self._places:
            dropped_TI = self._ops.dropout(x_TI, batch.rate, batch.seeds, place.number)
            a_KIR = a_KJI[:, place.ranks].transpose(1, 2)
            parts.append(torch.bmm(_by_slot(dropped_TI, work_KP), a_KIR))
        return torch.cat(parts, dim=2)

    def _parts(
        self, y_TO: Tensor, h_KSJ: Tensor, work_KP: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The columns of y of each adapted projection, its lora_Bᵀ and its h."""
        for place in self._places:
            b_KRo = second(work_KP, place, self._rank).transpose(1, 2)
            yield _by_slot(y_TO, work_KP)[:, :, place.columns], b_KRo, h_KSJ[:, :, place.ranks]


def _by_slot(x_TI: Tensor, work_KP: Tensor) -> Tensor:
    """[T, I] as [K, S, I]."""
    return x_TI.view(work_KP.shape[0], -1, x_TI.shape[1])


def _accumulate(grad_KXY: Tensor, a_KXS: Tensor, b_KSY: Tensor) -> None:
    """grad += a · b, in float32 whatever the factors are; X and Y are sides of a matrix."""
    if a_KXS.dtype == torch.float32:
        grad_KXY.baddbmm_(a_KXS, b_KSY)
    else:
        grad_KXY.add_(torch.bmm(a_KXS, b_KSY, out_dtype=torch.float32))
