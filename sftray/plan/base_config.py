"""What a base's config.json says of its attention, and what it leaves to transformers' defaults.

Promise: neither torch nor transformers is needed, so `--plan` knows it: transformers' own
configurations import torch. A test holds `DEFAULTS` to the installed transformers.
"""

from __future__ import annotations

from typing import NoReturn

from sftray.config import SweepConfig
from sftray.config.points import all_values
from sftray.errors import ConfigError
from sftray.storage.model_files import BaseConfig

_COMMON: BaseConfig = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
}
_LLAMA: BaseConfig = {"vocab_size": 32000, "intermediate_size": 11008, "num_key_value_heads": None}
_MISTRAL: BaseConfig = {
    "vocab_size": 32000,
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}
_QWEN: BaseConfig = {"use_sliding_window": False, "sliding_window": 4096}

_GEMMA_3: BaseConfig = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
}

_GEMMA: BaseConfig = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
}
_GEMMA_2 = _GEMMA_3 | {
    "vocab_size": 256000,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
_COHERE: BaseConfig = _COMMON | {
    "vocab_size": 256000,
    "hidden_size": 8192,
    "intermediate_size": 22528,
    "num_hidden_layers": 40,
    "num_attention_heads": 64,
    "num_key_value_heads": None,
    "tie_word_embeddings": True,
}
_GLM: BaseConfig = _COMMON | {
    "vocab_size": 151552,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "head_dim": 128,
}

DEFAULTS: dict[str, BaseConfig] = {
    "llama": _COMMON | _LLAMA,
    "mistral": _COMMON | _MISTRAL,
    "qwen2": _COMMON | _QWEN,
    "qwen3": _COMMON | _QWEN | {"head_dim": 128},
    "gemma3_text": _GEMMA_3,
    "gemma": _GEMMA,
    "gemma2": _GEMMA_2,
    "vaultgemma": _GEMMA_2,
    "cohere": _COHERE,
    "cohere2": _COHERE | {"sliding_window": 4096},
    "cwm": _COMMON
    | {
        "vocab_size": 128256,
        "hidden_size": 6144,
        "intermediate_size": 21504,
        "num_hidden_layers": 64,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "sliding_window": 8192,
    },
    "ernie4_5": _COMMON
    | {
        "vocab_size": 103424,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "helium": _COMMON
    | {
        "vocab_size": 48000,
        "hidden_size": 2560,
        "intermediate_size": 7040,
        "num_hidden_layers": 24,
        "num_attention_heads": 20,
        "num_key_value_heads": 20,
        "head_dim": 128,
    },
    "glm": _GLM,
    "smollm3": _COMMON
    | {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "ministral": _COMMON | _MISTRAL,
    "ministral3": _COMMON
    | _MISTRAL
    | {"vocab_size": 131072, "num_hidden_layers": 34, "head_dim": 128, "sliding_window": None},
    "phi3": _COMMON
    | {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_key_value_heads": None,
    },
    "olmo2": _COMMON | _LLAMA | {"vocab_size": 50304},
    "olmo3": _COMMON | _LLAMA | {"vocab_size": 50304, "sliding_window": 4096},
    "granite": _COMMON | _LLAMA,
    "glm4": _GLM,
    "seed_oss": _COMMON
    | {
        "vocab_size": 155136,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 80,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_dropout": 0.1,
    },
    "exaone4": _COMMON | {"vocab_size": 102400, "intermediate_size": 16384, "sliding_window": 4096},
}
"""Model type → what transformers takes where config.json leaves a key out, of the keys that are
read here."""


ANYWHERE = ("sdpa", "eager", "apart")
"""Attentions that need no GPU."""


def with_defaults(base: BaseConfig) -> BaseConfig:
    """A config.json with the defaults of its model type filled in; null is a value."""
    return DEFAULTS.get(base.get("model_type", ""), BaseConfig()) | base


def special_attention(base: BaseConfig) -> str | None:
    """What the base's attention has that PyTorch's variable-length kernel does not compute, as "a
    soft cap"; None where its configuration says nothing of the kind. Sinks, for one, are in no
    configuration."""
    base = with_defaults(base)
    base = base | (base.get("text_config") or BaseConfig())
    if "chunked_attention" in (base.get("layer_types") or ()):
        return "chunked attention"
    if base.get("attn_logit_softcapping"):
        return "a soft cap"
    if base.get("is_causal") is False or base.get("use_bidirectional_attention"):
        return "attention that is not causal"
    if base.get("attention_dropout"):
        return "attention dropout"
    return None


def require_attention(sweep: SweepConfig, base: BaseConfig) -> None:
    """Raise ConfigError where trials ask for varlen on a base that has more than it computes, or
    for one that needs a GPU in float32."""
    asked = all_values(sweep, "attention")
    special = special_attention(base)
    if special and "varlen" in asked:
        refuse_varlen(f"the base has {special}")
    if all_values(sweep, "base_precision") == {"fp32"}:
        require_anywhere(sweep, "an fp32 base")


def require_anywhere(sweep: SweepConfig, on: str) -> None:
    """Raise ConfigError where trials ask for an attention that is not computed `on` this."""
    if others := all_values(sweep, "attention") - {None, *ANYWHERE}:
        name = sorted(map(str, others))[0]
        raise ConfigError(
            f"trial.attention: got {name!r} on {on}, must be of {', '.join(ANYWHERE)}: others need "
            "16 bits on a GPU",
            "leave it None to take what works",
        )


def refuse_varlen(reason: str) -> NoReturn:
    """Raise ConfigError for a trial that asks for varlen."""
    raise ConfigError(
        f"trial.attention: got 'varlen', but {reason}, which varlen does not compute; must be an "
        "attention that does",
        "leave it None to take one",
    )
