"""A model's tokenizer: its files, its special tokens, and the fast backend that tokenises.

Promise: `read_tokenizer` needs neither torch nor the model's weights (10 ms for a local folder),
for plans and keys; `load_tokenizer` is transformers' own AutoTokenizer, for packs.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from sftray.errors import TemplateError
from sftray.storage.model_files import FILES, tokenizer_folder

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
    template = settings.get("chat_template")
    if isinstance(template, list):  # of several, by name
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    tokens = {**_read_json(folder / "special_tokens_map.json"), **settings}
    return ModelTokenizer(
        model,
        (folder / "tokenizer.json").read_text(encoding="utf-8"),
        template if isinstance(template, str) else None,
        _text_tokens(tokens),
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


def _text_tokens(tokens: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    texts = {}
    for name in _NAMED_TOKENS:
        value = tokens.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if text:
            texts[name] = str(text)
    return tuple(texts.items())


def _read_json(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    values: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return values
