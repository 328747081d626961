"""A model's tokenizer: its files, its special tokens, and the fast backend that tokenises.

Promise: `read_tokenizer` needs neither torch nor the model's weights (10 ms for a local folder),
for plans and keys; `load_tokenizer` is transformers' own AutoTokenizer, for packs.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sftray.errors import DataError, OutageError, TemplateError
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

_NAMED_TOKENS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)


@dataclass(frozen=True)
class ModelTokenizer:
    """A tokenizer as plain values."""

    name: str
    """The model it came with."""
    json: str
    """The fast tokenizer, as the tokenizers library writes it."""
    chat_template: str | None
    special_tokens: tuple[tuple[str, str], ...]
    """(bos_token, "<s>") and so on, as far as there are."""


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


def model_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """A model's config.json, fetched from the Hub where necessary. Raises DataError without one."""
    file = tokenizer_folder(model, revision) / "config.json"
    if not file.is_file():
        raise DataError(f"model: {model} has no config.json, must be a transformers model")
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
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


def fingerprint(folder: Path) -> str:
    """Changes when any of a tokenizer's files does."""
    digest = hashlib.sha256()
    for name in FILES:
        if (folder / name).is_file():
            digest.update(
                f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode()
            )
    return digest.hexdigest()


def commit(folder: Path) -> str | None:
    """The Hub commit that a tokenizer was fetched at; None for a folder of the user's own."""
    return folder.name if folder.parent.name == "snapshots" else None


def load_tokenizer(
    model: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> ModelTokenizer:
    """The tokenizer as transformers loads it (imports torch: 4 s). Raises TemplateError."""
    from transformers import AutoTokenizer

    folder = tokenizer_folder(model, revision, code=trust_remote_code)
    loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if not loaded.is_fast:
        raise TemplateError(
            f"{model}: got {type(loaded).__name__}, must be a fast tokenizer (tokenizer.json): the "
            "loss mask needs the place of each token in the text"
        )
    template = loaded.chat_template
    return ModelTokenizer(
        model,
        loaded.backend_tokenizer.to_str(),
        template["default"] if isinstance(template, dict) else template,
        _text_tokens(loaded.special_tokens_map),
    )


def read_tokenizer(model: str, *, revision: str | None = None) -> ModelTokenizer:
    """The tokenizer from its files alone, without torch: for estimates."""
    folder = tokenizer_folder(model, revision)
    if not (folder / "tokenizer.json").is_file():
        raise TemplateError(f"{model}: has no tokenizer.json, must be a fast tokenizer")
    settings = _read_json(folder / "tokenizer_config.json")
    template: Any = settings.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    tokens = {**_read_json(folder / "special_tokens_map.json"), **settings}
    return ModelTokenizer(
        model,
        (folder / "tokenizer.json").read_text(encoding="utf-8"),
        template,
        _text_tokens({name: tokens[name] for name in _NAMED_TOKENS if tokens.get(name)}),
    )


@functools.lru_cache(maxsize=4)
def backend(tokenizer_json: str) -> Tokenizer:
    """The tokenizer that tokenises, with offsets that cover every character of a token.

    The post-processor is taken out: templates write special tokens themselves, and byte-level ones
    trim the offsets of leading spaces, which would hide a token that straddles two turns.
    """
    values = json.loads(tokenizer_json)
    values.update(post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(values))


def _text_tokens(tokens: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    found = {}
    for name in _NAMED_TOKENS:
        value = tokens.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if text:
            found[name] = str(text)
    return tuple(found.items())


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
