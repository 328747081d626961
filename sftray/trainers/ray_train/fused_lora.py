"""LoRA layers as one autograd function each, in place of PEFT's forward pass.

Promise: y = x · Wᵀ + bias + scaling · dropout(x) · Aᵀ · Bᵀ and its gradients, as PEFT computes
them; a 4-bit W is dequantised to what bitsandbytes multiplies with. PEFT clones the base's output,
scales LoRA's and adds the two: five passes over the output that a product does on its way. Price:
LoRA's inner activations, rank × 2 bytes a token and layer, are kept for the backward pass.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

ADAPTER = "default"
"""The name of the one adapter, as PEFT gives it."""


def fuse_lora(model: nn.Module) -> int:
    """Give the plain LoRA layers of a PEFT model this forward pass; returns how many.

    Layers with a variant (DoRA …), a bias of LoRA's own, or a base that is neither dense nor NF4
    keep PEFT's.
    """
    layers = [module for module in model.modules() if _is_plain(module)]
    for layer in layers:
        layer.forward = functools.partial(_forward, layer)
    return len(layers)


def make_resident(model: nn.Module) -> None:
    """Replace 4-bit linear layers by dense ones of the dequantised weights: the same numbers,
    without dequantising them in every pass."""
    for parent in list(model.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            if type(child).__name__ != "Linear4bit":
                continue
            dense = nn.Linear(child.in_features, child.out_features, bias=False, device="meta")
            dense.weight = nn.Parameter(_matrix(child), requires_grad=False)
            dense.bias = child.bias
            setattr(parent, name, dense)


def _is_plain(module: nn.Module) -> bool:
    if not isinstance(module, LoraLayer) or list(module.lora_A) != [ADAPTER]:
        return False
    base = module.get_base_layer()
    return (
        (type(base) is nn.Linear or type(base).__name__ == "Linear4bit")
        and not module.lora_variant
        and not module.lora_bias[ADAPTER]
    )


def _forward(layer: Any, x: Tensor) -> Tensor:
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    first, second = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    dropout = layer.lora_dropout[ADAPTER]
    rate = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    y: Tensor = _Lora.apply(  # type: ignore[no-untyped-call]
        x, first, second, layer.get_base_layer(), layer.scaling[ADAPTER], rate
    )
    return y


class _Lora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, first: Tensor, second: Tensor, base: Any, scaling: float, rate: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        a, b = first.to(x.dtype), (second * scaling).to(x.dtype)
        dropped, kept = torch.native_dropout(flat, rate, True) if rate else (flat, None)
        inner = dropped @ a.T
        matrix = _matrix(base).to(x.dtype)
        if base.bias is None:  # what LoRA writes is read where the large product ends
            y = (inner @ b.T).addmm_(flat, matrix.T)
        else:
            y = torch.addmm(base.bias.to(x.dtype), flat, matrix.T).addmm_(inner, b.T)
        ctx.base, ctx.scaling, ctx.rate, ctx.shape = base, scaling, rate, x.shape
        ctx.save_for_backward(flat, inner, a, b, kept)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, a, b, kept = ctx.saved_tensors
        dy = dy.reshape(-1, dy.shape[-1]).to(flat.dtype)
        dinner = dy @ b
        dropped = flat if kept is None else flat * kept / (1 - ctx.rate)
        da, db = _float32(dinner.T, dropped), _float32(dy.T, inner).mul_(ctx.scaling)
        if not ctx.needs_input_grad[0]:  # the first layer's: the embedding is frozen
            return None, da, db, None, None, None
        dx = dinner @ a
        if kept is not None:
            dx = dx.mul_(kept).div_(1 - ctx.rate)
        dx.addmm_(dy, _matrix(ctx.base).to(dy.dtype))
        return dx.view(ctx.shape), da, db, None, None, None


def _matrix(base: Any) -> Tensor:
    """A linear layer's weight [output, input], dequantised if it is 4-bit."""
    weight = base.weight
    # a weight that was spread over workers has lost its state; then the module has it
    state = getattr(weight, "quant_state", None) or getattr(base, "quant_state", None)
    if state is None:
        return weight.data  # type: ignore[no-any-return]
    from bitsandbytes.functional import dequantize_4bit

    dense: Tensor = dequantize_4bit(weight.data, state)
    return dense


def _float32(left: Tensor, right: Tensor) -> Tensor:
    """left · right in float32, whatever the factors are."""
    if left.dtype == torch.float32:
        return left @ right
    if left.device.type == "cuda":
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()
