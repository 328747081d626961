"""The bank's small operations in plain PyTorch: what runs on the CPU, and what the GPU kernels of
`kernels` must equal.

Promise: every function of this file has a twin of the same name and arguments in `kernels`, tested
against it; statistics and sums are float32 whatever the inputs are; a NaN stays in its own token or
row. T is tokens, R packed rows, K slots, P parameters a slot, all tensors contiguous. A trailing
underscore means that arguments are overwritten, as in PyTorch.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

LR, BETA1, BETA2, EPS, DECAY, CORRECTION1, CORRECTION2, LORA_SCALE, MAX_NORM = range(9)
"""The columns of the optimizer's float32 [K, 9] table."""


def fastest(device: torch.device) -> ModuleType:
    """This file, or on a GPU with Triton its twin."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from sftray.trainers.bank import triton_kernels

        return triton_kernels
    return sys.modules[__name__]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Root-mean-square norm of x [T, d], and 1 / rms as float32 [T]."""
    rstd = torch.rsqrt(x.float().square().mean(1) + eps)
    return weight * (x.float() * rstd[:, None]).to(x.dtype), rstd


def rms_norm_backward_(dx: Tensor, dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> None:
    """Add the gradient of x to dx [T, d]; the weight is frozen."""
    dx.add_(_norm_gradient(dy, x, weight, rstd[:, None]))


def head_norm(qkv: Tensor, weights: Tensor, eps: float) -> Tensor:
    """RMS norm of every query and key head (Qwen3). qkv [T, heads, D], weights [normed, D]: the
    first `normed` heads are normed, the value heads copied."""
    normed = weights.shape[0]
    heads = qkv[:, :normed].float()
    rstd = torch.rsqrt(heads.square().mean(2, keepdim=True) + eps)
    out = qkv.clone()
    out[:, :normed] = weights * (heads * rstd).to(qkv.dtype)
    return out


def head_norm_backward_(dqkv: Tensor, qkv: Tensor, weights: Tensor, eps: float) -> None:
    """Turn the gradient of `head_norm`'s result into that of its argument `qkv`."""
    normed = weights.shape[0]
    heads = qkv[:, :normed]
    rstd = torch.rsqrt(heads.float().square().mean(2, keepdim=True) + eps)
    dqkv[:, :normed] = _norm_gradient(dqkv[:, :normed], heads, weights, rstd)


def rope_(qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, rotated: int) -> None:
    """Rotate the first `rotated` heads of qkv [T, heads, D] in place, halves as in Llama.

    cos and sin are tables [positions, D]; with −sin it is the backward pass. positions [T].
    """
    heads = qkv[:, :rotated]
    half = heads.shape[2] // 2
    turned = torch.cat((-heads[..., half:], heads[..., :half]), dim=2)
    heads.copy_(heads * cos[positions][:, None] + turned * sin[positions][:, None])


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) × up of [T, 2 · inner]: gate in the first half, up in the second."""
    gate, up = gate_up.chunk(2, dim=1)
    return functional.silu(gate) * up


def swiglu_backward_(gate_up: Tensor, da: Tensor) -> None:
    """Overwrite gate_up with its gradient, and the activation's gradient da with the activation."""
    gate, up = gate_up.chunk(2, dim=1)
    sigmoid = torch.sigmoid(gate.float())
    silu = gate.float() * sigmoid
    dgate = da.float() * up.float() * (sigmoid + silu * (1 - sigmoid))
    dup = da.float() * silu
    da.copy_(silu.to(gate.dtype) * up)
    gate.copy_(dgate)
    up.copy_(dup)


