"""Products of layers that bitsandbytes holds in 4 or 8 bits, as trials compute them.

Promise: training and evaluation multiply with the same decoded weights, and gradients pass through.
Price: one decoded matrix at a time.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn


def plain_products(model: nn.Module, dtype: torch.dtype) -> None:
    """Have quantised layers multiply with their decoded weights in `dtype`, in training and in
    evaluation alike (bitsandbytes 0.50, nn/modules.py and autograd/_functions.py).

    Linear4bit would be repacked for inference on AVX512-BF16 CPUs in the first no-grad forward in
    eval mode, and gradients through the base be silently gone from then on. Linear8bitLt would
    round its inputs to 8 bits, too, but for training on a CPU.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010
            setattr(module, "compute_dtype", dtype)  # noqa: B010  of a checkpoint: what it says
        elif type(module).__name__ == "Linear8bitLt":
            module.forward = functools.partial(_in_8_bits, module)


def _in_8_bits(module: Any, x: torch.Tensor) -> torch.Tensor:
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    y: torch.Tensor = _Product8bit.apply(x, module)  # type: ignore[no-untyped-call]
    bias = module.bias
    return y if bias is None else y + bias.to(y.dtype)


class _Product8bit(torch.autograd.Function):
    """x [..., input] times the weight of a Linear8bitLt, decoded in both passes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: Any) -> torch.Tensor:
        ctx.module = module
        return x @ _matrix_of_8_bits(module).to(x.dtype).T

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (dy,) = gradients
        return dy @ _matrix_of_8_bits(ctx.module).to(dy.dtype), None


def _matrix_of_8_bits(module: Any) -> torch.Tensor:
    from bitsandbytes.functional import int8_vectorwise_dequant

    dense: torch.Tensor = int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
    return dense
