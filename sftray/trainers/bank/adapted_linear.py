"""Products with the base's projections of a group, and with the adapters on them, all slots'.

Promise: forward, gradient of the input and those of lora_A and lora_B, written out; dropout is each
projection's own. On an FP8 base only the base's products round: adapters multiply with what came.
Names of tensors end in their shape, as in `decoder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from sftray.trainers.bank.adapters import Place, joint_first, second
from sftray.trainers.bank.batches import Batch
from sftray.trainers.bank.frozen_base import Codes, Group
from sftray.trainers.bank.product_inputs import Rounded


class AdaptedLinear:
    """The projections of one group, and the adapters on them, all slots' at once."""

    def __init__(self, weights: Group, places: list[Place], rank: int, ops: ModuleType) -> None:
        """`places` of those that are adapted; `ops` for dropout."""
        self._weights, self._places, self._rank, self._ops = weights, places, rank, ops

    def forward(
        self,
        x_TI: Tensor,
        batch: Batch,
        work_KP: Tensor,
        plus_TO: Tensor | None = None,
        factor: float = 1.0,
        codes: Rounded | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """plus + factor · (x · Wᵀ + bias + LoRA), and LoRA's h; without `plus` the factor is 1.
        `codes` are those of x on an FP8 base, where they are there."""
        h_KSJ = self._inner(x_TI, batch, work_KP)
        if self._weights.codes is not None:
            y_TO = self._product_fp8(self._weights.codes, x_TI, codes)
            self._add_lora(y_TO, h_KSJ, work_KP)
            return y_TO if plus_TO is None else plus_TO.add(y_TO, alpha=factor), h_KSJ
        matrix_IO, bias_O = self._weights.matrix().T, self._weights.bias
        all_adapted = len(self._places) == len(self._weights.widths)
        if h_KSJ is not None and all_adapted and plus_TO is None and bias_O is None:
            # LoRA first: what it writes is read where the large product ends, which costs nothing
            y_TO = x_TI.new_empty(x_TI.shape[0], sum(self._weights.widths))
            for y_KSo, b_KRo, h_KSR in self._parts(y_TO, h_KSJ, work_KP):
                torch.bmm(h_KSR, b_KRo, out=y_KSo)
            return y_TO.addmm_(x_TI, matrix_IO), h_KSJ
        if plus_TO is not None:
            y_TO = torch.addmm(plus_TO, x_TI, matrix_IO, alpha=factor)
            if bias_O is not None:
                y_TO.add_(bias_O, alpha=factor)
        else:
            y_TO = x_TI @ matrix_IO if bias_O is None else torch.addmm(bias_O, x_TI, matrix_IO)
        self._add_lora(y_TO, h_KSJ, work_KP, factor)
        return y_TO, h_KSJ

    def input_gradient(
        self, dy_TO: Tensor, batch: Batch, work_KP: Tensor, codes: Rounded | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of the input x, and that of LoRA's h. `codes`, where they are there, are
        those of dy times the weight's scale."""
        dh_KSJ = self.inner_gradient(dy_TO, work_KP)
        if dh_KSJ is None:
            return self._base_gradient(dy_TO, codes), None
        a_KJI = joint_first(work_KP, self._places, self._rank)
        if batch.rate is None and self._weights.codes is None:
            dx_TI = torch.bmm(dh_KSJ, a_KJI).view(dy_TO.shape[0], -1)
            return dx_TI.addmm_(dy_TO, self._weights.matrix()), dh_KSJ
        dx_TI = self._base_gradient(dy_TO, codes)
        if batch.rate is None:
            _by_slot(dx_TI, work_KP).baddbmm_(dh_KSJ, a_KJI)
            return dx_TI, dh_KSJ
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

    def _product_fp8(self, weights: Codes, x_TI: Tensor, left: Rounded | None) -> Tensor:
        """x · Wᵀ + bias of the rounded x."""
        right, bias_O = (weights.forward_OI, weights.scale_1O), self._weights.bias
        left = left or self._ops.quantise(x_TI)
        y_TO: Tensor = self._ops.scaled_product(left, right, bias_O, x_TI.dtype)
        return y_TO

    def _base_gradient(self, dy_TO: Tensor, left: Rounded | None) -> Tensor:
        """dy · W, on an FP8 base of the rounded dy."""
        weights = self._weights.codes
        if weights is None:
            return dy_TO @ self._weights.matrix()
        left = left or self._ops.quantise(dy_TO, weights.factor_1O)
        right = weights.backward_IO, weights.ones_1I
        dx_TI: Tensor = self._ops.scaled_product(left, right, None, dy_TO.dtype)
        return dx_TI

    def _add_lora(
        self, y_TO: Tensor, h_KSJ: Tensor | None, work_KP: Tensor, factor: float = 1.0
    ) -> None:
        if h_KSJ is not None:
            for y_KSo, b_KRo, h_KSR in self._parts(y_TO, h_KSJ, work_KP):
                y_KSo.baddbmm_(h_KSR, b_KRo, alpha=factor)

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
