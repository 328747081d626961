"""The sizes of a base, from its config.json, and the parameters of its adapters."""

from __future__ import annotations

from dataclasses import dataclass

from sftray.plan.base_config import with_defaults
from sftray.storage.model_files import BaseConfig

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder layer, in the order of the forward pass."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder's sizes, as far as memory depends on them."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    """Input embedding and head are one matrix."""
    head_norms: bool
    """Queries and keys are normed, as in Qwen3."""
    window: int | None = None
    """Tokens of its sliding-window attention."""

    @classmethod
    def of(cls, base: BaseConfig) -> ModelShape | None:
        """The shape in a config.json; None where it is not that of a dense decoder."""
        base = with_defaults(base)
        needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
        if any(not isinstance(base.get(name), int) for name in (*needed, "num_attention_heads")):
            return None
        if any("expert" in name and value for name, value in base.items()):
            return None
        heads = base["num_attention_heads"]
        return cls(
            hidden=base["hidden_size"],
            inner=base["intermediate_size"],
            layers=base["num_hidden_layers"],
            vocabulary=base["vocab_size"],
            heads=heads,
            kv_heads=base.get("num_key_value_heads") or heads,
            head_dim=base.get("head_dim") or base["hidden_size"] // heads,
            tied=base.get("tie_word_embeddings", False),
            head_norms=base.get("model_type") in ("qwen3", "gemma3_text"),
            window=base.get("sliding_window") if base.get("use_sliding_window", True) else None,
        )

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_dim

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(output, input) of every projection of a layer."""
        return {
            "q_proj": (self.queries, self.hidden),
            "k_proj": (self.keys, self.hidden),
            "v_proj": (self.keys, self.hidden),
            "o_proj": (self.hidden, self.queries),
            "gate_proj": (self.inner, self.hidden),
            "up_proj": (self.inner, self.hidden),
            "down_proj": (self.hidden, self.inner),
        }

    @property
    def linear(self) -> int:
        """Parameters of all linear layers but the head."""
        return self.layers * sum(rows * columns for rows, columns in self.sizes().values())

    @property
    def embedding(self) -> int:
        """Parameters of embedding and head, which are not quantised."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.linear + self.embedding


def adapter_parameters(shape: ModelShape, targets: str | tuple[str, ...], rank: int) -> int:
    """LoRA parameters; targets that are a pattern count as all linear layers."""
    names = adapted(targets)
    sizes = shape.sizes()
    return shape.layers * rank * sum(sum(sizes[name]) for name in names)


def adapted(targets: str | tuple[str, ...]) -> tuple[str, ...]:
    """The projections that `lora_target_modules` names; all of them for what is not such names."""
    names = tuple(name for name in PROJECTIONS if name in targets)
    return PROJECTIONS if isinstance(targets, str) or not names else names
