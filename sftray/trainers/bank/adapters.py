"""The adapters of all slots in a few flat tensors, and each of them as PEFT knows it.

Promise: slot k's parameters, gradients and moments are row k; ranks are padded with zeros to the
largest, and what is padded stays exactly zero under AdamW. A slot goes out and comes in under
PEFT's names at its own rank, so its checkpoints are those of any other trainer.

Row layout: all lora_A, then (from `split`) all lora_B. lora_A of projections that share an input
lie together, [projections · rank, input], so that one product serves them; lora_B is
[output, rank], as in PEFT.

Names of tensors end in their shape: K slots, P elements of a row, R rank, I inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sftray.errors import CheckpointError
from sftray.trainers.bank.frozen_base import DecoderShape
from sftray.trainers.bank.torch_ops import copy_work
from sftray.trainers.bank.transfer import Snapshot, Snapshots
from sftray.trial.lora_adapter import init_lora_a

ALIGNMENT = 64
"""Elements: every matrix starts at a multiple of 128 bytes of bfloat16."""


@dataclass(frozen=True)
class Place:
    """Where the adapter of one projection lies in a slot's row."""

    layer: int
    group: int
    """Which of the projections that share an input."""
    projection: str
    number: int
    """The projection's own among all of the model."""
    inputs: int
    outputs: int
    columns: slice
    """Its columns of the output of its group."""
    ranks: slice
    """Its part of the inner activations of its group, the n-th of `rank` columns."""
    first: int
    """Start of its lora_A, [rank, input]."""
    second: int = 0
    """Start of its lora_B, [output, rank]."""


@dataclass(frozen=True)
class Layout:
    """A slot's row."""

    rank: int
    """The padded rank."""
    size: int
    """P, elements a row."""
    split: int
    """Where lora_B begins."""
    places: tuple[Place, ...]
    path: str
    """What the layers are called in the checkpoint."""

    def of(self, layer: int, group: int) -> list[Place]:
        """The adapted projections of one group of a layer, in order."""
        return [p for p in self.places if (p.layer, p.group) == (layer, group)]


