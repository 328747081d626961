"""Products of a base held in FP8, as transformers computes them: weights, their inputs and the
gradients of their outputs rounded to e4m3, with a scale a row.

Promise: none of the bank's code, which is proved by it. A scale is a power of two, so a rounded
number has four significant bits: bfloat16 holds it, and rounding it again changes nothing.
Price: several passes over what is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sftray.trial.decoder_layers import decoder_layers

LARGEST = 448.0
"""Of e4m3 (Micikevicius et al. 2022, arXiv:2209.05433)."""
SMALLEST_POWER = -100
"""Of a row's scale, 2 to it: of a row of zeros, too."""


class Fp8Linear(nn.Linear):
    """A linear layer whose weight is rounded; it rounds its input, and the gradient of its output
    before it multiplies that with the weight."""

    def forward(self, input: Tensor) -> Tensor:
        return in_fp8(input, super().forward)


def round_products(model: PreTrainedModel) -> None:
    """Make the linear layers of the decoder compute in FP8; the head stays as it is."""
    for layer in decoder_layers(model):
        for module in layer.modules():
            if type(module) is nn.Linear:
                module.weight.data = rounded(module.weight.data)
                module.__class__ = Fp8Linear


def computes_in_fp8(model: nn.Module) -> bool:
    """Whether `round_products` has been applied."""
    return any(isinstance(module, Fp8Linear) for module in model.modules())


def in_fp8(x: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
    """The product with a rounded weight, as FP8 units compute it, but for the order of sums.

    The gradient is rounded before it meets the rows' scales of the weight: powers of two change no
    rounding but that of numbers 2¹⁴ times smaller than the largest.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    y: Tensor = _RoundGradient.apply(product(_RoundInput.apply(x)))  # type: ignore[no-untyped-call]
    return y


def rounded(x: Tensor) -> Tensor:
    """Every row of x [..., width] at the smallest power of two by which none of its numbers is
    above LARGEST, rounded to e4m3."""
    exact = x.float()
    fraction, power = torch.frexp(exact.abs().amax(-1, keepdim=True) / LARGEST)
    power = torch.where(fraction == 0.5, power - 1, power).clamp(min=SMALLEST_POWER)
    codes = torch.ldexp(exact, -power).to(torch.float8_e4m3fn)
    return torch.ldexp(codes.float(), power).to(x.dtype)


class _RoundInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return rounded(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _RoundGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return rounded(gradients[0])
