"""The bank's small operations in plain PyTorch: what runs on the CPU, and what the GPU kernels of
`kernels` must equal.

Promise: every function of this file has a twin of the same name and arguments in `kernels`, tested
against it; statistics and sums are float32 whatever the inputs are; a NaN stays in its own token or
row. All tensors are contiguous. A trailing underscore means that arguments are overwritten, as in
PyTorch.

Names of tensors end in their shape:
    T tokens of all slots    D features of a token    V vocabulary    M supervised positions
    H heads: query, key, value    h the first of them    E features of a head    L positions known
    I, O inputs and outputs of a product
    F features of the feed-forward    G 2 · F: gate, then up    N packed rows    X elements of a row
    K slots    P parameters of a slot    C columns of the optimizer's table
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LR, BETA1, BETA2, EPS, DECAY, CORRECTION1, CORRECTION2, LORA_SCALE, MAX_NORM = COLUMNS = range(9)
"""The columns of the optimizer's float32 [K, 9] table."""


def quantise(x_TI: Tensor, factor_1I: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes in e4m3 of x, or of x · factor, and their float32 scale a row, [T, 1]: the smallest
    power of two by which nothing is above 448. Dividing by it rounds nothing.

    A row with an infinity has the scale NaN, so that all of its products are.
    """
    values_TI = x_TI.float() if factor_1I is None else x_TI.float() * factor_1I.float()
    largest_T1 = values_TI.abs().amax(1, keepdim=True)
    bits_T1 = largest_T1.view(torch.int32)  # exponent above 2⁻¹²⁷, then 23 bits of the fraction
    power_T1 = (bits_T1 >> 23) - LARGEST_EXPONENT + (bits_T1 & 0x7FFFFF > LARGEST_FRACTION).int()
    power_T1.clamp_(min=SMALLEST_POWER)
    codes_TI = (values_TI * _power_of_2(-power_T1)).to(torch.float8_e4m3fn)
    return codes_TI, _power_of_2(power_T1).where(largest_T1.isfinite(), torch.nan)


def scaled_product(
    left: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
    bias_O: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """left · rightᵀ + bias, [T, O], of codes [T, I] and [O, I] with scales [T, 1] and [1, O]; the
    sum is float32, rounded to dtype."""
    (codes_TI, scale_T1), (codes_OI, scale_1O) = left, right
    y_TO = (codes_TI.float() * scale_T1) @ (codes_OI.float() * scale_1O.T).T
    return (y_TO if bias_O is None else y_TO + bias_O.float()).to(dtype)


def rms_norm(
    x_TD: Tensor, weight_D: Tensor, eps: float, plus_TD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Root-mean-square norm of every token, on top of `plus`, and 1 / rms as float32 [T].

    What is normed is rounded to the weight's dtype before it is multiplied, the product to x's.
    """
    rstd_T = torch.rsqrt(x_TD.float().square().mean(1) + eps)
    normed_TD = (x_TD.float() * rstd_T[:, None]).to(weight_D.dtype)
    out_TD = (weight_D * normed_TD).to(x_TD.dtype)
    return out_TD if plus_TD is None else plus_TD + out_TD, rstd_T


def rms_norm_rounded(
    x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """`rms_norm`, and its result quantised."""
    out_TD, rstd_T = rms_norm(x_TD, weight_D, eps)
    return out_TD, rstd_T, quantise(out_TD)


def rms_norm_backward_(
    dx_TD: Tensor,
    dy_TD: Tensor,
    x_TD: Tensor,
    weight_D: Tensor,
    rstd_T: Tensor,
    *,
    add: bool = True,
) -> None:
    """Add the gradient of x to dx, or without `add` write it there; the weight is frozen."""
    gradient_TD = _norm_gradient(dy_TD, x_TD, weight_D, rstd_T[:, None])
    dx_TD.add_(gradient_TD) if add else dx_TD.copy_(gradient_TD)


def head_norm(qkv_THE: Tensor, weights_hE: Tensor, eps: float) -> Tensor:
    """RMS norm of every query and key head (Qwen3), rounded as in `rms_norm`: the first h heads are
    normed, the value heads copied."""
    normed = weights_hE.shape[0]
    heads_ThE = qkv_THE[:, :normed].float()
    rstd_Th1 = torch.rsqrt(heads_ThE.square().mean(2, keepdim=True) + eps)
    out_THE = qkv_THE.clone()
    out_THE[:, :normed] = weights_hE * (heads_ThE * rstd_Th1).to(weights_hE.dtype)
    return out_THE


def head_norm_backward_(dqkv_THE: Tensor, qkv_THE: Tensor, weights_hE: Tensor, eps: float) -> None:
    """Turn the gradient of `head_norm`'s result into that of its argument `qkv`."""
    normed = weights_hE.shape[0]
    heads_ThE = qkv_THE[:, :normed]
    rstd_Th1 = torch.rsqrt(heads_ThE.float().square().mean(2, keepdim=True) + eps)
    dqkv_THE[:, :normed] = _norm_gradient(dqkv_THE[:, :normed], heads_ThE, weights_hE, rstd_Th1)


def rope_(
    qkv_THE: Tensor,
    cos_LE: Tensor,
    sin_LE: Tensor,
    positions_T: Tensor,
    rotated: int,
    *,
    interleaved: bool = False,
) -> None:
    """Rotate the first `rotated` heads in place, as many features of each as the tables have:
    halves as in Llama, or neighbours as in GLM-4. With −sin it is the backward pass."""
    heads_ThE = qkv_THE[:, :rotated, : cos_LE.shape[1]]
    half = heads_ThE.shape[2] // 2
    if interleaved:
        pairs = (-heads_ThE[..., 1::2], heads_ThE[..., ::2])
        turned_ThE = torch.stack(pairs, dim=3).flatten(2)
    else:
        turned_ThE = torch.cat((-heads_ThE[..., half:], heads_ThE[..., :half]), dim=2)
    heads_ThE.copy_(
        heads_ThE * cos_LE[positions_T][:, None] + turned_ThE * sin_LE[positions_T][:, None]
    )


def glu(gate_up_TG: Tensor, *, gelu: bool) -> Tensor:
    """act(gate) × up, [T, F]: SiLU, or GELU by tanh (Hendrycks & Gimpel, arXiv:1606.08415)."""
    gate_TF, up_TF = gate_up_TG.chunk(2, dim=1)
    if gelu:
        return functional.gelu(gate_TF, approximate="tanh") * up_TF
    return functional.silu(gate_TF) * up_TF


def glu_backward_(gate_up_TG: Tensor, da_TF: Tensor, *, gelu: bool) -> None:
    """Overwrite gate_up with its gradient, and the activation's gradient da with the activation.

    Both activations are gate × sigmoid(z): of SiLU z is the gate, of GELU by tanh a cubic of it.
    """
    gate_TF, up_TF = gate_up_TG.chunk(2, dim=1)
    g_TF = gate_TF.float()
    z_TF, slope_TF = _gelu_inner(g_TF) if gelu else (g_TF, 1.0)
    sigmoid_TF = torch.sigmoid(z_TF)
    act_TF = g_TF * sigmoid_TF
    dgate_TF = da_TF.float() * up_TF.float() * (sigmoid_TF + act_TF * (1 - sigmoid_TF) * slope_TF)
    dup_TF = da_TF.float() * act_TF
    da_TF.copy_(act_TF.to(gate_TF.dtype) * up_TF)
    gate_TF.copy_(dgate_TF)
    up_TF.copy_(dup_TF)


def glu_rounded(gate_up_TG: Tensor, *, gelu: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """`glu`, and its result quantised."""
    out_TF = glu(gate_up_TG, gelu=gelu)
    return out_TF, quantise(out_TF)


def glu_backward_rounded_(
    gate_up_TG: Tensor, da_TF: Tensor, factor_1G: Tensor, *, gelu: bool
) -> tuple[Tensor, Tensor]:
    """`glu_backward_`; and the gradient of gate_up, times a factor, quantised."""
    glu_backward_(gate_up_TG, da_TF, gelu=gelu)
    return quantise(gate_up_TG, factor_1G)


def cross_entropy_(logits_MV: Tensor, targets_M: Tensor, *, gradient: bool) -> Tensor:
    """Losses in nats, float32 [M]; 0 where the target is negative.

    With `gradient`, logits become the gradient of the sum of the losses.
    """
    values_MV = logits_MV.float()
    counted_M = targets_M >= 0
    index_M1 = targets_M.clamp(min=0)[:, None]
    log_sum_M = torch.logsumexp(values_MV, dim=1)
    losses_M = torch.where(counted_M, log_sum_M - values_MV.gather(1, index_M1)[:, 0], 0.0)
    if gradient:
        slope_MV = torch.exp(values_MV - log_sum_M[:, None])
        slope_MV.scatter_add_(1, index_M1, torch.full_like(index_M1, -1, dtype=slope_MV.dtype))
        logits_MV.copy_(torch.where(counted_M[:, None], slope_MV, 0.0))
    return losses_M


def dropout(x_TD: Tensor, rate_N: Tensor, seeds_N: Tensor, module: int) -> Tensor:
    """x with elements dropped at each packed row's rate, the others scaled by 1 / (1 − rate).

    rate is float32, seeds int64: whether an element is kept is a hash of (seed of its packed row,
    module, position in the row, feature), so that slot, neighbours, micro-batch and resume do not
    matter. The hash is the 32-bit finaliser of MurmurHash3.
    """
    rows, width = rate_N.shape[0], x_TD.shape[1]
    length = x_TD.shape[0] // rows
    element_1X = torch.arange(length * width, device=x_TD.device).view(1, -1)
    salt_N1 = _mix(seeds_N[:, None] & _MASK) ^ _mix(
        (seeds_N[:, None] >> 32 & _MASK) + module * _STEP
    )
    kept_NX = _mix(element_1X * _STEP + salt_N1) >= (rate_N.double() * 2**32).long()[:, None]
    scale_N1 = 1.0 / (1.0 - rate_N[:, None])
    return torch.where(kept_NX, x_TD.view(rows, -1) * scale_N1, 0.0).to(x_TD.dtype).view_as(x_TD)


def dropout_add_(
    dx_TD: Tensor, dy_TD: Tensor, rate_N: Tensor, seeds_N: Tensor, module: int
) -> None:
    """Add the gradient of `dropout`'s x to dx; dy is that of its result."""
    dx_TD.add_(dropout(dy_TD, rate_N, seeds_N, module))


def row_norms(grad_KP: Tensor, table_KC: Tensor, split: int) -> Tensor:
    """The norm of each slot's gradient, float32 [K]. grad has lora_A's before `split`, after it
    lora_B's, which lack LoRA's scale."""
    first_K = torch.linalg.vector_norm(grad_KP[:, :split], dim=1)
    second_K = torch.linalg.vector_norm(grad_KP[:, split:], dim=1) * table_KC[:, LORA_SCALE]
    return torch.hypot(first_K, second_K)


def adamw_(
    param_KP: Tensor,
    grad_KP: Tensor,
    moments_KP: tuple[Tensor, Tensor],
    work_KP: Tensor,
    table_KC: Tensor,
    factor_K: Tensor,
    due_K: Tensor,
    split: int,
) -> None:
    """One AdamW step (Loshchilov & Hutter, arXiv:1711.05101) of the slots that are due, whose
    gradients are then zero; the others are untouched.

    param, grad and moments are float32, lora_A before `split`, lora_B after it; work is the copy
    that the model computes with, lora_B times LoRA's scale. factor, float32, multiplies the
    gradient (1 / supervised tokens × clipping); due is bool.
    """
    for k in torch.nonzero(due_K)[:, 0].tolist():
        row_C = table_KC[k]
        rate, beta1, beta2 = row_C[LR], row_C[BETA1], row_C[BETA2]
        slope_P = grad_KP[k] * factor_K[k]
        slope_P[split:] *= row_C[LORA_SCALE]
        first_P, second_P = moments_KP[0][k], moments_KP[1][k]
        first_P.lerp_(slope_P, 1 - beta1)
        second_P.mul_(beta2).addcmul_(slope_P, slope_P * (1 - beta2))
        param_KP[k].mul_(1 - rate * row_C[DECAY])
        bottom_P = (second_P.sqrt() / row_C[CORRECTION2].sqrt()).add_(row_C[EPS])
        param_KP[k].sub_(rate / row_C[CORRECTION1] * first_P / bottom_P)
        copy_work(param_KP[k], work_KP[k], row_C[LORA_SCALE], split)
        grad_KP[k].zero_()


def copy_work(param_P: Tensor, work_P: Tensor, scale: Tensor | float, split: int) -> None:
    """Refresh one slot's working copy from its parameters."""
    work_P[:split].copy_(param_P[:split])
    work_P[split:].copy_(param_P[split:] * scale)


def _norm_gradient(dy_D: Tensor, x_D: Tensor, weight_D: Tensor, rstd_1: Tensor) -> Tensor:
    """Gradient of x for y = weight · x · rstd, in x's dtype; dimensions before D may be any."""
    slope_D = dy_D.float() * weight_D.float()
    normed_D = x_D.float() * rstd_1
    inner_1 = (slope_D * normed_D).mean(-1, keepdim=True)
    return ((slope_D - normed_D * inner_1) * rstd_1).to(x_D.dtype)


GELU_LINEAR, GELU_CUBIC = 1.5957691216057308, 0.07135481282052482
"""√(8 / π) and 0.044715 of it: GELU by tanh is x · sigmoid(√(8 / π) · (x + 0.044715 x³))."""


def _gelu_inner(gate_TF: Tensor) -> tuple[Tensor, Tensor]:
    """What the sigmoid of GELU by tanh is taken of, and its derivative."""
    square_TF = gate_TF.square()
    z_TF = gate_TF * (GELU_LINEAR + GELU_CUBIC * square_TF)
    return z_TF, GELU_LINEAR + 3 * GELU_CUBIC * square_TF


LARGEST_EXPONENT, LARGEST_FRACTION = 127 + 8, 0x600000
"""Of 448 = 1.75 · 2⁸ in float32's bits, e4m3's largest number."""
SMALLEST_POWER = -100
"""Of a scale, 2 to it: of a row of zeros, too."""


def _power_of_2(power: Tensor) -> Tensor:
    """float32 by its bits, of int32 in -126 … 127."""
    return ((power + 127) << 23).view(torch.float32)


_MASK = 0xFFFFFFFF
_STEP = 0x9E3779B9  # 2³² / golden ratio: consecutive elements start far apart


def _mix(x: Tensor) -> Tensor:
    """MurmurHash3's finaliser on the low 32 bits of int64."""
    x = x & _MASK
    x = (x ^ (x >> 16)) * 0x85EBCA6B & _MASK
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & _MASK
    return x ^ (x >> 16)