def lay_out(shape: DecoderShape, targets: tuple[str, ...], rank: int) -> Layout:
    """The row of a slot whose adapters, of at most `rank`, are on `targets` in every layer."""
    rank = -(-rank // 8) * 8  # rows of 16 bytes in bfloat16, as the GPU's matrix units want them
    places: list[Place] = []
    offset = number = 0
    for layer in range(shape.layers):
        for group, names in enumerate(shape.groups):
            column = inner = 0
            for name in names:
                inputs, outputs = shape.inputs[name], shape.outputs[name]
                if name in targets:
                    columns, ranks = slice(column, column + outputs), slice(inner, inner + rank)
                    places.append(
                        Place(layer, group, name, number, inputs, outputs, columns, ranks, offset)
                    )
                    inner += rank
                    offset += rank * inputs  # without a gap: a group's are one matrix
                column, number = column + outputs, number + 1
            offset = _aligned(offset)
    split = offset
    for index, place in enumerate(places):
        places[index] = replace(place, second=offset)
        offset = _aligned(offset + place.outputs * rank)
    return Layout(rank, offset, split, tuple(places), shape.path)


class Adapters:
    """K slots' parameters, gradients, moments and working copies."""

    def __init__(
        self, layout: Layout, slots: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """dtype is that of the working copy: what the base computes in."""
        self.layout, self.slots = layout, slots

        def rows() -> Tensor:
            return torch.zeros(slots, layout.size, device=device)

        self.param, self.grad, self.moments = rows(), rows(), (rows(), rows())
        self.work = torch.zeros(slots, layout.size, dtype=dtype, device=device)
        """What the model computes with: the parameters in its dtype, lora_B times LoRA's scale."""
        self._snapshots = Snapshots((3, layout.size), device)

    def admit(self, slot: int, row: AdapterState, scale: float) -> None:
        """Put an adapter into a slot, whatever was there; a pinned one without waiting."""
        self.param[slot].copy_(row.param, non_blocking=True)
        self.grad[slot].zero_()
        for rows, moment in zip(self.moments, row.moments or (None, None), strict=True):
            if moment is None:
                rows[slot].zero_()
            else:
                rows[slot].copy_(moment, non_blocking=True)
        copy_work(self.param[slot], self.work[slot], scale, self.layout.split)

    def take(self, slot: int) -> Snapshot:
        """Begin to copy a slot's parameters and moments to the host."""
        return self._snapshots.take(
            torch.stack([rows[slot] for rows in (self.param, *self.moments)])
        )


@dataclass(frozen=True)
class AdapterState:
    """One adapter on the CPU, laid out as a slot."""

    param: Tensor
    moments: tuple[Tensor, Tensor] | None
    """AdamW's exp_avg and exp_avg_sq; None before the first step."""

    def pinned(self) -> AdapterState:
        """In memory that a GPU reads by itself."""
        moments = self.moments and (self.moments[0].pin_memory(), self.moments[1].pin_memory())
        return AdapterState(self.param.pin_memory(), moments)


def fresh_row(layout: Layout, rank: int, seed: int, targets: Collection[str]) -> AdapterState:
    """A fresh adapter of `targets`: lora_A from (seed, module name), lora_B zero.

    Elsewhere both are zero, and so are their gradients: the adapter has rank 0 there.
    """
    param_P = torch.zeros(layout.size)
    for name, (matrix,) in _matrices(layout, rank, targets, param_P):
        if name.endswith("lora_A"):
            matrix.copy_(init_lora_a(f"{name}.weight", matrix.shape, seed))
    return AdapterState(param_P, None)


def import_row(
    layout: Layout,
    rank: int,
    targets: Collection[str],
    adapter: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
) -> AdapterState:
    """The row of a checkpoint's tensors, named as `export_row` does.

    Raises CheckpointError where they are not those of an adapter of this layout and rank.
    """
    param_P, first_P, second_P = (torch.zeros(layout.size) for _ in range(3))
    tensors = {**adapter, **moments}
    for name, matrices in _matrices(layout, rank, targets, param_P, first_P, second_P):
        for key, matrix in zip(_keys(name), matrices, strict=True):
            if key not in tensors or tensors[key].shape != matrix.shape:
                raise CheckpointError(
                    f"{key}: the checkpoint has it not, or not in shape {list(matrix.shape)}: "
                    "it holds another adapter than this trial's"
                )
            matrix.copy_(tensors[key])
    return AdapterState(param_P, (first_P, second_P))


def export_row(
    layout: Layout, values_3P: Tensor, rank: int, targets: Collection[str], step: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An adapter and AdamW's state, parameters and moments as `Adapters.take` gives them, at its
    own rank, under the names that they have in a PEFT model and in `sftray.trial.checkpoint`."""
    adapter, state = {}, {}
    for name, matrices in _matrices(layout, rank, targets, *values_3P):
        param, first, second = _keys(name)
        adapter[param], state[first], state[second] = (matrix.contiguous() for matrix in matrices)
        state[f"{_parameter(name)}/step"] = torch.tensor(float(step))
    return adapter, state


def joint_first(rows_KP: Tensor, places: list[Place], rank: int) -> Tensor:
    """View lora_A of a group's projections as [K, projections · rank, input]."""
    start, inputs = places[0].first, places[0].inputs
    size = len(places) * rank * inputs
    return rows_KP[:, start : start + size].view(rows_KP.shape[0], len(places) * rank, inputs)


def second(rows_KP: Tensor, place: Place, rank: int) -> Tensor:
    """View a projection's lora_B as [K, output, rank]."""
    size = place.outputs * rank
    return rows_KP[:, place.second : place.second + size].view(
        rows_KP.shape[0], place.outputs, rank
    )


def _matrices(
    layout: Layout, rank: int, targets: Collection[str], *rows_P: Tensor
) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Every matrix that an adapter of `rank` on `targets` has, by the model's name for it: views of
    these rows."""
    for place in layout.places:
        if place.projection not in targets:
            continue
        part = "self_attn" if place.group < 2 else "mlp"
        module = f"{layout.path}.{place.layer}.{part}.{place.projection}"
        firsts = (_view(row_P, place.first, layout.rank, place.inputs) for row_P in rows_P)
        yield f"{module}.lora_A", tuple(matrix[:rank] for matrix in firsts)
        seconds = (_view(row_P, place.second, place.outputs, layout.rank) for row_P in rows_P)
        yield f"{module}.lora_B", tuple(matrix[:, :rank] for matrix in seconds)


def _view(row_P: Tensor, start: int, height: int, width: int) -> Tensor:
    return row_P[start : start + height * width].view(height, width)


def _keys(name: str) -> tuple[str, str, str]:
    """What a matrix, its exp_avg and its exp_avg_sq are called in a checkpoint."""
    parameter = _parameter(name)
    adapter = f"base_model.model.{name}.weight"
    return adapter, f"{parameter}/exp_avg", f"{parameter}/exp_avg_sq"


def _parameter(name: str) -> str:
    return f"base_model.model.{name}.default.weight"


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
