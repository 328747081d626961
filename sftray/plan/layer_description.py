"""A decoder layer as data: what the bank computes of a base, read from its configuration.

Promise: neither torch nor transformers is needed. What a configuration does not say, because it
follows from the model type, is a line of `FAMILIES`; the next such model is a line there and a
test. The proof of the loaded base (`trial.equality`) holds each line to transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftray.storage.model_files import BaseConfig


@dataclass(frozen=True)
class Norms:
    """The names of a layer's norms; None where it has none there."""

    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None


@dataclass(frozen=True)
class Family:
    """What a model type's decoder layers are, where a configuration does not say it."""

    norms: Norms = Norms()
    one_plus: bool = False
    """Norms multiply by 1 + weight, in float32."""
    windowed: bool = False
    """`sliding_window` is every layer's, not that of the layers that `layer_types` names."""
    fields: frozenset[str] = frozenset()
    """Fields of its config.json that are computed besides those of every family."""


_SANDWICH = Norms(
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)

FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(windowed=True),
    "qwen2": Family(),
    "qwen3": Family(),
    "gemma3_text": Family(
        norms=_SANDWICH,
        one_plus=True,
        fields=frozenset(
            """hidden_activation query_pre_attn_scalar sliding_window_pattern
            rope_local_base_freq""".split()  # noqa: SIM905
        ),
    ),
}
"""The model types whose decoder layers the bank computes; SmolLM and SmolLM2 are of type llama."""

LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
ACTIVATIONS = {"silu": False, "gelu_pytorch_tanh": True}
"""Activation → whether it is GELU by tanh."""


@dataclass(frozen=True)
class LayerKind:
    """In what the layers of one base differ."""

    window: int | None = None
    """Tokens that a token sees, itself included; None: all before it."""
    rotary: str = ""
    """Whose rotary embedding it has: that of a layer type, or the base's only one."""


@dataclass(frozen=True)
class Description:
    """The decoder layers of a base."""

    family: Family
    kinds: tuple[LayerKind, ...]
    """Of each layer."""
    scale: float
    """Attention scores are multiplied by it."""
    gelu: bool
    """GELU by tanh gates the feed-forward layer, not SiLU."""


def describe(config: BaseConfig, head_dim: int) -> Description:
    """The layers of a base with this configuration of a loaded model, which the bank computes."""
    base: Mapping[str, object] = config
    family = FAMILIES[str(base["model_type"])]
    count = config["num_hidden_layers"]
    types = config.get("layer_types") or [""] * count
    own = set(config.get("rope_parameters") or {}) & LAYER_TYPES
    window = config.get("sliding_window")
    kinds = tuple(
        LayerKind(
            window if family.windowed or kind == "sliding_attention" else None,
            kind if kind in own else "",
        )
        for kind in types
    )
    scale = float(config.get("query_pre_attn_scalar") or head_dim) ** -0.5
    return Description(family, kinds, scale, ACTIVATIONS[activation(config)])


def activation(config: BaseConfig) -> str:
    """What gates the feed-forward layer."""
    return str(config.get("hidden_activation") or config["hidden_act"])


def rotary_fields(config: BaseConfig) -> list[Mapping[str, object]]:
    """What a config.json says of its rotary embedding, or of that of each layer type."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    parts = [rope.get(kind) for kind in sorted(LAYER_TYPES)]
    own = {name: value for name, value in rope.items() if name not in LAYER_TYPES}
    return [own, *(part for part in parts if isinstance(part, dict))]
