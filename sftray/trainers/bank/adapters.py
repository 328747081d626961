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

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sftray.errors import CheckpointError
from sftray.trainers.bank.frozen_base import GROUPS, DecoderShape
from sftray.trainers.bank.torch_ops import copy_work
from sftray.trainers.bank.transfer import Snapshot, Snapshots
from sftray.trial.lora_adapter import init_lora_a

PARTS = ("lora_A", "lora_B")

ALIGNMENT = 64
"""Elements: every matrix starts at a multiple of 128 bytes of bfloat16."""


@dataclass(frozen=True)
class Place:
    """Where the adapter of one projection lies in a slot's row."""

    layer: int
    projection: str
    first: int
    """Start of its lora_A, [rank, input]."""
    second: int
    """Start of its lora_B, [output, rank]."""
    inputs: int
    outputs: int


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

    def of(self, layer: int, group: int) -> list[Place]:
        """The adapted projections of one group of a layer, in order."""
        return self._by_group.get((layer, group), [])

    @functools.cached_property
    def _by_group(self) -> dict[tuple[int, int], list[Place]]:
        found: dict[tuple[int, int], list[Place]] = {}
        for place in self.places:
            group = next(i for i, names in enumerate(GROUPS) if place.projection in names)
            found.setdefault((place.layer, group), []).append(place)
        return found


def lay_out(shape: DecoderShape, targets: tuple[str, ...], rank: int) -> Layout:
    """The row of a slot whose adapters, of at most `rank`, are on `targets` in every layer."""
    rank = -(-rank // 8) * 8  # rows of 16 bytes in bfloat16, as the GPU's matrix units want them
    firsts: dict[tuple[int, str], int] = {}
    offset = 0
    for layer in range(shape.layers):
        for names in GROUPS:
            for name in (name for name in names if name in targets):
                firsts[layer, name] = offset
                offset += rank * shape.inputs[name]  # without a gap: a group's are one matrix
            offset = _aligned(offset)
    split = offset
    places = []
    for (layer, name), first in firsts.items():
        inputs, outputs = shape.inputs[name], shape.outputs[name]
        places.append(Place(layer, name, first, offset, inputs, outputs))
        offset = _aligned(offset + outputs * rank)
    return Layout(rank, offset, split, tuple(places))


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


def row_of(values_3P: Tensor) -> AdapterState:
    """The row of a snapshot."""
    param_P, first_P, second_P = values_3P
    return AdapterState(param_P, (first_P, second_P))


def fresh_row(layout: Layout, rank: int, seed: int) -> AdapterState:
    """A fresh adapter: lora_A from (seed, module name), lora_B zero."""
    param_P = torch.zeros(layout.size)
    for place in layout.places:
        values_RI = init_lora_a(f"{_module(place)}.lora_A.weight", (rank, place.inputs), seed)
        _matrix(param_P, layout, place, 0)[:rank].copy_(values_RI)
    return AdapterState(param_P, None)


def import_row(
    layout: Layout, rank: int, adapter: Mapping[str, Tensor], moments: Mapping[str, Tensor]
) -> AdapterState:
    """The row of a checkpoint's tensors, named as `export_row` does.

    Raises CheckpointError where they are not those of an adapter of this layout and rank.
    """
    param_P, first_P, second_P = (torch.zeros(layout.size) for _ in range(3))
    for place in layout.places:
        for part in PARTS:
            name = _parameter_name(place, part)
            for row_P, tensors, key in (
                (param_P, adapter, _adapter_name(place, part)),
                (first_P, moments, f"{name}/exp_avg"),
                (second_P, moments, f"{name}/exp_avg_sq"),
            ):
                matrix = _used(row_P, layout, place, PARTS.index(part), rank)
                if key not in tensors or tensors[key].shape != matrix.shape:
                    raise CheckpointError(
                        f"{key}: the checkpoint has it not, or not in shape {list(matrix.shape)}: "
                        "it holds another adapter than this trial's"
                    )
                matrix.copy_(tensors[key])
    return AdapterState(param_P, (first_P, second_P))


def export_row(
    layout: Layout, row: AdapterState, rank: int, step: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An adapter and AdamW's state at its own rank, under the names that they have in a PEFT model
    and in `sftray.trial.checkpoint`."""
    assert row.moments is not None  # it has been trained
    adapter, state = {}, {}
    for place in layout.places:
        for which, part in enumerate(PARTS):
            adapter[_adapter_name(place, part)] = _cut(row.param, layout, place, which, rank)
            name = _parameter_name(place, part)
            state[f"{name}/step"] = torch.tensor(float(step))
            for moment, values_P in zip(("exp_avg", "exp_avg_sq"), row.moments, strict=True):
                state[f"{name}/{moment}"] = _cut(values_P, layout, place, which, rank)
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


def _cut(row_P: Tensor, layout: Layout, place: Place, which: int, rank: int) -> Tensor:
    return _used(row_P, layout, place, which, rank).contiguous()


def _used(row_P: Tensor, layout: Layout, place: Place, which: int, rank: int) -> Tensor:
    """View the part of a matrix that an adapter of `rank` has."""
    matrix = _matrix(row_P, layout, place, which)
    return matrix[:rank] if which == 0 else matrix[:, :rank]


def _matrix(row_P: Tensor, layout: Layout, place: Place, which: int) -> Tensor:
    """View a projection's lora_A [rank, input] (which = 0) or lora_B [output, rank] in a row."""
    start, shape = (
        (place.second, (place.outputs, layout.rank))
        if which
        else (place.first, (layout.rank, place.inputs))
    )
    return row_P[start : start + shape[0] * shape[1]].view(shape)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _module(place: Place) -> str:
    part = "self_attn" if place.projection in (*GROUPS[0], *GROUPS[1]) else "mlp"
    return f"model.layers.{place.layer}.{part}.{place.projection}"


def _adapter_name(place: Place, part: str) -> str:
    return f"base_model.model.{_module(place)}.{part}.weight"


def _parameter_name(place: Place, part: str) -> str:
    return f"base_model.model.{_module(place)}.{part}.default.weight"