def cross_entropy_(logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
    """Losses in nats, float32 [n], of logits [n, V]; 0 where the target is negative.

    With `gradient`, logits become the gradient of the sum of the losses.
    """
    values = logits.float()
    counted = targets >= 0
    index = targets.clamp(min=0)[:, None]
    log_sum = torch.logsumexp(values, dim=1)
    losses = torch.where(counted, log_sum - values.gather(1, index)[:, 0], 0.0)
    if gradient:
        slope = torch.exp(values - log_sum[:, None])
        slope.scatter_add_(1, index, torch.full_like(index, -1, dtype=slope.dtype))
        logits.copy_(torch.where(counted[:, None], slope, 0.0))
    return losses


def dropout(x: Tensor, rate: Tensor, seeds: Tensor, module: int) -> Tensor:
    """x [T, d] with elements dropped at each row's rate, the others scaled by 1 / (1 − rate).

    rate float32 [R], seeds int64 [R]: whether an element is kept is a hash of (seed of its packed
    row, module, position in the row, feature), so that slot, neighbours, micro-batch and resume do
    not matter. The hash is the 32-bit finaliser of MurmurHash3.
    """
    rows, width = rate.shape[0], x.shape[1]
    length = x.shape[0] // rows
    element = torch.arange(length * width, device=x.device).view(1, -1)
    salt = _mix(seeds[:, None] & _MASK) ^ _mix((seeds[:, None] >> 32 & _MASK) + module * _STEP)
    kept = _mix(element * _STEP + salt) >= (rate.double() * 2**32).long()[:, None]
    scale = 1.0 / (1.0 - rate[:, None])
    return torch.where(kept, x.view(rows, -1) * scale, 0.0).to(x.dtype).view_as(x)


def dropout_add_(dx: Tensor, dy: Tensor, rate: Tensor, seeds: Tensor, module: int) -> None:
    """Add the gradient of `dropout`'s x to dx [T, d]; dy is that of its result."""
    dx.add_(dropout(dy, rate, seeds, module))


def row_norms(grad: Tensor, table: Tensor, split: int) -> Tensor:
    """The norm of each slot's gradient, float32 [K]. grad [K, P]: lora_A's before `split`, after it
    lora_B's, which lack LoRA's scale."""
    first = torch.linalg.vector_norm(grad[:, :split], dim=1)
    second = torch.linalg.vector_norm(grad[:, split:], dim=1) * table[:, LORA_SCALE]
    return torch.hypot(first, second)


def adamw_(
    param: Tensor,
    grad: Tensor,
    moments: tuple[Tensor, Tensor],
    work: Tensor,
    table: Tensor,
    factor: Tensor,
    due: Tensor,
    split: int,
) -> None:
    """One AdamW step (Loshchilov & Hutter, arXiv:1711.05101) of the slots that are due, whose
    gradients are then zero; the others are untouched.

    param, grad and moments float32 [K, P], lora_A before `split`, lora_B after it; work [K, P] is
    the copy that the model computes with, lora_B times LoRA's scale. factor float32 [K] multiplies
    the gradient (1 / supervised tokens × clipping), due bool [K].
    """
    for k in torch.nonzero(due)[:, 0].tolist():
        row = table[k]
        rate, beta1, beta2 = row[LR], row[BETA1], row[BETA2]
        slope = grad[k] * factor[k]
        slope[split:] *= row[LORA_SCALE]
        first, second = moments[0][k], moments[1][k]
        first.lerp_(slope, 1 - beta1)
        second.mul_(beta2).addcmul_(slope, slope * (1 - beta2))
        param[k].mul_(1 - rate * row[DECAY])
        bottom = (second.sqrt() / row[CORRECTION2].sqrt()).add_(row[EPS])
        param[k].sub_(rate / row[CORRECTION1] * first / bottom)
        copy_work(param[k], work[k], row[LORA_SCALE], split)
        grad[k].zero_()


def copy_work(param: Tensor, work: Tensor, scale: Tensor | float, split: int) -> None:
    """Refresh one slot's working copy [P] from its parameters."""
    work[:split].copy_(param[:split])
    work[split:].copy_(param[split:] * scale)


def _norm_gradient(dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> Tensor:
    """Gradient of x for y = weight · x · rstd, over the last dimension; in x's dtype."""
    slope = dy.float() * weight.float()
    normed = x.float() * rstd
    inner = (slope * normed).mean(-1, keepdim=True)
    return ((slope - normed * inner) * rstd).to(x.dtype)


_MASK = 0xFFFFFFFF
_STEP = 0x9E3779B9  # 2³² / golden ratio: consecutive elements start far apart


def _mix(x: Tensor) -> Tensor:
    """MurmurHash3's finaliser on the low 32 bits of int64."""
    x = x & _MASK
    x = (x ^ (x >> 16)) * 0x85EBCA6B & _MASK
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & _MASK
    return x ^ (x >> 16)
