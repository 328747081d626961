"""What a pack is made from, and the key that names it.

Promise: whatever changes a byte of a pack changes its key: the sources' content, the columns, the
split rule and seed, the tokenizer, the template and its date, max_length, the versions of the code
that renders, tokenises, packs and writes. Price: no ray, no torch; hashing 128 MiB takes 0.1 s.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sftray.config import DataConfig
from sftray.data.chat.named_templates import named_template, template_names
from sftray.data.chat.tokenizer import commit, fingerprint
from sftray.data.packs.packing import PACKING_VERSION
from sftray.data.packs.packs import Packs, open_packs
from sftray.data.source.readers import CHUNK_BYTES
from sftray.data.source.sources import Source, first_rows, names_files, open_source
from sftray.errors import DataError, PacksError
from sftray.storage.model_files import text_file, tokenizer_folder
from sftray.storage.paths import PacksPaths

PART_POSITIONS = 2**21
"""Tokens and padding of a part of the packs: 16 MiB of ids and labels."""
FORMAT_VERSION = 9
"""Raise it when the same input would give other bytes for a reason that no other input names."""

_LIBRARIES = ("transformers", "tokenizers", "trl", "jinja2", "pyarrow", "numpy", "datasets")


@dataclass(frozen=True)
class Recipe:
    """The sources that were found for a DataConfig, and the key of the packs made from them."""

    data: DataConfig
    model: str
    model_revision: str | None
    """The Hub commit of the tokenizer."""
    trust_remote_code: bool
    train: tuple[Source, ...]
    """As `data.mixture`."""
    given: Mapping[str, Source]
    """By split ("eval", "test") those that are not held out of `train`."""
    template: str | None
    """Text of data.chat_template."""
    inputs: dict[str, object]
    """Everything that the key is made of."""
    part_positions: int

    @property
    def rows_of_a_part(self) -> int:
        return max(1, self.part_positions // self.data.max_length)

    @property
    def key(self) -> str:
        text = json.dumps(self.inputs, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def files(self) -> list[str]:
        """What is read of the sources, but for datasets of the Hub."""
        sources = (*self.train, *self.given.values())
        chunks = (chunk for source in sources for chunk in source.chunks)
        return [*dict.fromkeys(chunk.path for chunk in chunks if chunk.kind != "hub")]

    def resized(self, *, max_length: int, eval_fraction: float) -> Recipe:
        """The same sources in rows of another length, with another share of `train` held out."""
        data = replace(self.data, max_length=max_length, eval_fraction=eval_fraction)
        sizes = {"max_length": max_length, "eval_fraction": eval_fraction}
        return replace(self, data=data, inputs={**self.inputs, **sizes})


def make_recipe(
    data: DataConfig,
    model: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    part_positions: int = PART_POSITIONS,
) -> Recipe:
    """Find the sources and the tokenizer. Raises DataError where one is not there."""
    train = tuple(_open(one.path, data, chunk_bytes) for one in data.mixture)
    given = {
        "eval": _given(data.eval_source, data.eval_split, data),
        "test": _given(data.test_source, data.test_split, data),
    }
    known = {split: source for split, source in given.items() if source is not None}
    template = _read_template(data.chat_template)
    folder = tokenizer_folder(model, revision, code=trust_remote_code)
    inputs: dict[str, object] = {
        "source": [one.fingerprint for one in train] if len(train) > 1 else train[0].fingerprint,
        **{f"{split}_source": one and one.fingerprint for split, one in given.items()},
        "columns": data.columns if isinstance(data.columns, str) else dict(data.columns),
        "eval_fraction": None if "eval" in known else data.eval_fraction,
        "test_fraction": None if "test" in known else data.test_fraction,
        "num_eval_conversations": data.num_eval_conversations,
        "max_conversations": data.max_conversations,
        "max_length": data.max_length,
        "seed": data.seed,
        "tokenizer": fingerprint(folder),
        "template": template,
        "template_date": data.template_date,
        "thinking": data.thinking,
        "enable_thinking": data.enable_thinking,
        "train_on": data.train_on,
        "allow_special_tokens": data.allow_special_tokens,
        "packing_version": PACKING_VERSION,
        "format_version": FORMAT_VERSION,
        **({} if data.hold_out else {"hold_out": False}),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
    return Recipe(
        data,
        model,
        commit(folder),
        trust_remote_code,
        train,
        known,
        template,
        inputs,
        part_positions,
    )


def _open(path: str, data: DataConfig, chunk_bytes: int) -> Source:
    """A source of the training data. Of several a file has no split, and `columns` renames those of
    the sources that have one of them."""
    source = open_source(
        path,
        split="train" if data.sources and names_files(path) else data.split,
        revision=data.revision,
        max_rows=data.max_conversations,
        columns=data.columns,
        chunk_bytes=chunk_bytes,
    )
    if not (data.sources and source.names):
        return source
    plain = replace(source, names=())
    known = {name for row in first_rows(plain, 1) for name in row}
    return source if known & dict(source.names).keys() else plain


def _given(path: str | None, split: str | None, data: DataConfig) -> Source | None:
    """An evaluation or test set of its own: a source, or another split of the training data's."""
    if path is not None:
        part = "train" if names_files(path) else data.split
        return open_source(path, split=part, columns=data.columns)
    if split is None:
        return None
    whole = data.mixture[0].path
    return open_source(whole, split=split, revision=data.revision, columns=data.columns)


def _read_template(name: str | None) -> str | None:
    """The text of a file, or of a named template."""
    if name is None:
        return None
    if Path(name).expanduser().is_file():
        return text_file(Path(name).expanduser())
    if (template := named_template(name)) is not None:
        return template
    raise DataError(
        f"data.chat_template: got {name!r}, must be the path of a Jinja template or a known name",
        f"the names are {', '.join(template_names())}",
    )


def find_packs(recipe: Recipe, *, storage: str) -> Packs | None:
    """The packs of a recipe, if they are there whole; builds nothing."""
    try:
        return open_packs(PacksPaths.of(storage, recipe.key).root)
    except PacksError:
        return None
