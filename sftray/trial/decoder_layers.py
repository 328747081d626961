"""Where a transformers model has its decoder layers, and which of them differ in kind."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

SCALARS = (bool, int, float, str, type(None))
NOT_A_KIND = frozenset({"layer_idx", "layer_id", "training", "layer_index", "block_idx"})
"""Attributes in which layers of one kind differ."""
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "sliding_window_size")


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of the language model, in order. Raises ValueError where there are none."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and "vision" not in name
    ]
    if not lists:
        raise ValueError(f"{type(model).__name__}: got no list of layers")
    # a configuration may count two attentions of one layer
    known = [layers for layers in lists if len(layers) == count]
    return max(known or lists, key=lambda layers: sum(p.numel() for p in layers.parameters()))


def first_of_each_kind(model: PreTrainedModel) -> list[int]:
    """The number of the first layer of each kind: layers are alike where their modules, shapes and
    settings are, and every list of the configuration with an entry a layer."""
    layers = decoder_layers(model)
    config = model.config.get_text_config().to_dict()
    lists = [v for v in config.values() if isinstance(v, list | tuple) and len(v) == len(layers)]
    kinds: dict[Hashable, int] = {}
    for number, layer in enumerate(layers):
        kind = (*(repr(values[number]) for values in lists), _kind(layer))
        kinds.setdefault(kind, number)
    return list(kinds.values())


def has_experts(layer: nn.Module) -> bool:
    """Whether the layer routes its tokens."""
    names = [f"{name} {type(module).__name__}".lower() for name, module in layer.named_modules()]
    return any("expert" in name or "router" in name or "moe" in name for name in names)


def longest_window(model: PreTrainedModel) -> int | None:
    """The longest window of the model's attention, in tokens; None where it has none."""
    config = model.config.get_text_config().to_dict()
    found: list[Any] = [config.get(name) for name in WINDOWS]
    windows = [value for value in found if isinstance(value, int) and value > 0]
    return max(windows, default=None)


def _kind(layer: nn.Module) -> Hashable:
    return tuple(
        (
            name,
            type(module).__name__,
            tuple(
                (key, value)
                for key, value in sorted(vars(module).items())
                if isinstance(value, SCALARS) and key not in NOT_A_KIND
            ),
            tuple((key, p.shape, p.dtype) for key, p in module.named_parameters(recurse=False)),
        )
        for name, module in layer.named_modules()
    )
