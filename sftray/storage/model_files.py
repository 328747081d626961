"""A model's files on disk or from the Hub: config.json, tokenizer, safetensors."""

from __future__ import annotations

import difflib
import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast, get_args, get_origin, get_type_hints

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


ADAPTER = "adapter_config.json"
"""Where it lies, transformers loads the adapter, on the base that it names."""

_LARGEST = {
    "hidden_size": 2**24,
    "intermediate_size": 2**26,
    "num_hidden_layers": 10_000,
    "num_attention_heads": 2**16,
    "num_key_value_heads": 2**16,
    "head_dim": 2**16,
    "vocab_size": 2**27,
    "max_position_embeddings": 2**31,
}
"""What a size is at most; far above any model there is, far below what overflows."""
_WORDS: dict[object, str] = {
    str: "text", bool: "true or false", int: "a whole number", float: "a number",
    list: "a list", dict: "an object", type(None): "null",
}  # fmt: skip


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
    hidden_activation: str
    query_pre_attn_scalar: float
    attention_multiplier: float
    embedding_multiplier: float
    residual_multiplier: float
    logits_scaling: float
    logit_scale: float
    no_rope_layers: list[int] | None
    attention_dropout: float
    attn_logit_softcapping: float | None
    final_logit_softcapping: float | None
    is_causal: bool
    use_bidirectional_attention: bool
    layer_types: list[str] | None
    sliding_window: int | None
    use_sliding_window: bool
    rope_parameters: dict[str, object] | None
    rope_scaling: dict[str, object] | None
    num_experts: int
    num_local_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    mlp_only_layers: list[int] | None
    decoder_sparse_step: int
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

    patterns = [*FILES, ADAPTER, *(["*.py"] if code else [])]
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
    """A model's config.json, fetched from the Hub where necessary; with other parts than a language
    model, what it says of that. Raises DataError without one, or where an adapter lies there."""
    file = tokenizer_folder(model, revision) / "config.json"
    if (adapter := file.with_name(ADAPTER)).is_file():
        base = json_object(adapter).get("base_model_name_or_path") or "its base"
        what = "an adapter beside its weights" if file.is_file() else "an adapter alone"
        raise DataError(
            f"model: {model} has {what} ({ADAPTER}), must be a base without one",
            f"take {base}, merge the adapter into it first, or move {ADAPTER} away",
        )
    if not file.is_file():
        raise DataError(f"model: {model} has no config.json, must be a transformers model")
    config = json_object(file)
    _check(config, file)
    text = config.get("text_config")  # the rest of it is neither loaded nor trained
    return cast("BaseConfig", {**config, **text} if isinstance(text, dict) else config)


def weights_folder(model: str, revision: str | None = None) -> Path | None:
    """Where a model's safetensors lie on this machine; None where they are still on the Hub."""
    folder = tokenizer_folder(model, revision)
    return folder if any(folder.glob("*.safetensors")) else None


def tensor_names(model: str) -> set[str]:
    """What the tensors of a model's folder are called; nothing of a model on the Hub."""
    from safetensors import safe_open

    names: set[str] = set()
    for file in Path(model).expanduser().glob("*.safetensors"):
        with safe_open(file, framework="np") as opened:
            names.update(opened.keys())
    return names


def json_object(file: Path) -> dict[str, object]:
    """What a file of a model holds. Raises DataError where that is no JSON object."""
    try:
        values = json.loads(text_file(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"model: {file}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"model: {file}: got {reprlib.repr(values)}, must be a JSON object")
    return values


def text_file(file: Path) -> str:
    """What a file of a model or a template says. Raises DataError where that is no text."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 ({error})") from error


def _check(config: Mapping[str, object], file: Path) -> None:
    """Raise DataError where a value that is read here cannot be a model's. A size may be a list, of
    a size for each layer."""
    if "model_type" not in config:
        raise DataError(f"model: {file}: has no model_type, must be a transformers model's")
    for name, hint in get_type_hints(BaseConfig).items():
        value, most = config.get(name), _LARGEST.get(name)
        kinds = {get_origin(kind) or kind for kind in get_args(hint) or (hint,)}
        kinds |= {dict} if BaseConfig in kinds else {int} if float in kinds else set()
        right = value is None or type(value) in kinds
        if most:
            right = value is None or type(value) in (int, list)
            right &= not isinstance(value, int) or 1 <= value <= most
        if not right:
            must = (
                f"1 … {most:,}"
                if most
                else " or ".join(_WORDS[kind] for kind in _WORDS if kind in kinds)
            )
            raise DataError(f"model: {file}: {name}: got {reprlib.repr(value)}, must be {must}")
    text = config.get("text_config")
    if isinstance(text, dict):
        _check({"model_type": "", **text}, file)


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
