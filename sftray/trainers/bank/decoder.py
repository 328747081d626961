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

from typing import Any

import torch
from torch import Tensor

from sftray.plan.bank_settings import LOGITS_AT_ONCE
from sftray.trainers.bank.adapted_linear import AdaptedLinear
from sftray.trainers.bank.adapters import Layout
from sftray.trainers.bank.backend import fastest
from sftray.trainers.bank.batches import Batch
from sftray.trainers.bank.frozen_base import Base
from sftray.trainers.bank.packed_attention import BankAttention, possible
from sftray.trainers.bank.product_inputs import ProductInputs, Rounded, distance_from_mean
from sftray.trainers.bank.rotary import Rotary


class Decoder:
    """A base with room for adapters of one layout."""

    def __init__(
        self, base: Base, layout: Layout, max_length: int, attention: str | None, reach: int = 0
    ) -> None:
        """`attention` as in TrialConfig; reach: how far a text may grow beyond a row."""
        self.base, self.layout, self.max_length = base, layout, max_length
        self._attentions = possible(base.shape, base.dtype, base.device, attention)
        kinds, longest = base.description.kinds, max_length + reach
        self._rotary = Rotary(base, longest)
        self._windows = [k.window if k.window and k.window < longest else None for k in kinds]
        self._ops = fastest(base.device)
        description, epsilon = base.description, base.shape.epsilon
        self._parallel, self._centred = description.family.parallel, description.family.centred
        self._inputs = [
            ProductInputs(layer.groups, self._ops, epsilon, description) for layer in base.layers
        ]
        self._linears = [
            [
                AdaptedLinear(weights, layout.of(index, group), layout.rank, self._ops)
                for group, weights in enumerate(layer.groups)
            ]
            for index, layer in enumerate(base.layers)
        ]

    @property
    def attention(self) -> BankAttention:
        """What it computes attention with."""
        return self._attentions[0]

    def linear(self, layer: int, group: int) -> AdaptedLinear:
        """The projections of a layer that share an input."""
        return self._linears[layer][group]

    def pass_over(self) -> bool:
        """Take the next attention that may run here; False where there is none."""
        if len(self._attentions) > 1:
            del self._attentions[0]
            return True
        return False

    def embed(self, ids_T: Tensor) -> Tensor:
        """What comes to the first layer, [T, D]."""
        x_TD = self.base.embedding[ids_T]
        return x_TD if self.base.multiplier == 1 else x_TD.mul_(self.base.multiplier)

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
        x_TD = self.embed(batch.ids)
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
        batch.documents.masks.clear()
        return self._sums(losses_M, batch, work_KP.shape[0])

    def _last(
        self, batch: Batch, work_KP: Tensor, attention: BankAttention | None = None
    ) -> Tensor:
        """The last layer's output, with nothing kept."""
        x_TD = self.embed(batch.ids)
        for index in range(self.base.shape.layers):
            x_TD, _ = self.layer(x_TD, index, batch, work_KP, attention)
        batch.documents.masks.clear()
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
        inputs = self._inputs[index]
        normed_TD, rstd_T, codes = inputs.norm(x_TD, layer.before_attention)
        qkv_TO, hq_KSJ = qkv.forward(normed_TD, batch, work_KP, codes=codes)
        heads_THE = qkv_TO.view(x_TD.shape[0], -1, shape.head_dim)
        raw_THE = None
        if layer.head_norms is not None:
            raw_THE = heads_THE
            heads_THE = fast.head_norm(raw_THE, layer.head_norms, shape.epsilon)
        elif layer.joint_norms is not None:
            raw_THE = heads_THE
            heads_THE = self._joint_norm(raw_THE, layer.joint_norms)
        self._rotary.turn_(heads_THE, index, batch)
        attend = (attention or self.attention).forward
        mixed_TQE, attended = attend(heads_THE, batch.documents, self._windows[index])
        mixed_TI = mixed_TQE.reshape(x_TD.shape[0], -1)
        ends = (layer.after_attention, batch, work_KP)
        middle_TD, branch, ho_KSJ = self._added(out, mixed_TI, x_TD, *ends)
        normed2_TD, rstd2_T = normed_TD, rstd_T
        if not self._parallel:
            normed2_TD, rstd2_T, codes = inputs.norm(middle_TD, layer.before_mlp)
        gate_up_TG, hg_KSJ = gate_up.forward(normed2_TD, batch, work_KP, codes=codes)
        active_TF, codes = inputs.glu(gate_up_TG)
        ends = (layer.after_mlp, batch, work_KP)
        out_TD, branch2, hd_KSJ = self._added(down, active_TF, middle_TD, *ends, codes)
        first = (x_TD, normed_TD, rstd_T, hq_KSJ, raw_THE, heads_THE, mixed_TI, attended, ho_KSJ)
        rest = (middle_TD, normed2_TD, rstd2_T, hg_KSJ, gate_up_TG, hd_KSJ)
        return out_TD, (first, branch, rest, branch2)

    def _added(
        self,
        linear: AdaptedLinear,
        x_TI: Tensor,
        plus_TD: Tensor,
        norm_D: Tensor | None,
        batch: Batch,
        work_KP: Tensor,
        codes: Rounded | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None, Tensor | None]:
        """A branch's end on top of the residual sum `plus`; where a norm comes between, what it was
        given and its 1 / rms; and LoRA's h."""
        if norm_D is None:
            factor = self.base.description.residual
            sum_TD, h_KSJ = linear.forward(x_TI, batch, work_KP, plus_TD, factor, codes)
            return sum_TD, None, h_KSJ
        branch_TD, h_KSJ = linear.forward(x_TI, batch, work_KP, codes=codes)
        sum_TD, rstd_T = self._ops.rms_norm(branch_TD, norm_D, self.base.shape.epsilon, plus_TD)
        return sum_TD, (branch_TD, rstd_T), h_KSJ

    def _branch_gradient(
        self, dx_TD: Tensor, branch: tuple[Tensor, Tensor] | None, norm_D: Tensor | None
    ) -> Tensor:
        """The gradient of a branch's end before its norm, of that of the residual sum."""
        if branch is None or norm_D is None:
            factor = self.base.description.residual
            return dx_TD if factor == 1 else dx_TD * factor
        dbranch_TD = torch.empty_like(dx_TD)
        branch_TD, rstd_T = branch
        self._ops.rms_norm_backward_(dbranch_TD, dx_TD, branch_TD, norm_D, rstd_T, add=False)
        return dbranch_TD

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
        first, branch, rest, branch2 = saved
        middle_TD, normed2_TD, rstd2_T, hg_KSJ, gate_up_TG, hd_KSJ = rest
        x_TD, normed_TD, rstd_T, hq_KSJ, raw_THE, heads_THE, mixed_TI, attended, ho_KSJ = first

        dbranch_TD = self._branch_gradient(dx_TD, branch2, layer.after_mlp)
        dactive_TF, dh_KSJ = down.input_gradient(dbranch_TD, batch, work_KP)
        codes = self._inputs[index].glu_backward_(gate_up_TG, dactive_TF)
        active_TF, dgate_up_TG = dactive_TF, gate_up_TG
        down.add_gradients(dbranch_TD, active_TF, hd_KSJ, dh_KSJ, batch, grad_KP)
        dnormed2_TD, dh_KSJ = gate_up.input_gradient(dgate_up_TG, batch, work_KP, codes)
        gate_up.add_gradients(dgate_up_TG, normed2_TD, hg_KSJ, dh_KSJ, batch, grad_KP)
        if not self._parallel:
            self._norm_gradient_(dx_TD, dnormed2_TD, middle_TD, layer.before_mlp, rstd2_T)

        dbranch_TD = self._branch_gradient(dx_TD, branch, layer.after_attention)
        dmixed_TI, dh_KSJ = out.input_gradient(dbranch_TD, batch, work_KP)
        out.add_gradients(dbranch_TD, mixed_TI, ho_KSJ, dh_KSJ, batch, grad_KP)
        dheads_THE = torch.empty_like(heads_THE)
        dmixed_TQE = dmixed_TI.view(-1, shape.heads, shape.head_dim)
        where = (batch.documents, self._windows[index])
        self.attention.backward(dmixed_TQE, heads_THE, attended, *where, dheads_THE)
        self._rotary.turn_(dheads_THE, index, batch, back=True)
        if layer.head_norms is not None:
            fast.head_norm_backward_(dheads_THE, raw_THE, layer.head_norms, shape.epsilon)
        elif layer.joint_norms is not None:
            self._joint_norm_gradient_(dheads_THE, raw_THE, layer.joint_norms)
        dqkv_TO = dheads_THE.view(x_TD.shape[0], -1)
        if not to_input:
            dh_KSJ = qkv.inner_gradient(dqkv_TO, work_KP)
            qkv.add_gradients(dqkv_TO, normed_TD, hq_KSJ, dh_KSJ, batch, grad_KP)
            return dx_TD
        dnormed_TD, dh_KSJ = qkv.input_gradient(dqkv_TO, batch, work_KP)
        qkv.add_gradients(dqkv_TO, normed_TD, hq_KSJ, dh_KSJ, batch, grad_KP)
        if self._parallel:
            dnormed_TD.add_(dnormed2_TD)
        self._norm_gradient_(dx_TD, dnormed_TD, x_TD, layer.before_attention, rstd_T)
        return dx_TD

    def _joint_norm(self, raw_THE: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """All query heads normed as one, and all key heads; value heads copied."""
        heads_THE = raw_THE.clone()
        for part, weight in zip(self._joint_parts(heads_THE), weights, strict=True):
            normed, _ = self._ops.rms_norm(part.flatten(1), weight, self.base.shape.epsilon)
            part.copy_(normed.view_as(part))
        return heads_THE

    def _joint_norm_gradient_(
        self, dheads_THE: Tensor, raw_THE: Tensor, weights: tuple[Tensor, Tensor]
    ) -> None:
        both = (self._joint_parts(dheads_THE), self._joint_parts(raw_THE))
        for slope, part, weight in zip(*both, weights, strict=True):
            x, dx = part.flatten(1), torch.empty_like(part.flatten(1))
            _, rstd = self._ops.rms_norm(x, weight, self.base.shape.epsilon)
            self._ops.rms_norm_backward_(dx, slope.flatten(1), x, weight, rstd, add=False)
            slope.copy_(dx.view_as(slope))

    def _joint_parts(self, heads_THE: Tensor) -> tuple[Tensor, ...]:
        return torch.split(heads_THE, self.base.shape.split, dim=1)[:2]

    def _norm(self, x_TD: Tensor, weight_D: Tensor) -> tuple[Tensor, Tensor]:
        """x normed, and 1 / rms."""
        given_TD = distance_from_mean(x_TD) if self._centred else x_TD
        normed_TD, rstd_T = self._ops.rms_norm(given_TD, weight_D, self.base.shape.epsilon)
        return normed_TD.to(x_TD.dtype), rstd_T

    def _norm_gradient_(
        self, dx_TD: Tensor, dy_TD: Tensor, x_TD: Tensor, weight_D: Tensor | None, rstd_T: Tensor
    ) -> None:
        """Add to dx the gradient of `_norm`'s x."""
        if weight_D is None:
            dx_TD.add_(dy_TD)
        elif self._centred:
            slope_TD = torch.empty_like(x_TD, dtype=torch.float32)
            given = (distance_from_mean(x_TD), weight_D, rstd_T)
            self._ops.rms_norm_backward_(slope_TD, dy_TD, *given, add=False)
            dx_TD.add_(distance_from_mean(slope_TD))
        else:
            self._ops.rms_norm_backward_(dx_TD, dy_TD, x_TD, weight_D, rstd_T)

    def head(self, x_TD: Tensor, batch: Batch, *, gradient: bool) -> tuple[Tensor, Any]:
        """Losses of the supervised positions and, with `gradient`, that of their sum, [T, D]."""
        base, tokens = self.base, x_TD.shape[0]
        picked_MD = x_TD[batch.where.clamp(max=tokens - 1)]
        normed_MD, rstd_M = self._norm(picked_MD, base.norm)
        losses_M = torch.empty(batch.where.shape[0], device=x_TD.device)
        cap = base.description.cap
        most = LOGITS_AT_ONCE // (2 if cap else 1)  # those before the cap are kept beside them
        step = _even(batch.where.shape[0], max(1, most // base.shape.vocabulary))
        for start in range(0, batch.where.shape[0], step):
            rows = slice(start, start + step)
            logits_mV = normed_MD[rows] @ base.head.T
            squashed_mV = None
            if cap:
                squashed_mV = logits_mV.div_(cap).tanh_()
                logits_mV = squashed_mV * cap
            targets_m = batch.targets[rows]
            losses_M[rows] = self._ops.cross_entropy_(logits_mV, targets_m, gradient=gradient)
            if gradient:
                if squashed_mV is not None:
                    _tanh_gradient_(logits_mV, squashed_mV)
                torch.mm(logits_mV, base.head, out=normed_MD[rows])  # the gradient takes its place
            del logits_mV, squashed_mV
        if not gradient:
            return losses_M, None
        dpicked_MD = torch.zeros_like(picked_MD)
        self._norm_gradient_(dpicked_MD, normed_MD, picked_MD, base.norm, rstd_M)
        dx_UD = x_TD.new_zeros(tokens + 1, x_TD.shape[1])  # unused entries go to the last row
        dx_UD.index_copy_(0, batch.where, dpicked_MD)
        return losses_M, dx_UD[:tokens]

    def _sums(self, losses_M: Tensor, batch: Batch, slots: int) -> Tensor:
        tokens = batch.ids.shape[0]
        spread_U = losses_M.new_zeros(tokens + 1).index_copy_(0, batch.where, losses_M)
        return spread_U[:tokens].view(slots, -1).sum(1)


def _tanh_gradient_(dy_mV: Tensor, tanh_mV: Tensor) -> None:
    """Turn the gradient of cap · tanh(x / cap) into that of x."""
    torch.ops.aten.tanh_backward.grad_input(dy_mV, tanh_mV, grad_input=dy_mV)


def _even(count: int, most: int) -> int:
    """Rows of a chunk, at most so many: as few chunks as there must be, all but the last as large,
    in whole tiles of the product."""
    chunks = -(-count // most)
    return min(most, -(-count // (128 * max(chunks, 1))) * 128)
