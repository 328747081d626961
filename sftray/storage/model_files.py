"""A model's files on disk or from the Hub: config.json, tokenizer, safetensors."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import TypedDict

from sftray.errors import DataError, OutageError
from sftray.storage.hub import snapshot

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "config.json",
)
"""What a tokenizer is made of; a change in any of them is a change of the packs."""


class BaseConfig(TypedDict, total=False):
    """What is read of a base's config.json; it has other keys, too."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None
    head_dim: int | None
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    hidden_act: str
    attention_dropout: float
    attn_logit_softcapping: float | None
    is_causal: bool
    use_bidirectional_attention: bool
    layer_types: list[str] | None
    sliding_window: int | None
    use_sliding_window: bool
    rope_parameters: dict[str, object] | None
    rope_scaling: dict[str, object] | None
    quantization_config: dict[str, object] | None
    auto_map: dict[str, str]
    text_config: BaseConfig
    """Of a model with other inputs as well."""


def tokenizer_folder(model: str, revision: str | None, *, code: bool = False) -> Path:
    """The local folder of a model's tokenizer files, fetched from the Hub where necessary."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    from sftray.storage.hub_errors import HUB_ERRORS

    patterns = [*FILES, "*.py"] if code else list(FILES)
    try:
        return snapshot(model, revision, patterns)
    except OutageError:
        raise
    except HUB_ERRORS as error:
        names = (
            [] if model.count("/") != 1 or not folder.parent.is_dir() else os.listdir(folder.parent)
        )
        near = difflib.get_close_matches(folder.name, names, n=1)
        hint = f"; did you mean {folder.parent / near[0]}?" if near else ""
        raise DataError(
            f"model: {model} is no folder, and its tokenizer could not be fetched ({error}){hint}"
        ) from error


def model_config(model: str, revision: str | None = None) -> BaseConfig:
    """A model's config.json, fetched from the Hub where necessary. Raises DataError without one."""
    file = tokenizer_folder(model, revision) / "config.json"
    if not file.is_file():
        raise DataError(f"model: {model} has no config.json, must be a transformers model")
    config: BaseConfig = json.loads(file.read_text(encoding="utf-8"))
    return config


def require_safetensors(model: str, revision: str | None = None) -> None:
    """Raise DataError where a model's weights are pickles: reading one can run code."""
    names = _file_names(model, revision)
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise DataError(
            f"model: {model} has its weights as {pickles[0]}, must have .safetensors; where you "
            "trust it, load it once with transformers and save it again with save_pretrained"
        )


def _file_names(model: str, revision: str | None) -> list[str]:
    """What lies in a model's folder or on the Hub; nothing where the Hub does not say."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return [path.name for path in folder.iterdir()]
    from huggingface_hub import HfApi

    from sftray.storage.hub_errors import HUB_ERRORS

    try:
        found = HfApi().model_info(model, revision=revision, timeout=10).siblings or []
    except HUB_ERRORS:
        return []  # loading finds it in the cache, or says what is wrong
    return [one.rfilename for one in found]
