# mypy: allow-untyped-decorators
"""The twins of `ops` as Triton kernels, for CUDA; what each function computes is said there.

Promise: same names, arguments and results as in `ops`, rounded to the tensors' dtype at the same
points; dropout's masks are the same bits. Nothing waits for the GPU, launches depend on shapes
alone (a CUDA graph can hold them all), and without atomics two runs give the same bits.
Price: every tensor is read once and written once, the logits read twice; a kernel is compiled at
its first launch with new widths, which must not be inside a capture.

Names end in shapes as in `ops`: in a kernel those of pointers in the shape of the whole tensor,
those of what is loaded in the shape of the program's part of it. B is rows of a part, 8 the logits
of a lane, Z half of a head's features, S partial sums.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sftray.trainers.bank import torch_ops
from sftray.trainers.bank.torch_ops import (
    copy_work as copy_work,  # two copies, which PyTorch does as well
)

_TILE = 2048  # elements a program: 4 warps × 32 lanes × 16
_LOGITS_TILE = 16384  # 32 warps: few rows at once, so that the L2 cache holds much of each
_ADAMW_TILE = 1024  # over 8 warps 4 elements a lane, for float32 and bfloat16 alike
FEW_ROWS = 16
"""With fewer cuBLAS has no such product that adds a bias (PyTorch 2.11, H200)."""
_ROW_TILE = 4096  # elements of a row at a time
_NORM_TILE, _NORM_CHUNK = 4096, 65536  # a chunk of tiles for each partial sum


def quantise(x_TI: Tensor, factor_1I: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One program a row, which is read from memory once, and again from the cache."""
    rows, width = x_TI.shape
    codes_TI, scale_T1 = codes = _codes(rows, width, x_TI.device)
    block = min(_ROW_TILE, triton.next_power_of_2(width))
    scaled = factor_1I is not None
    _quantise[(rows,)](
        x_TI,
        factor_1I if scaled else scale_T1,
        codes_TI,
        scale_T1,
        width,
        scaled,
        triton.cdiv(width, block),
        block,
        num_warps=_warps(block),
    )
    return codes


