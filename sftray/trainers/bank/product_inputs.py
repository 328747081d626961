"""What comes to a layer's products: normed states, gated activations and their gradients; on an
FP8 base with their codes, which the kernels that write them write too.

Price of a code: a byte, and nothing is read for it. Names of tensors end in their shape, as in
`decoder`.
"""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from sftray.plan.layer_description import Description
from sftray.trainers.bank.frozen_base import Codes, Group

Rounded = tuple[Tensor, Tensor]
"""Codes, [T, I], and the rows' scales, [T, 1]."""


class ProductInputs:
    """Of one layer."""

    def __init__(
        self, groups: list[Group], ops: ModuleType, epsilon: float, description: Description
    ) -> None:
        self._ops, self._epsilon, self._gelu = ops, epsilon, description.gelu
        self._centred = description.family.centred
        self._gate_up: Codes | None = groups[2].codes

    def norm(self, x_TD: Tensor, weight_D: Tensor | None) -> tuple[Tensor, Tensor, Rounded | None]:
        """x normed, 1 / rms, and its codes; x itself, twice, where a layer has no norm."""
        if weight_D is None:
            return x_TD, x_TD, None
        if self._centred:
            given_TD = distance_from_mean(x_TD)
            normed_TD, rstd_T = self._ops.rms_norm(given_TD, weight_D, self._epsilon)
            return normed_TD.to(x_TD.dtype), rstd_T, None
        if self._gate_up is None:
            return *self._ops.rms_norm(x_TD, weight_D, self._epsilon), None
        normed_TD, rstd_T, rounded = self._ops.rms_norm_rounded(x_TD, weight_D, self._epsilon)
        return normed_TD, rstd_T, rounded

    def glu(self, gate_up_TG: Tensor) -> tuple[Tensor, Rounded | None]:
        """act(gate) × up, [T, F], and its codes."""
        if self._gate_up is None:
            return self._ops.glu(gate_up_TG, gelu=self._gelu), None
        active_TF, rounded = self._ops.glu_rounded(gate_up_TG, gelu=self._gelu)
        return active_TF, rounded

    def glu_backward_(self, gate_up_TG: Tensor, da_TF: Tensor) -> Rounded | None:
        """Overwrite gate_up with its gradient, whose codes come back, and the activation's gradient
        with the activation."""
        if self._gate_up is None:
            self._ops.glu_backward_(gate_up_TG, da_TF, gelu=self._gelu)
            return None
        factor_1G = self._gate_up.factor_1O
        rounded: Rounded = self._ops.glu_backward_rounded_(
            gate_up_TG, da_TF, factor_1G, gelu=self._gelu
        )
        return rounded


def distance_from_mean(x_TD: Tensor) -> Tensor:
    """What LayerNorm (Ba et al. 2016, arXiv:1607.06450) divides by its rms, float32."""
    return x_TD.float() - x_TD.float().mean(1, keepdim=True)
