"""The sizes of a base, from its config.json, and the parameters of its adapters."""

from __future__ import annotations

from dataclasses import dataclass

from sftray.plan.base_config import with_defaults
from sftray.storage.model_files import BaseConfig

HEAD_NORMS = ("qwen3", "gemma3_text", "olmo2", "olmo3", "exaone4")
"""Model types whose queries and keys are normed."""
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
    experts: int = 0
    """A layer; then `inner` is that of a dense part beside them, 0 without one."""
    expert_inner: int = 0
    active: int = 0
    """Experts a token goes to."""

    @classmethod
    def of(cls, base: BaseConfig) -> ModelShape | None:
        """The shape in a config.json; None where it is neither that of a dense decoder nor that of
        one with experts in all of its layers."""
        base = with_defaults(base)
        experts = Experts.of(base)
        if experts is None:
            return None
        needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
        if any(not isinstance(base.get(name), int) for name in (*needed, "num_attention_heads")):
            return None
        heads = base["num_attention_heads"]
        return cls(
            hidden=base["hidden_size"],
            inner=experts.beside if experts.number else base["intermediate_size"],
            layers=base["num_hidden_layers"],
            vocabulary=base["vocab_size"],
            heads=heads,
            kv_heads=base.get("num_key_value_heads") or heads,
            head_dim=base.get("head_dim") or base["hidden_size"] // heads,
            tied=base.get("tie_word_embeddings", False),
            head_norms=base.get("model_type") in HEAD_NORMS,
            window=base.get("sliding_window") if base.get("use_sliding_window", True) else None,
            experts=experts.number,
            expert_inner=experts.inner,
            active=experts.active,
        )

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_dim

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(output, input) of every projection of a layer."""
        attention = {
            "q_proj": (self.queries, self.hidden),
            "k_proj": (self.keys, self.hidden),
            "v_proj": (self.keys, self.hidden),
            "o_proj": (self.hidden, self.queries),
        }
        if not self.inner:
            return attention
        return attention | {
            "gate_proj": (self.inner, self.hidden),
            "up_proj": (self.inner, self.hidden),
            "down_proj": (self.hidden, self.inner),
        }

    @property
    def linear(self) -> int:
        """Parameters of all linear layers but the head; experts are none."""
        return self.layers * sum(rows * columns for rows, columns in self.sizes().values())

    @property
    def embedding(self) -> int:
        """Parameters of embedding and head, which are not quantised."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def in_experts(self) -> int:
        """Parameters of all experts."""
        return self.layers * self.experts * 3 * self.hidden * self.expert_inner

    @property
    def parameters(self) -> int:
        return self.linear + self.embedding + self.in_experts


@dataclass(frozen=True)
class Experts:
    """The experts of each layer."""

    number: int = 0
    inner: int = 0
    active: int = 0
    beside: int = 0
    """Inner size of what every token goes through besides."""

    @classmethod
    def of(cls, base: BaseConfig) -> Experts | None:
        """Those of a config.json, none of a dense base; None where they are not known."""
        if not has_experts(base):
            return cls()
        own = base.get("moe_intermediate_size")
        inner = (
            own if base.get("model_type") in INNER_OF_THEIR_OWN else base.get("intermediate_size")
        )
        number = base.get("num_local_experts") or base.get("num_experts")
        some_layers = base.get("mlp_only_layers") or base.get("decoder_sparse_step", 1) != 1
        active = base.get("num_experts_per_tok")
        known = base.get("model_type") in EVERYWHERE and not some_layers
        if not (known and inner and number and active):
            return None
        return cls(number, inner, active, base.get("shared_expert_intermediate_size", 0))


INNER_OF_THEIR_OWN = ("qwen2_moe", "qwen3_moe")
EVERYWHERE = ("mixtral", "olmoe", "gpt_oss", "phimoe", *INNER_OF_THEIR_OWN)
"""Model types with plain attention, and experts in all layers."""


def has_experts(base: BaseConfig) -> bool:
    """Whether the base routes its tokens."""
    return any("expert" in name and value for name, value in base.items())


def adapter_parameters(
    shape: ModelShape, targets: str | tuple[str, ...], rank: int, experts: tuple[str, ...] = ()
) -> int:
    """LoRA parameters; targets that are a pattern count as all linear layers. `experts`: parameters
    that are adapted besides."""
    sizes = shape.sizes()
    wide = sum(sum(sizes[name]) for name in adapted(targets) if name in sizes)
    for name in experts:
        inner = shape.expert_inner * (2 if "gate_up" in name else 1)
        wide += shape.experts * (shape.hidden + inner)
    return shape.layers * rank * wide


def adapted(targets: str | tuple[str, ...]) -> tuple[str, ...]:
    """The projections that `lora_target_modules` names; all of them for what is not such names."""
    names = tuple(name for name in PROJECTIONS if name in targets)
    return PROJECTIONS if isinstance(targets, str) or not names else names