def scaled_product(
    left: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
    bias_O: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """cuBLAS with fast accumulation: on an H200 a row is off by 0.2, 0.4 and 0.5 % at 4,096, 14,336
    and 28,672 numbers a sum, by 0.2 % without it, where rounding to e4m3 makes 2.7 %."""
    (codes_TI, scale_T1), (codes_OI, scale_1O) = left, right
    few = codes_TI.shape[0] < FEW_ROWS
    product = torch._scaled_mm(
        codes_TI,
        codes_OI.T,
        scale_a=scale_T1,
        scale_b=scale_1O,
        bias=None if few else bias_O,
        out_dtype=dtype,
        use_fast_accum=True,
    )
    return product if bias_O is None or not few else product.add_(bias_O)


def rms_norm(
    x_TD: Tensor, weight_D: Tensor, eps: float, plus_TD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One program a token, which it holds in registers: D up to 16,384."""
    return _launch_rms_norm(x_TD, weight_D, eps, plus_TD, None)


def rms_norm_rounded(
    x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """One program a token, as `rms_norm`."""
    codes = _codes(x_TD.shape[0], x_TD.shape[1], x_TD.device)
    return *_launch_rms_norm(x_TD, weight_D, eps, None, codes), codes


def rms_norm_backward_(
    dx_TD: Tensor,
    dy_TD: Tensor,
    x_TD: Tensor,
    weight_D: Tensor,
    rstd_T: Tensor,
    *,
    add: bool = True,
) -> None:
    """One program a token, as `rms_norm`."""
    tokens, width = x_TD.shape
    block = triton.next_power_of_2(width)
    grid = (tokens,)
    _rms_norm_backward[grid](
        dx_TD, dy_TD, x_TD, weight_D, rstd_T, width, add, block, num_warps=_warps(block)
    )


def head_norm(qkv_THE: Tensor, weights_hE: Tensor, eps: float) -> Tensor:
    """Some heads a program, whichever token's."""
    tokens, heads, width = qkv_THE.shape
    out_THE = torch.empty_like(qkv_THE)
    rows, block = tokens * heads, triton.next_power_of_2(width)
    batch = max(_TILE // block, 1)
    grid = (triton.cdiv(rows, batch),)
    _head_norm[grid](
        qkv_THE, weights_hE, out_THE, eps, rows, heads, weights_hE.shape[0], width, batch, block
    )
    return out_THE


def head_norm_backward_(dqkv_THE: Tensor, qkv_THE: Tensor, weights_hE: Tensor, eps: float) -> None:
    """Some normed heads a program, whichever token's."""
    tokens, heads, width = qkv_THE.shape
    normed = weights_hE.shape[0]
    rows, block = tokens * normed, triton.next_power_of_2(width)
    batch = max(_TILE // block, 1)
    grid = (triton.cdiv(rows, batch),)
    _head_norm_backward[grid](
        dqkv_THE, qkv_THE, weights_hE, eps, rows, heads, normed, width, batch, block
    )


def rope_(
    qkv_THE: Tensor,
    cos_LE: Tensor,
    sin_LE: Tensor,
    positions_T: Tensor,
    rotated: int,
    *,
    interleaved: bool = False,
) -> None:
    """Some heads of one token a program. E even."""
    tokens, heads, width = qkv_THE.shape
    turned = cos_LE.shape[1]
    block = triton.next_power_of_2(turned // 2)
    batch = min(max(_TILE // (2 * block), 1), triton.next_power_of_2(rotated))
    blocks = triton.cdiv(rotated, batch)
    grid = (tokens * blocks,)
    warps = _warps(2 * batch * block)
    _rope[grid](
        qkv_THE,
        cos_LE,
        sin_LE,
        positions_T,
        heads,
        rotated,
        width,
        turned,
        interleaved,
        blocks,
        batch,
        block,
        num_warps=warps,
    )


def glu(gate_up_TG: Tensor, *, gelu: bool) -> Tensor:
    """A part of one token a program."""
    tokens, inner = gate_up_TG.shape[0], gate_up_TG.shape[1] // 2
    out_TF = gate_up_TG.new_empty(tokens, inner)
    block = min(_TILE, triton.next_power_of_2(inner))
    blocks = triton.cdiv(inner, block)
    _glu[(tokens * blocks,)](gate_up_TG, out_TF, inner, gelu, blocks, block)
    return out_TF


def glu_backward_(gate_up_TG: Tensor, da_TF: Tensor, *, gelu: bool) -> None:
    """A part of one token a program; the activation has the bits of `glu`'s."""
    tokens, inner = da_TF.shape
    block = min(_TILE, triton.next_power_of_2(inner))
    blocks = triton.cdiv(inner, block)
    _glu_backward[(tokens * blocks,)](gate_up_TG, da_TF, inner, gelu, blocks, block)


def glu_rounded(gate_up_TG: Tensor, *, gelu: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One program a token, which reads again what it has written, from the cache."""
    tokens, inner = gate_up_TG.shape[0], gate_up_TG.shape[1] // 2
    out_TF = gate_up_TG.new_empty(tokens, inner)
    codes_TF, scale_T1 = codes = _codes(tokens, inner, gate_up_TG.device)
    block = min(_ROW_TILE, triton.next_power_of_2(inner))
    _glu_rounded[(tokens,)](
        gate_up_TG,
        out_TF,
        codes_TF,
        scale_T1,
        inner,
        gelu,
        triton.cdiv(inner, block),
        block,
        num_warps=_warps(block),
    )
    return out_TF, codes


def glu_backward_rounded_(
    gate_up_TG: Tensor, da_TF: Tensor, factor_1G: Tensor, *, gelu: bool
) -> tuple[Tensor, Tensor]:
    """One program a token, as `glu_rounded`."""
    tokens, inner = da_TF.shape
    codes_TG, scale_T1 = codes = _codes(tokens, 2 * inner, da_TF.device)
    block = min(_ROW_TILE // 2, triton.next_power_of_2(inner))
    _glu_backward_rounded[(tokens,)](
        gate_up_TG,
        da_TF,
        factor_1G,
        codes_TG,
        scale_T1,
        inner,
        gelu,
        triton.cdiv(inner, block),
        block,
        num_warps=_warps(block),
    )
    return codes


def cross_entropy_(logits_MV: Tensor, targets_M: Tensor, *, gradient: bool) -> Tensor:
    """One program a row; a row without a target is not read."""
    rows, width = logits_MV.shape
    losses_M = logits_MV.new_empty(rows, dtype=torch.float32)
    block = max(min(_LOGITS_TILE, triton.next_power_of_2(width)), 8)
    blocks = triton.cdiv(width, block)
    _cross_entropy[(rows,)](
        logits_MV, targets_M, losses_M, width, gradient, blocks, block, num_warps=_warps(block)
    )
    return losses_M


def dropout(x_TD: Tensor, rate_N: Tensor, seeds_N: Tensor, module: int) -> Tensor:
    """A part of one packed row a program."""
    out_TD = torch.empty_like(x_TD)
    _launch_dropout(x_TD, out_TD, rate_N, seeds_N, module, add=False)
    return out_TD


def dropout_add_(
    dx_TD: Tensor, dy_TD: Tensor, rate_N: Tensor, seeds_N: Tensor, module: int
) -> None:
    """A part of one packed row a program."""
    _launch_dropout(dy_TD, dx_TD, rate_N, seeds_N, module, add=True)


def row_norms(grad_KP: Tensor, table_KC: Tensor, split: int) -> Tensor:
    """Sums of squares of chunks of 65,536 elements, in float32, then their sum."""
    slots, size = grad_KP.shape
    chunks = triton.cdiv(size, _NORM_CHUNK)
    sums_KS = grad_KP.new_empty(slots, chunks)
    grid = (chunks, slots)
    _square_sums[grid](
        grad_KP,
        table_KC,
        sums_KS,
        size,
        split,
        table_KC.shape[1],
        _NORM_CHUNK,
        _NORM_TILE,
        num_warps=8,
    )
    return sums_KS.sum(1).sqrt_()


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
    """One launch for all slots; the programs of a slot that is not due return at once."""
    slots, size = param_KP.shape
    grid = (triton.cdiv(size, _ADAMW_TILE), slots)
    first_KP, second_KP = moments_KP
    _adamw[grid](
        param_KP,
        grad_KP,
        first_KP,
        second_KP,
        work_KP,
        table_KC,
        factor_K,
        due_K,
        size,
        split,
        table_KC.shape[1],
        _ADAMW_TILE,
        num_warps=8,
    )


def _launch_rms_norm(
    x_TD: Tensor,
    weight_D: Tensor,
    eps: float,
    plus_TD: Tensor | None,
    codes: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    tokens, width = x_TD.shape
    out_TD, rstd_T = torch.empty_like(x_TD), x_TD.new_empty(tokens, dtype=torch.float32)
    block = triton.next_power_of_2(width)
    plus, rounds = plus_TD is not None, codes is not None
    codes_TD, scale_T1 = codes or (out_TD, rstd_T)
    _rms_norm[(tokens,)](
        x_TD,
        weight_D,
        plus_TD if plus else x_TD,
        out_TD,
        rstd_T,
        codes_TD,
        scale_T1,
        eps,
        width,
        plus,
        rounds,
        block,
        num_warps=_warps(block),
    )
    return out_TD, rstd_T


def _codes(rows: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Room for the codes of as many rows, and their scales."""
    codes = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=device)
    return codes, torch.empty(rows, 1, device=device)


def _launch_dropout(
    x_TD: Tensor, out_TD: Tensor, rate_N: Tensor, seeds_N: Tensor, module: int, *, add: bool
) -> None:
    rows = rate_N.shape[0]
    size = x_TD.numel() // rows
    _dropout[(triton.cdiv(size, _TILE), rows)](
        x_TD, out_TD, rate_N, seeds_N, module, size, add, _TILE
    )


def _warps(elements: int) -> int:
    """Warps with 16 elements a lane: two 16-byte loads of bfloat16."""
    return min(max(elements // 512, 1), 32)


@triton.jit
def _quantise(
    x_TI: tl.tensor,
    factor_1I: tl.tensor,
    codes_TI: tl.tensor,
    scale_T1: tl.tensor,
    WIDTH: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns_I = tl.arange(0, BLOCK)
    largest_I = tl.zeros([BLOCK], tl.float32)
    for block in range(BLOCKS):
        place_I = block * BLOCK + columns_I
        inside_I = place_I < WIDTH
        values_I = tl.load(x_TI + row * WIDTH + place_I, mask=inside_I, other=0.0).to(tl.float32)
        if SCALED:
            values_I *= tl.load(factor_1I + place_I, mask=inside_I, other=0.0).to(tl.float32)
        largest_I = tl.maximum(largest_I, tl.abs(values_I))
    scale, inverse = _row_scale(tl.max(largest_I, 0))
    tl.store(scale_T1 + row, scale)
    for block in range(BLOCKS):
        place_I = block * BLOCK + columns_I
        inside_I = place_I < WIDTH
        values_I = tl.load(x_TI + row * WIDTH + place_I, mask=inside_I, other=0.0).to(tl.float32)
        if SCALED:
            values_I *= tl.load(factor_1I + place_I, mask=inside_I, other=0.0).to(tl.float32)
        codes_I = (values_I * inverse).to(codes_TI.dtype.element_ty)
        tl.store(codes_TI + row * WIDTH + place_I, codes_I, mask=inside_I)


@triton.jit
def _row_scale(largest: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """A row's scale and its inverse, of what is largest in it: a NaN, which the maximum passes by,
    is a code of its own."""
    bits = largest.to(tl.int32, bitcast=True)
    power = (bits >> 23) - _LARGEST_EXPONENT
    power += tl.where((bits & 0x7FFFFF) > _LARGEST_FRACTION, 1, 0)
    power = tl.maximum(power, _SMALLEST_POWER)
    scale = ((power + 127) << 23).to(tl.float32, bitcast=True)
    inverse = ((127 - power) << 23).to(tl.float32, bitcast=True)
    return tl.where(largest < float("inf"), scale, float("nan")), inverse


@triton.jit
def _rms_norm(
    x_TD: tl.tensor,
    weight_D: tl.tensor,
    plus_TD: tl.tensor,
    out_TD: tl.tensor,
    rstd_T: tl.tensor,
    codes_TD: tl.tensor,
    scale_T1: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    PLUS: tl.constexpr,
    ROUNDS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns_D = tl.arange(0, BLOCK)
    inside_D = columns_D < WIDTH
    values_D = tl.load(x_TD + row * WIDTH + columns_D, mask=inside_D, other=0.0).to(tl.float32)
    weights_D = tl.load(weight_D + columns_D, mask=inside_D, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values_D * values_D, 0) / WIDTH + eps)
    normed_D = (values_D * scale).to(weight_D.dtype.element_ty).to(tl.float32)
    result_D = weights_D * normed_D
    if PLUS:
        before_D = tl.load(plus_TD + row * WIDTH + columns_D, mask=inside_D, other=0.0)
        result_D = before_D.to(tl.float32) + result_D.to(x_TD.dtype.element_ty).to(tl.float32)
    tl.store(out_TD + row * WIDTH + columns_D, result_D, mask=inside_D)
    tl.store(rstd_T + row, scale)
    if ROUNDS:
        result_D = result_D.to(x_TD.dtype.element_ty).to(tl.float32)
        size, inverse = _row_scale(tl.max(tl.abs(result_D), 0))
        codes_D = (result_D * inverse).to(codes_TD.dtype.element_ty)
        tl.store(codes_TD + row * WIDTH + columns_D, codes_D, mask=inside_D)
        tl.store(scale_T1 + row, size)


@triton.jit
def _rms_norm_backward(
    dx_TD: tl.tensor,
    dy_TD: tl.tensor,
    x_TD: tl.tensor,
    weight_D: tl.tensor,
    rstd_T: tl.tensor,
    WIDTH: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns_D = tl.arange(0, BLOCK)
    inside_D = columns_D < WIDTH
    places_D = row * WIDTH + columns_D
    values_D = tl.load(x_TD + places_D, mask=inside_D, other=0.0).to(tl.float32)
    slopes_D = tl.load(dy_TD + places_D, mask=inside_D, other=0.0).to(tl.float32)
    weights_D = tl.load(weight_D + columns_D, mask=inside_D, other=0.0).to(tl.float32)
    if ADD:
        before_D = tl.load(dx_TD + places_D, mask=inside_D, other=0.0).to(tl.float32)
    scale = tl.load(rstd_T + row)
    slopes_D *= weights_D
    normed_D = values_D * scale
    inner = tl.sum(slopes_D * normed_D, 0) / WIDTH
    gradient_D = ((slopes_D - normed_D * inner) * scale).to(x_TD.dtype.element_ty).to(tl.float32)
    if ADD:
        gradient_D += before_D
    tl.store(dx_TD + places_D, gradient_D, mask=inside_D)


@triton.jit
def _head_norm(
    qkv_THE: tl.tensor,
    weights_hE: tl.tensor,
    out_THE: tl.tensor,
    eps: tl.tensor,
    rows: tl.tensor,
    HEADS: tl.constexpr,
    NORMED: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row_B1 = tl.program_id(0) * BATCH + tl.arange(0, BATCH)[:, None]
    feature_1E = tl.arange(0, BLOCK)[None, :]
    head_B1 = row_B1 % HEADS
    inside_BE = (row_B1 < rows) & (feature_1E < WIDTH)
    places_BE = row_B1.to(tl.int64) * WIDTH + feature_1E
    raw_BE = tl.load(qkv_THE + places_BE, mask=inside_BE, other=0.0)
    weight_BE = tl.load(
        weights_hE + head_B1 * WIDTH + feature_1E, mask=inside_BE & (head_B1 < NORMED), other=0.0
    ).to(tl.float32)
    values_BE = raw_BE.to(tl.float32)
    scale_B1 = tl.rsqrt(tl.sum(values_BE * values_BE, 1, keep_dims=True) / WIDTH + eps)
    normed_BE = (values_BE * scale_B1).to(weights_hE.dtype.element_ty).to(tl.float32)
    result_BE = tl.where(head_B1 < NORMED, (weight_BE * normed_BE).to(raw_BE.dtype), raw_BE)
    tl.store(out_THE + places_BE, result_BE, mask=inside_BE)


@triton.jit
def _head_norm_backward(
    dqkv_THE: tl.tensor,
    qkv_THE: tl.tensor,
    weights_hE: tl.tensor,
    eps: tl.tensor,
    rows: tl.tensor,
    HEADS: tl.constexpr,
    NORMED: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row_B1 = tl.program_id(0) * BATCH + tl.arange(0, BATCH)[:, None]
    feature_1E = tl.arange(0, BLOCK)[None, :]
    head_B1 = row_B1 % NORMED
    inside_BE = (row_B1 < rows) & (feature_1E < WIDTH)
    places_BE = (row_B1 // NORMED * HEADS + head_B1).to(tl.int64) * WIDTH + feature_1E
    values_BE = tl.load(qkv_THE + places_BE, mask=inside_BE, other=0.0).to(tl.float32)
    slopes_BE = tl.load(dqkv_THE + places_BE, mask=inside_BE, other=0.0).to(tl.float32)
    slopes_BE *= tl.load(weights_hE + head_B1 * WIDTH + feature_1E, mask=inside_BE, other=0.0).to(
        tl.float32
    )
    scale_B1 = tl.rsqrt(tl.sum(values_BE * values_BE, 1, keep_dims=True) / WIDTH + eps)
    normed_BE = values_BE * scale_B1
    inner_B1 = tl.sum(slopes_BE * normed_BE, 1, keep_dims=True) / WIDTH
    tl.store(dqkv_THE + places_BE, (slopes_BE - normed_BE * inner_B1) * scale_B1, mask=inside_BE)


@triton.jit
def _rope(
    qkv_THE: tl.tensor,
    cos_LE: tl.tensor,
    sin_LE: tl.tensor,
    positions_T: tl.tensor,
    HEADS: tl.constexpr,
    ROTATED: tl.constexpr,
    WIDTH: tl.constexpr,
    TURNED: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCKS: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    HALF: tl.constexpr = TURNED // 2
    STEP: tl.constexpr = 2 if INTERLEAVED else 1
    APART: tl.constexpr = 1 if INTERLEAVED else TURNED // 2
    program = tl.program_id(0)
    token = (program // BLOCKS).to(tl.int64)
    head_B1 = program % BLOCKS * BATCH + tl.arange(0, BATCH)[:, None]
    feature_1Z = tl.arange(0, BLOCK)[None, :]
    inside_BZ = (head_B1 < ROTATED) & (feature_1Z < HALF)
    left_BZ = qkv_THE + token * (HEADS * WIDTH) + head_B1 * WIDTH + feature_1Z * STEP
    x_BZ = tl.load(left_BZ, mask=inside_BZ, other=0.0).to(tl.float32)
    y_BZ = tl.load(left_BZ + APART, mask=inside_BZ, other=0.0).to(tl.float32)
    place_1Z = tl.load(positions_T + token).to(tl.int64) * TURNED + feature_1Z * STEP
    known_1Z = feature_1Z < HALF
    cos_x_1Z = tl.load(cos_LE + place_1Z, mask=known_1Z, other=0.0).to(tl.float32)
    sin_x_1Z = tl.load(sin_LE + place_1Z, mask=known_1Z, other=0.0).to(tl.float32)
    cos_y_1Z = tl.load(cos_LE + place_1Z + APART, mask=known_1Z, other=0.0).to(tl.float32)
    sin_y_1Z = tl.load(sin_LE + place_1Z + APART, mask=known_1Z, other=0.0).to(tl.float32)
    tl.store(left_BZ, x_BZ * cos_x_1Z - y_BZ * sin_x_1Z, mask=inside_BZ)
    tl.store(left_BZ + APART, y_BZ * cos_y_1Z + x_BZ * sin_y_1Z, mask=inside_BZ)


@triton.jit
def _gated(gate_F: tl.tensor, GELU: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """SiLU or GELU-tanh of float32 gates, and its derivative."""
    inner_F = gate_F
    if GELU:
        inner_F = gate_F * (_GELU_LINEAR + _GELU_CUBIC * gate_F * gate_F)
    sigmoid_F = tl.sigmoid(inner_F)
    active_F = gate_F * sigmoid_F
    curve_F = active_F * (1 - sigmoid_F)
    if GELU:
        curve_F *= _GELU_LINEAR + 3 * _GELU_CUBIC * gate_F * gate_F
    return active_F, sigmoid_F + curve_F


@triton.jit
def _glu(
    gate_up_TG: tl.tensor,
    out_TF: tl.tensor,
    INNER: tl.constexpr,
    GELU: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    token = (program // BLOCKS).to(tl.int64)
    columns_F = program % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    inside_F = columns_F < INNER
    gates_F = gate_up_TG + token * (2 * INNER) + columns_F
    gate_F = tl.load(gates_F, mask=inside_F, other=0.0).to(tl.float32)
    up_F = tl.load(gates_F + INNER, mask=inside_F, other=0.0).to(tl.float32)
    active_F, _ = _gated(gate_F, GELU)
    active_F = active_F.to(out_TF.dtype.element_ty).to(tl.float32)
    tl.store(out_TF + token * INNER + columns_F, active_F * up_F, mask=inside_F)


@triton.jit
def _glu_backward(
    gate_up_TG: tl.tensor,
    da_TF: tl.tensor,
    INNER: tl.constexpr,
    GELU: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    token = (program // BLOCKS).to(tl.int64)
    columns_F = program % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    inside_F = columns_F < INNER
    gates_F = gate_up_TG + token * (2 * INNER) + columns_F
    actives_F = da_TF + token * INNER + columns_F
    gate_F = tl.load(gates_F, mask=inside_F, other=0.0).to(tl.float32)
    up_F = tl.load(gates_F + INNER, mask=inside_F, other=0.0).to(tl.float32)
    slope_F = tl.load(actives_F, mask=inside_F, other=0.0).to(tl.float32)
    active_F, derivative_F = _gated(gate_F, GELU)
    rounded_F = active_F.to(da_TF.dtype.element_ty).to(tl.float32)
    tl.store(gates_F, slope_F * up_F * derivative_F, mask=inside_F)
    tl.store(gates_F + INNER, slope_F * active_F, mask=inside_F)
    tl.store(actives_F, rounded_F * up_F, mask=inside_F)


@triton.jit
def _glu_rounded(
    gate_up_TG: tl.tensor,
    out_TF: tl.tensor,
    codes_TF: tl.tensor,
    scale_T1: tl.tensor,
    INNER: tl.constexpr,
    GELU: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    out_TF += token * INNER
    largest_F = tl.zeros([BLOCK], tl.float32)
    for block in range(BLOCKS):
        columns_F = block * BLOCK + tl.arange(0, BLOCK)
        inside_F = columns_F < INNER
        gates_F = gate_up_TG + token * (2 * INNER) + columns_F
        gate_F = tl.load(gates_F, mask=inside_F, other=0.0).to(tl.float32)
        up_F = tl.load(gates_F + INNER, mask=inside_F, other=0.0).to(tl.float32)
        active_F, _ = _gated(gate_F, GELU)
        active_F = active_F.to(out_TF.dtype.element_ty).to(tl.float32)
        result_F = (active_F * up_F).to(out_TF.dtype.element_ty)
        tl.store(out_TF + columns_F, result_F, mask=inside_F)
        largest_F = tl.maximum(largest_F, tl.abs(result_F.to(tl.float32)))
    scale, inverse = _row_scale(tl.max(largest_F, 0))
    tl.store(scale_T1 + token, scale)
    tl.debug_barrier()  # what follows may be read by another thread than has written it
    for block in range(BLOCKS):
        columns_F = block * BLOCK + tl.arange(0, BLOCK)
        inside_F = columns_F < INNER
        value_F = tl.load(out_TF + columns_F, mask=inside_F, other=0.0).to(tl.float32)
        codes_F = (value_F * inverse).to(codes_TF.dtype.element_ty)
        tl.store(codes_TF + token * INNER + columns_F, codes_F, mask=inside_F)


@triton.jit
def _glu_backward_rounded(
    gate_up_TG: tl.tensor,
    da_TF: tl.tensor,
    factor_1G: tl.tensor,
    codes_TG: tl.tensor,
    scale_T1: tl.tensor,
    INNER: tl.constexpr,
    GELU: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    gate_up_TG += token * (2 * INNER)
    codes_TG += token * (2 * INNER)
    da_TF += token * INNER
    largest_F = tl.zeros([BLOCK], tl.float32)
    for block in range(BLOCKS):
        columns_F = block * BLOCK + tl.arange(0, BLOCK)
        inside_F = columns_F < INNER
        gate_F = tl.load(gate_up_TG + columns_F, mask=inside_F, other=0.0).to(tl.float32)
        up_F = tl.load(gate_up_TG + INNER + columns_F, mask=inside_F, other=0.0).to(tl.float32)
        slope_F = tl.load(da_TF + columns_F, mask=inside_F, other=0.0).to(tl.float32)
        active_F, derivative_F = _gated(gate_F, GELU)
        rounded_F = active_F.to(da_TF.dtype.element_ty).to(tl.float32)
        dgate_F = (slope_F * up_F * derivative_F).to(da_TF.dtype.element_ty)
        dup_F = (slope_F * active_F).to(da_TF.dtype.element_ty)
        tl.store(gate_up_TG + columns_F, dgate_F, mask=inside_F)
        tl.store(gate_up_TG + INNER + columns_F, dup_F, mask=inside_F)
        tl.store(da_TF + columns_F, rounded_F * up_F, mask=inside_F)
        of_gate_F = tl.load(factor_1G + columns_F, mask=inside_F, other=0.0).to(tl.float32)
        of_up_F = tl.load(factor_1G + INNER + columns_F, mask=inside_F, other=0.0).to(tl.float32)
        largest_F = tl.maximum(largest_F, tl.abs(dgate_F.to(tl.float32) * of_gate_F))
        largest_F = tl.maximum(largest_F, tl.abs(dup_F.to(tl.float32) * of_up_F))
    scale, inverse = _row_scale(tl.max(largest_F, 0))
    tl.store(scale_T1 + token, scale)
    tl.debug_barrier()  # what follows may be read by another thread than has written it
    for block in range(2 * BLOCKS):
        # the second half of the row begins at INNER, which a block may go over
        columns_F = block % BLOCKS * BLOCK + tl.arange(0, BLOCK)
        inside_F = columns_F < INNER
        place_F = block // BLOCKS * INNER + columns_F
        value_F = tl.load(gate_up_TG + place_F, mask=inside_F, other=0.0).to(tl.float32)
        value_F *= tl.load(factor_1G + place_F, mask=inside_F, other=0.0).to(tl.float32)
        codes_F = (value_F * inverse).to(codes_TG.dtype.element_ty)
        tl.store(codes_TG + place_F, codes_F, mask=inside_F)


@triton.jit
def _cross_entropy(
    logits_MV: tl.tensor,
    targets_M: tl.tensor,
    losses_M: tl.tensor,
    WIDTH: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    logits_MV += row * WIDTH
    target = tl.load(targets_M + row).to(tl.int32)
    # 8 logits of bfloat16, one load, lie in one lane: a running maximum for each 8 costs neither a
    # barrier a tile nor a second exponential a logit
    places_B8 = tl.arange(0, BLOCK // 8)[:, None] * 8 + tl.arange(0, 8)[None, :]
    if target < 0:
        tl.store(losses_M + row, 0.0)
        if GRADIENT:
            for block in range(BLOCKS):
                columns_B8 = block * BLOCK + places_B8
                tl.store(logits_MV + columns_B8, 0.0, mask=columns_B8 < WIDTH)
    else:
        picked = tl.load(logits_MV + target).to(tl.float32)
        highest_B = tl.full([BLOCK // 8], -3.4e38, tl.float32)  # finite: −inf − −inf is NaN
        total_B = tl.zeros([BLOCK // 8], tl.float32)
        for block in range(BLOCKS):
            columns_B8 = block * BLOCK + places_B8
            values_B8 = tl.load(
                logits_MV + columns_B8, mask=columns_B8 < WIDTH, other=-float("inf")
            )
            values_B8 = values_B8.to(tl.float32)
            higher_B = tl.maximum(highest_B, tl.max(values_B8, 1))
            exponentials_B8 = tl.exp(values_B8 - higher_B[:, None])
            total_B = total_B * tl.exp(highest_B - higher_B) + tl.sum(exponentials_B8, 1)
            highest_B = higher_B
        top = tl.max(highest_B, 0)
        log_sum = top + tl.log(tl.sum(total_B * tl.exp(highest_B - top), 0))
        tl.store(losses_M + row, log_sum - picked)
        if GRADIENT:
            for block in range(BLOCKS):
                # from the end: what was read last is still in the L2 cache
                columns_B8 = (BLOCKS - 1 - block) * BLOCK + places_B8
                values_B8 = tl.load(
                    logits_MV + columns_B8,
                    mask=columns_B8 < WIDTH,
                    other=0.0,
                    eviction_policy="evict_first",
                )
                slope_B8 = tl.exp(values_B8.to(tl.float32) - log_sum)
                slope_B8 -= tl.where(columns_B8 == target, 1.0, 0.0)
                tl.store(
                    logits_MV + columns_B8,
                    slope_B8,
                    mask=columns_B8 < WIDTH,
                    eviction_policy="evict_first",
                )


@triton.jit(do_not_specialize=["module"])
def _dropout(
    x_TD: tl.tensor,
    out_TD: tl.tensor,
    rate_N: tl.tensor,
    seeds_N: tl.tensor,
    module: tl.tensor,
    size: tl.tensor,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(1)
    element_X = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside_X = element_X < size
    places_X = row.to(tl.int64) * size + element_X
    seed = tl.load(seeds_N + row)
    salt = _mix((seed >> 32).to(tl.uint32) + module.to(tl.uint32) * _STEP)
    salt ^= _mix(seed.to(tl.uint32))
    share = tl.load(rate_N + row)
    threshold = (share * 4294967296.0).to(tl.int64)  # 33 bits: 2³² for a rate of 1
    kept_X = _mix(element_X.to(tl.uint32) * _STEP + salt).to(tl.int64) >= threshold
    values_X = tl.load(x_TD + places_X, mask=inside_X, other=0.0).to(tl.float32)
    result_X = tl.where(kept_X, values_X * tl.div_rn(1.0, 1.0 - share), 0.0).to(
        x_TD.dtype.element_ty
    )
    if ADD:
        result_X = result_X.to(tl.float32) + tl.load(out_TD + places_X, mask=inside_X, other=0.0)
    tl.store(out_TD + places_X, result_X, mask=inside_X)


@triton.jit
def _mix(x: tl.tensor) -> tl.tensor:
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def _square_sums(
    grad_KP: tl.tensor,
    table_KC: tl.tensor,
    sums_KS: tl.tensor,
    size: tl.tensor,
    split: tl.tensor,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    chunk, slot = tl.program_id(0), tl.program_id(1).to(tl.int64)
    scale = tl.load(table_KC + slot * COLUMNS + _LORA_SCALE)
    total_P = tl.zeros([BLOCK], tl.float32)
    for start in range(0, CHUNK, BLOCK):
        place_P = chunk * CHUNK + start + tl.arange(0, BLOCK)
        slope_P = tl.load(grad_KP + slot * size + place_P, mask=place_P < size, other=0.0)
        slope_P = tl.where(place_P < split, slope_P, slope_P * scale)
        total_P += slope_P * slope_P
    tl.store(sums_KS + slot * tl.num_programs(0) + chunk, tl.sum(total_P, 0))


@triton.jit
def _adamw(
    param_KP: tl.tensor,
    grad_KP: tl.tensor,
    first_KP: tl.tensor,
    second_KP: tl.tensor,
    work_KP: tl.tensor,
    table_KC: tl.tensor,
    factor_K: tl.tensor,
    due_K: tl.tensor,
    size: tl.tensor,
    split: tl.tensor,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    slot = tl.program_id(1).to(tl.int64)
    if tl.load(due_K + slot):
        place_P = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside_P = place_P < size
        at_P = slot * size + place_P
        row_C = table_KC + slot * COLUMNS
        rate, beta1, beta2 = tl.load(row_C + _LR), tl.load(row_C + _BETA1), tl.load(row_C + _BETA2)
        scale = tl.load(row_C + _LORA_SCALE)
        keep = 1 - rate * tl.load(row_C + _DECAY)
        step = tl.div_rn(rate, tl.load(row_C + _CORRECTION1))
        root = tl.sqrt_rn(tl.load(row_C + _CORRECTION2))
        eps = tl.load(row_C + _EPS)

        slope_P = tl.load(grad_KP + at_P, mask=inside_P, other=0.0) * tl.load(factor_K + slot)
        slope_P = tl.where(place_P < split, slope_P, slope_P * scale)
        mean_P = tl.load(first_KP + at_P, mask=inside_P, other=0.0)
        square_P = tl.load(second_KP + at_P, mask=inside_P, other=0.0)
        value_P = tl.load(param_KP + at_P, mask=inside_P, other=0.0)

        mean_P += (1 - beta1) * (slope_P - mean_P)
        square_P = square_P * beta2 + slope_P * (slope_P * (1 - beta2))
        bottom_P = tl.div_rn(tl.sqrt_rn(square_P), root) + eps
        value_P = value_P * keep - tl.div_rn(step * mean_P, bottom_P)

        tl.store(grad_KP + at_P, 0.0, mask=inside_P)
        tl.store(first_KP + at_P, mean_P, mask=inside_P)
        tl.store(second_KP + at_P, square_P, mask=inside_P)
        tl.store(param_KP + at_P, value_P, mask=inside_P)
        tl.store(work_KP + at_P, tl.where(place_P < split, value_P, value_P * scale), mask=inside_P)


_LR, _BETA1, _BETA2, _EPS, _DECAY, _CORRECTION1, _CORRECTION2, _LORA_SCALE, _MAX_NORM = (
    tl.constexpr(column) for column in torch_ops.COLUMNS
)
_LARGEST_EXPONENT = tl.constexpr(torch_ops.LARGEST_EXPONENT)
_LARGEST_FRACTION = tl.constexpr(torch_ops.LARGEST_FRACTION)
_SMALLEST_POWER = tl.constexpr(torch_ops.SMALLEST_POWER)
_STEP = tl.constexpr(torch_ops._STEP)
_GELU_LINEAR = tl.constexpr(torch_ops.GELU_LINEAR)
_GELU_CUBIC = tl.constexpr(torch_ops.GELU_CUBIC)
