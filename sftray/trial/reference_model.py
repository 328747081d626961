"""A loaded base computed plainly: eager attention, weights decoded here, in float32 or as loaded.

Promise: nothing of what a trial computes with is in it: no kernel of an attention package, no 4-bit
product of bitsandbytes. Weights are shared with the loaded model and decoded a product at a time.
Price: some decoded rows of a matrix at a time, and a copy of the parameters that are no matrices.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from sftray.plan.proof_memory import DECODED_AT_ONCE
from sftray.trial.fp8_rounding import Fp8Linear, in_fp8


def hollow(layer: nn.Module) -> nn.Module:
    """A layer without its parts, in the place of one that is passed by: models ask layers for their
    settings."""
    empty = copy.copy(layer)
    empty.__dict__ = {**vars(layer), "_modules": {}, "_parameters": {}, "_buffers": {}}
    return empty


def reference_model(
    model: PreTrainedModel, replaced: dict[nn.Module, nn.Module], dtype: torch.dtype | None
) -> PreTrainedModel:
    """A copy of `model` with eager attention, computed in `dtype`; None: in the loaded one.

    `replaced` modules are others in the copy. Matrices are the model's own, decoded when they are
    multiplied with; all else is copied.
    """
    memo: dict[int, Any] = {id(old): new for old, new in replaced.items()}
    gone = {inner for old in replaced for inner in old.modules()}
    matrices = [module for module in model.modules() if is_linear(module) and module not in gone]
    memo |= {id(p): p for module in matrices for p in module.parameters(recurse=False)}
    memo |= _large_embeddings(model, gone)
    memo[id(model)] = shell = copy.copy(model)
    # `model` itself goes through copy.copy, so that methods set on it are not bound to the original
    shell.__dict__ = copy.deepcopy({k: v for k, v in vars(model).items() if k != "forward"}, memo)
    for parent in list(shell.modules()):
        for name, child in parent.named_children():
            if is_linear(child):
                setattr(parent, name, _Product(child, dtype))
            elif isinstance(child, nn.Embedding) and child.weight.numel() > DECODED_AT_ONCE:
                setattr(parent, name, _Gathered(child, dtype))
    if dtype is not None:
        _cast(shell, dtype, keep=(_Product, _Gathered))
    shell.set_attn_implementation("eager")
    return shell.eval()


def decoded(module: nn.Module) -> Tensor:
    """A linear module's weight [output, input]. A quantised one is decoded to float32 by our own
    arithmetic: NF4 and FP4 (Dettmers et al. 2023, arXiv:2305.14314), LLM.int8 (Dettmers et al.
    2022, arXiv:2208.07339)."""
    return torch.cat(list(_row_blocks(module)))


def _row_blocks(module: nn.Module) -> Iterator[Tensor]:
    """The decoded weight, some rows at a time."""
    weight: Any = module.weight
    state = getattr(weight, "quant_state", None) or getattr(module, "quant_state", None)
    scales = getattr(weight, "SCB", None)
    if scales is None and type(module).__name__ == "Linear8bitLt":
        scales = module.state.SCB  # type: ignore[union-attr]
    rows, columns = state.shape if state is not None else weight.shape
    # a block of 4-bit numbers may go over the end of a row, but not over that of so many rows
    whole = 1 if state is None else state.blocksize // math.gcd(columns, state.blocksize)
    step = max(1, DECODED_AT_ONCE // columns // whole) * whole
    for first in range(0, rows, step):
        if state is not None:
            yield _from_4_bit(weight.data, state, first, min(first + step, rows))
        elif scales is not None:
            part = slice(first, first + step)
            yield weight.data[part].float() * (scales[part].float()[:, None] / 127)
        else:
            yield weight.data[first : first + step]


def _from_4_bit(data: Tensor, state: Any, first: int, last: int) -> Tensor:
    """Rows of a weight. Two codes a byte, the first in the high half; a scale for each block of the
    flat weight, which with double quantisation is a code itself."""
    columns = state.shape[1]
    start, end = first * columns, last * columns
    packed = data.view(torch.uint8).flatten()[start // 2 : -(-end // 2)]
    codes = torch.stack((packed >> 4, packed & 15), dim=1).flatten()
    scales = state.absmax
    if state.nested:
        outer = state.state2
        steps = outer.code.float()[scales.long()]
        scales = _scaled(steps, outer.absmax.float(), outer.blocksize) + state.offset
    scales = scales.float()[start // state.blocksize : -(-end // state.blocksize)]
    values = state.code.float()[codes.int()]
    return _scaled(values, scales, state.blocksize)[: end - start].view(last - first, columns)


def _scaled(values: Tensor, scales: Tensor, block: int) -> Tensor:
    rest = -len(values) % block
    padded = functional.pad(values, (0, rest)) if rest else values
    return (padded.view(-1, block) * scales.view(-1, 1)).flatten()[: len(values)]


class _Product(nn.Module):
    """A linear module whose weight is decoded in every pass, forward and backward."""

    def __init__(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.__dict__["module"], self._dtype = module, dtype
        self.in_features, self.out_features = module.in_features, module.out_features
        self.bias = module.bias

    @property
    def weight(self) -> Tensor:
        """Some models multiply with it past the module, or ask for its dtype."""
        own: Tensor = self.__dict__["module"].weight
        if own.dtype == self._dtype or (self._dtype is None and own.is_floating_point()):
            return own
        return decoded(self.__dict__["module"]).to(self._dtype)

    def forward(self, x: Tensor) -> Tensor:
        dtype = self._dtype or _compute_dtype(x)
        x = x.to(dtype)
        fp8 = isinstance(self.__dict__["module"], Fp8Linear)
        y = in_fp8(x, self._multiplied) if fp8 else self._multiplied(x)
        bias: Tensor | None = self.__dict__["module"].bias
        return y if bias is None else y + bias.to(dtype)

    def _multiplied(self, x: Tensor) -> Tensor:
        y: Tensor = _Multiply.apply(x, self.__dict__["module"])  # type: ignore[no-untyped-call]
        return y


class _Multiply(torch.autograd.Function):
    """x [..., input] times a module's decoded weight, some rows of the weight at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module) -> Tensor:
        ctx.module = module
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([x @ rows.to(x.dtype).T for rows in _row_blocks(module)], dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (dy,) = gradients
        dx, done = torch.zeros((), dtype=dy.dtype, device=dy.device), 0
        with torch.autocast(dy.device.type, enabled=False):
            for rows in _row_blocks(ctx.module):
                dx = dx + dy[..., done : done + len(rows)] @ rows.to(dy.dtype)
                done += len(rows)
        return dx, None


class _Gathered(nn.Module):
    """A large embedding, of which only the rows that are asked for are copied."""

    def __init__(self, module: nn.Embedding, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.__dict__["module"], self._dtype = module, dtype
        self.__dict__["weight"] = module.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        module: nn.Embedding = self.__dict__["module"]
        ids, places = torch.unique(input_ids, return_inverse=True)
        small = copy.copy(module)
        rows = module.weight.data[ids]
        weight = nn.Parameter(rows.to(self._dtype or rows.dtype), requires_grad=False)
        small.__dict__ = {**vars(module), "_parameters": {"weight": weight}, "padding_idx": None}
        small.num_embeddings = len(ids)
        found: Tensor = small(places)
        return found


def is_linear(module: nn.Module) -> bool:
    """nn.Linear, and what bitsandbytes or FP8 make of it; not what a model derives from it."""
    quantised = type(module).__name__ in ("Linear4bit", "Linear8bitLt")
    return type(module) in (nn.Linear, Fp8Linear) or quantised


def _large_embeddings(model: nn.Module, gone: Collection[nn.Module]) -> dict[int, Tensor]:
    return {
        id(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        and module not in gone
        and module.weight.numel() > DECODED_AT_ONCE
    }


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What nn.Linear would compute in: autocast's dtype, if that is on."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _cast(model: nn.Module, dtype: torch.dtype, keep: tuple[type[nn.Module], ...]) -> None:
    for module in model.modules():
        if isinstance(module, keep):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_floating_point():
                new = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
                setattr(module, name, new)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))
