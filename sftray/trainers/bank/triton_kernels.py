# mypy: allow-untyped-decorators
"""The twins of `ops` as Triton kernels, for CUDA; what each function computes is said there.

Promise: same names, arguments and results as in `ops`, rounded to the tensors' dtype at the same
points; dropout's masks are the same bits. Nothing waits for the GPU, launches depend on shapes
alone (a CUDA graph can hold them all), and without atomics two runs give the same bits.
Price: every tensor is read once and written once, the logits read twice; a kernel is compiled at
its first launch with new widths, which must not be inside a capture.
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
_NORM_TILE, _NORM_CHUNK = 4096, 65536  # a chunk of tiles for each partial sum


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """One program a row, which it holds in registers: d up to 16,384."""
    tokens, width = x.shape
    out, rstd = torch.empty_like(x), x.new_empty(tokens, dtype=torch.float32)
    block = triton.next_power_of_2(width)
    _rms_norm[(tokens,)](x, weight, out, rstd, eps, width, block, num_warps=_warps(block))
    return out, rstd


def rms_norm_backward_(dx: Tensor, dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> None:
    """One program a row, as `rms_norm`."""
    tokens, width = x.shape
    block = triton.next_power_of_2(width)
    grid = (tokens,)
    _rms_norm_backward[grid](dx, dy, x, weight, rstd, width, block, num_warps=_warps(block))


def head_norm(qkv: Tensor, weights: Tensor, eps: float) -> Tensor:
    """Some heads a program, whichever token's."""
    tokens, heads, width = qkv.shape
    out = torch.empty_like(qkv)
    rows, block = tokens * heads, triton.next_power_of_2(width)
    batch = max(_TILE // block, 1)
    grid = (triton.cdiv(rows, batch),)
    _head_norm[grid](qkv, weights, out, eps, rows, heads, weights.shape[0], width, batch, block)
    return out


def head_norm_backward_(dqkv: Tensor, qkv: Tensor, weights: Tensor, eps: float) -> None:
    """Some normed heads a program, whichever token's."""
    tokens, heads, width = qkv.shape
    normed = weights.shape[0]
    rows, block = tokens * normed, triton.next_power_of_2(width)
    batch = max(_TILE // block, 1)
    grid = (triton.cdiv(rows, batch),)
    _head_norm_backward[grid](dqkv, qkv, weights, eps, rows, heads, normed, width, batch, block)


def rope_(qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, rotated: int) -> None:
    """Some heads of one token a program. D even."""
    tokens, heads, width = qkv.shape
    block = triton.next_power_of_2(width // 2)
    batch = min(max(_TILE // (2 * block), 1), triton.next_power_of_2(rotated))
    blocks = triton.cdiv(rotated, batch)
    grid = (tokens * blocks,)
    warps = _warps(2 * batch * block)
    _rope[grid](
        qkv, cos, sin, positions, heads, rotated, width, blocks, batch, block, num_warps=warps
    )


def swiglu(gate_up: Tensor) -> Tensor:
    """A part of one token a program."""
    tokens, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(tokens, inner)
    block = min(_TILE, triton.next_power_of_2(inner))
    blocks = triton.cdiv(inner, block)
    _swiglu[(tokens * blocks,)](gate_up, out, inner, blocks, block)
    return out


def swiglu_backward_(gate_up: Tensor, da: Tensor) -> None:
    """A part of one token a program; the activation has the bits of `swiglu`'s."""
    tokens, inner = da.shape
    block = min(_TILE, triton.next_power_of_2(inner))
    blocks = triton.cdiv(inner, block)
    _swiglu_backward[(tokens * blocks,)](gate_up, da, inner, blocks, block)


def cross_entropy_(logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
    """One program a row; a row without a target is not read."""
    rows, width = logits.shape
    losses = logits.new_empty(rows, dtype=torch.float32)
    block = max(min(_LOGITS_TILE, triton.next_power_of_2(width)), 8)
    blocks = triton.cdiv(width, block)
    _cross_entropy[(rows,)](
        logits, targets, losses, width, gradient, blocks, block, num_warps=_warps(block)
    )
    return losses


def dropout(x: Tensor, rate: Tensor, seeds: Tensor, module: int) -> Tensor:
    """A part of one packed row a program."""
    out = torch.empty_like(x)
    _launch_dropout(x, out, rate, seeds, module, add=False)
    return out


def dropout_add_(dx: Tensor, dy: Tensor, rate: Tensor, seeds: Tensor, module: int) -> None:
    """A part of one packed row a program."""
    _launch_dropout(dy, dx, rate, seeds, module, add=True)


def row_norms(grad: Tensor, table: Tensor, split: int) -> Tensor:
    """Sums of squares of chunks of 65,536 elements, in float32, then their sum."""
    slots, size = grad.shape
    chunks = triton.cdiv(size, _NORM_CHUNK)
    sums = grad.new_empty(slots, chunks)
    grid = (chunks, slots)
    _square_sums[grid](
        grad, table, sums, size, split, table.shape[1], _NORM_CHUNK, _NORM_TILE, num_warps=8
    )
    return sums.sum(1).sqrt_()


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
    """One launch for all slots; the programs of a slot that is not due return at once."""
    slots, size = param.shape
    grid = (triton.cdiv(size, _ADAMW_TILE), slots)
    first, second = moments
    _adamw[grid](
        param,
        grad,
        first,
        second,
        work,
        table,
        factor,
        due,
        size,
        split,
        table.shape[1],
        _ADAMW_TILE,
        num_warps=8,
    )


def _launch_dropout(
    x: Tensor, out: Tensor, rate: Tensor, seeds: Tensor, module: int, *, add: bool
) -> None:
    rows = rate.shape[0]
    size = x.numel() // rows
    _dropout[(triton.cdiv(size, _TILE), rows)](x, out, rate, seeds, module, size, add, _TILE)


def _warps(elements: int) -> int:
    """Warps with 16 elements a lane: two 16-byte loads of bfloat16."""
    return min(max(elements // 512, 1), 32)


@triton.jit
def _rms_norm(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    rstd: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    values = tl.load(x + row * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    weights = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 0) / WIDTH + eps)
    normed = (values * scale).to(x.dtype.element_ty).to(tl.float32)
    tl.store(out + row * WIDTH + columns, weights * normed, mask=inside)
    tl.store(rstd + row, scale)


@triton.jit
def _rms_norm_backward(
    dx: tl.tensor,
    dy: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    rstd: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    places = row * WIDTH + columns
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    slopes = tl.load(dy + places, mask=inside, other=0.0).to(tl.float32)
    before = tl.load(dx + places, mask=inside, other=0.0).to(tl.float32)
    weights = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(rstd + row)
    slopes *= weights
    normed = values * scale
    inner = tl.sum(slopes * normed, 0) / WIDTH
    gradient = ((slopes - normed * inner) * scale).to(x.dtype.element_ty).to(tl.float32)
    tl.store(dx + places, before + gradient, mask=inside)


@triton.jit
def _head_norm(
    qkv: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    rows: tl.tensor,
    HEADS: tl.constexpr,
    NORMED: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0) * BATCH + tl.arange(0, BATCH)[:, None]
    feature = tl.arange(0, BLOCK)[None, :]
    head = row % HEADS
    inside = (row < rows) & (feature < WIDTH)
    places = row.to(tl.int64) * WIDTH + feature
    raw = tl.load(qkv + places, mask=inside, other=0.0)
    weight = tl.load(weights + head * WIDTH + feature, mask=inside & (head < NORMED), other=0.0).to(
        tl.float32
    )
    values = raw.to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 1, keep_dims=True) / WIDTH + eps)
    normed = (values * scale).to(raw.dtype).to(tl.float32)
    result = tl.where(head < NORMED, (weight * normed).to(raw.dtype), raw)
    tl.store(out + places, result, mask=inside)


@triton.jit
def _head_norm_backward(
    dqkv: tl.tensor,
    qkv: tl.tensor,
    weights: tl.tensor,
    eps: tl.tensor,
    rows: tl.tensor,
    HEADS: tl.constexpr,
    NORMED: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0) * BATCH + tl.arange(0, BATCH)[:, None]
    feature = tl.arange(0, BLOCK)[None, :]
    head = row % NORMED
    inside = (row < rows) & (feature < WIDTH)
    places = (row // NORMED * HEADS + head).to(tl.int64) * WIDTH + feature
    values = tl.load(qkv + places, mask=inside, other=0.0).to(tl.float32)
    slopes = tl.load(dqkv + places, mask=inside, other=0.0).to(tl.float32)
    slopes *= tl.load(weights + head * WIDTH + feature, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 1, keep_dims=True) / WIDTH + eps)
    normed = values * scale
    inner = tl.sum(slopes * normed, 1, keep_dims=True) / WIDTH
    tl.store(dqkv + places, (slopes - normed * inner) * scale, mask=inside)


@triton.jit
def _rope(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    positions: tl.tensor,
    HEADS: tl.constexpr,
    ROTATED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    HALF: tl.constexpr = WIDTH // 2
    program = tl.program_id(0)
    token = (program // BLOCKS).to(tl.int64)
    head = program % BLOCKS * BATCH + tl.arange(0, BATCH)[:, None]
    feature = tl.arange(0, BLOCK)[None, :]
    inside = (head < ROTATED) & (feature < HALF)
    left = qkv + token * (HEADS * WIDTH) + head * WIDTH + feature
    x = tl.load(left, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(left + HALF, mask=inside, other=0.0).to(tl.float32)
    place = tl.load(positions + token).to(tl.int64) * WIDTH + feature
    known = feature < HALF
    cos_x = tl.load(cos + place, mask=known, other=0.0).to(tl.float32)
    sin_x = tl.load(sin + place, mask=known, other=0.0).to(tl.float32)
    cos_y = tl.load(cos + place + HALF, mask=known, other=0.0).to(tl.float32)
    sin_y = tl.load(sin + place + HALF, mask=known, other=0.0).to(tl.float32)
    tl.store(left, x * cos_x - y * sin_x, mask=inside)
    tl.store(left + HALF, y * cos_y + x * sin_y, mask=inside)


@triton.jit
def _swiglu(
    gate_up: tl.tensor,
    out: tl.tensor,
    INNER: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    token = (program // BLOCKS).to(tl.int64)
    columns = program % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    inside = columns < INNER
    gates = gate_up + token * (2 * INNER) + columns
    gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gates + INNER, mask=inside, other=0.0).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + token * INNER + columns, silu * up, mask=inside)


@triton.jit
def _swiglu_backward(
    gate_up: tl.tensor,
    da: tl.tensor,
    INNER: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    token = (program // BLOCKS).to(tl.int64)
    columns = program % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    inside = columns < INNER
    gates = gate_up + token * (2 * INNER) + columns
    actives = da + token * INNER + columns
    gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gates + INNER, mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(actives, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    rounded = silu.to(da.dtype.element_ty).to(tl.float32)
    tl.store(gates, slope * up * (sigmoid + silu * (1 - sigmoid)), mask=inside)
    tl.store(gates + INNER, slope * silu, mask=inside)
    tl.store(actives, rounded * up, mask=inside)


@triton.jit
def _cross_entropy(
    logits: tl.tensor,
    targets: tl.tensor,
    losses: tl.tensor,
    WIDTH: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    logits += row * WIDTH
    target = tl.load(targets + row).to(tl.int32)
    # 8 logits of bfloat16, one load, lie in one lane: a running maximum for each 8 costs neither a
    # barrier a tile nor a second exponential a logit
    places = tl.arange(0, BLOCK // 8)[:, None] * 8 + tl.arange(0, 8)[None, :]
    if target < 0:
        tl.store(losses + row, 0.0)
        if GRADIENT:
            for block in range(BLOCKS):
                columns = block * BLOCK + places
                tl.store(logits + columns, 0.0, mask=columns < WIDTH)
    else:
        picked = tl.load(logits + target).to(tl.float32)
        highest = tl.full([BLOCK // 8], -3.4e38, tl.float32)  # finite: −inf − −inf is NaN
        total = tl.zeros([BLOCK // 8], tl.float32)
        for block in range(BLOCKS):
            columns = block * BLOCK + places
            values = tl.load(logits + columns, mask=columns < WIDTH, other=-float("inf"))
            values = values.to(tl.float32)
            higher = tl.maximum(highest, tl.max(values, 1))
            exponentials = tl.exp(values - higher[:, None])
            total = total * tl.exp(highest - higher) + tl.sum(exponentials, 1)
            highest = higher
        top = tl.max(highest, 0)
        log_sum = top + tl.log(tl.sum(total * tl.exp(highest - top), 0))
        tl.store(losses + row, log_sum - picked)
        if GRADIENT:
            for block in range(BLOCKS):
                # from the end: what was read last is still in the L2 cache
                columns = (BLOCKS - 1 - block) * BLOCK + places
                values = tl.load(
                    logits + columns,
                    mask=columns < WIDTH,
                    other=0.0,
                    eviction_policy="evict_first",
                )
                slope = tl.exp(values.to(tl.float32) - log_sum)
                slope -= tl.where(columns == target, 1.0, 0.0)
                tl.store(
                    logits + columns, slope, mask=columns < WIDTH, eviction_policy="evict_first"
                )


@triton.jit(do_not_specialize=["module"])
def _dropout(
    x: tl.tensor,
    out: tl.tensor,
    rate: tl.tensor,
    seeds: tl.tensor,
    module: tl.tensor,
    size: tl.tensor,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(1)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < size
    places = row.to(tl.int64) * size + element
    seed = tl.load(seeds + row)
    salt = _mix((seed >> 32).to(tl.uint32) + module.to(tl.uint32) * _STEP)
    salt ^= _mix(seed.to(tl.uint32))
    share = tl.load(rate + row)
    threshold = (share * 4294967296.0).to(tl.int64)  # 33 bits: 2³² for a rate of 1
    kept = _mix(element.to(tl.uint32) * _STEP + salt).to(tl.int64) >= threshold
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    result = tl.where(kept, values * tl.div_rn(1.0, 1.0 - share), 0.0).to(x.dtype.element_ty)
    if ADD:
        result = result.to(tl.float32) + tl.load(out + places, mask=inside, other=0.0)
    tl.store(out + places, result, mask=inside)


@triton.jit
def _mix(x: tl.tensor) -> tl.tensor:
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def _square_sums(
    grad: tl.tensor,
    table: tl.tensor,
    sums: tl.tensor,
    size: tl.tensor,
    split: tl.tensor,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    chunk, slot = tl.program_id(0), tl.program_id(1).to(tl.int64)
    scale = tl.load(table + slot * COLUMNS + _LORA_SCALE)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, CHUNK, BLOCK):
        place = chunk * CHUNK + start + tl.arange(0, BLOCK)
        slope = tl.load(grad + slot * size + place, mask=place < size, other=0.0)
        slope = tl.where(place < split, slope, slope * scale)
        total += slope * slope
    tl.store(sums + slot * tl.num_programs(0) + chunk, tl.sum(total, 0))


@triton.jit
def _adamw(
    param: tl.tensor,
    grad: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    work: tl.tensor,
    table: tl.tensor,
    factor: tl.tensor,
    due: tl.tensor,
    size: tl.tensor,
    split: tl.tensor,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    slot = tl.program_id(1).to(tl.int64)
    if tl.load(due + slot):
        place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside = place < size
        at = slot * size + place
        row = table + slot * COLUMNS
        rate, beta1, beta2 = tl.load(row + _LR), tl.load(row + _BETA1), tl.load(row + _BETA2)
        scale = tl.load(row + _LORA_SCALE)
        keep = 1 - rate * tl.load(row + _DECAY)
        step = tl.div_rn(rate, tl.load(row + _CORRECTION1))
        root = tl.sqrt_rn(tl.load(row + _CORRECTION2))
        eps = tl.load(row + _EPS)

        slope = tl.load(grad + at, mask=inside, other=0.0) * tl.load(factor + slot)
        slope = tl.where(place < split, slope, slope * scale)
        mean = tl.load(first + at, mask=inside, other=0.0)
        square = tl.load(second + at, mask=inside, other=0.0)
        value = tl.load(param + at, mask=inside, other=0.0)

        mean += (1 - beta1) * (slope - mean)
        square = square * beta2 + slope * (slope * (1 - beta2))
        bottom = tl.div_rn(tl.sqrt_rn(square), root) + eps
        value = value * keep - tl.div_rn(step * mean, bottom)

        tl.store(grad + at, 0.0, mask=inside)
        tl.store(first + at, mean, mask=inside)
        tl.store(second + at, square, mask=inside)
        tl.store(param + at, value, mask=inside)
        tl.store(work + at, tl.where(place < split, value, value * scale), mask=inside)


_LR, _BETA1, _BETA2, _EPS, _DECAY, _CORRECTION1, _CORRECTION2, _LORA_SCALE = (
    tl.constexpr(column)
    for column in (
        torch_ops.LR,
        torch_ops.BETA1,
        torch_ops.BETA2,
        torch_ops.EPS,
        torch_ops.DECAY,
        torch_ops.CORRECTION1,
        torch_ops.CORRECTION2,
        torch_ops.LORA_SCALE,
    )
)
_STEP = tl.constexpr(torch_ops._STEP)
