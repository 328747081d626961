"""A model's tokenizer: its files, its special tokens, and the fast backend that tokenises.

Promise: `read_tokenizer` needs neither torch nor the model's weights (10 ms for a local folder),
for plans and keys; `load_tokenizer` is transformers' own AutoTokenizer, for packs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from sftray.errors import DataError, TemplateError
from sftray.storage.faults import plainly
from sftray.storage.model_files import FILES, json_object, text_file, tokenizer_folder
from sftray.storage.outages import first_line

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
    _settings(folder)
    try:
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError) as error:
        raise DataError(
            f"model: the tokenizer in {folder} cannot be loaded "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    if not loaded.is_fast:
        raise TemplateError(
            f"{model}: got {type(loaded).__name__}, must be a fast tokenizer (tokenizer.json): the "
            "loss mask needs the place of each token in the text"
        )
    template = loaded.chat_template
    return ModelTokenizer(
        model,
        loaded.backend_tokenizer.to_str(),
        template.get("default") if isinstance(template, dict) else template,
        _text_tokens(loaded.special_tokens_map),
    )


def read_tokenizer(model: str, *, revision: str | None = None) -> ModelTokenizer:
    """The tokenizer from its files alone, without torch: for estimates. Read again where they have
    changed."""
    folder = tokenizer_folder(model, revision)
    there = (path.stat() for name in FILES if (path := folder / name).is_file())
    return read_files(model, folder, tuple((one.st_mtime_ns, one.st_size) for one in there))


@functools.lru_cache(maxsize=4)
def read_files(model: str, folder: Path, state: tuple[tuple[int, int], ...]) -> ModelTokenizer:
    """`state`: when the files were written, and their bytes."""
    if not (folder / "tokenizer.json").is_file():
        raise TemplateError(f"{model}: has no tokenizer.json, must be a fast tokenizer")
    settings = _settings(folder)
    template = settings.get("chat_template")
    if isinstance(template, list):  # of several, by name
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if (folder / "chat_template.jinja").is_file():
        template = text_file(folder / "chat_template.jinja")
    return ModelTokenizer(
        model,
        text_file(folder / "tokenizer.json"),
        template if isinstance(template, str) else None,
        _text_tokens(settings),
    )


@functools.lru_cache(maxsize=8)
def backend(tokenizer_json: str) -> Tokenizer:
    """The tokenizer that tokenises, with offsets that cover every character of a token.

    The post-processor is taken out: templates write special tokens themselves, and byte-level ones
    trim the offsets of leading spaces, which would hide a token that straddles two turns.
    """
    with plainly("tokenizer.json", _is_none):
        values = json.loads(tokenizer_json)
        values.update(post_processor=None, truncation=None, padding=None)
        return Tokenizer.from_str(json.dumps(values))


def special_tokens(tokenizer_json: str, named: Iterable[tuple[str, str]]) -> list[str]:
    """All special tokens, longest first: those that the tokenizer has as such, and the `named`."""
    added = backend(tokenizer_json).get_added_tokens_decoder().values()
    tokens = {token.content for token in added if token.special} | {text for _, text in named}
    return sorted(tokens, key=lambda token: (-len(token), token))


@functools.lru_cache(maxsize=8)
def swallowing_tokens(tokenizer_json: str) -> frozenset[int]:
    """The tokens that take the white space after or before them along, as Phi-3's do."""
    added = backend(tokenizer_json).get_added_tokens_decoder()
    return frozenset(number for number, token in added.items() if token.rstrip or token.lstrip)


def _is_none(error: Exception, name: str) -> Exception:
    """tokenizers raises nothing narrower than Exception."""
    return DataError(f"model: its {name} is no fast tokenizer ({error})")


def _text_tokens(tokens: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    texts = {name: _text_of(tokens.get(name)) for name in _NAMED_TOKENS}
    return tuple((name, text) for name, text in texts.items() if text)


def _text_of(token: object) -> str:
    return str((token.get("content") if isinstance(token, dict) else token) or "")


def _settings(folder: Path) -> dict[str, object]:
    """special_tokens_map.json and, before it, tokenizer_config.json. Raises DataError."""
    files = [folder / "special_tokens_map.json", folder / "tokenizer_config.json"]
    settings: dict[str, object] = {}
    for file in files:
        settings |= json_object(file) if file.is_file() else {}
    for name in _NAMED_TOKENS:
        token = settings.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if not isinstance(text, str | None):
            raise DataError(
                f"model: {files[1]}: {name}: got {reprlib.repr(token)}, must be text, or null"
            )
    template = settings.get("chat_template")
    named = template if isinstance(template, list) else []
    if not isinstance(template, str | list | None) or not all(map(_is_named, named)):
        raise DataError(
            f"model: {files[1]}: chat_template: got {reprlib.repr(template)}, must be text, or "
            "texts by name"
        )
    return settings


def _is_named(entry: object) -> bool:
    texts = [entry.get(key) for key in ("name", "template")] if isinstance(entry, dict) else [None]
    return all(isinstance(text, str) for text in texts)
