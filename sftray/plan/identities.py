"""What the names in a sweep's configuration stand for: data, template, tokenizer, base, packages.

Promise: a start on something else than the sweep's first start is refused, by name, with what it
was and is. No time of a file counts, nor where it lies. Noticed is every change of a source that
its packs would notice, of a file of the tokenizer, of the chat template, of config.json, of the
weights where a file has up to 128 MiB; of larger weights whatever changes a tensor's name, type or
shape, or one of the 12 KiB that are read of each: other training, merging, precision,
quantisation, but not a few bytes changed elsewhere. Price: 1.5 s a GB for files of up to 128
MiB; of a larger one 12 KiB a tensor are read, of 5 GB in 300 tensors 4 MB in 15 ms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from sftray.data.recipe import Recipe
from sftray.data.source.sources import HASHED_WHOLE_BYTES, Source
from sftray.errors import ConfigError, DataError
from sftray.storage import files
from sftray.storage.model_files import FILES
from sftray.storage.paths import SweepPaths

SAMPLED_BYTES = 4096
"""Of a tensor at its beginning, in its middle and at its end."""
PACKS, BASE = "packs", "trial.model"
_REVISIONS = {
    "data.source": "data.revision",
    "data.eval_split": "data.revision",
    "data.test_split": "data.revision",
    BASE: "trial.model_revision",
}
_SHOWN = 12
"""Characters of a digest."""

Identities = Mapping[str, str]
"""By what a configuration calls them: a digest or commit, and behind it what helps a reader."""


def identities(recipe: Recipe) -> Identities:
    """Of all that a sweep is made from, now."""
    data = recipe.data
    known = {"data.source": _source(recipe.train[0])}
    if data.sources:
        pairs = zip(data.mixture, recipe.train, strict=True)
        known = {f"data.sources {one.path}": _source(source) for one, source in pairs}
        known["data.sources' weights"] = ",".join(f"{one.weight:.6g}" for one in data.mixture)
    for split, source in recipe.given.items():
        name = f"{split}_split" if getattr(data, f"{split}_split") else f"{split}_source"
        known[f"data.{name}"] = _source(source)
    if recipe.template is not None:
        known["data.chat_template"] = _digest(recipe.template.encode())
    known |= _base(recipe)
    libraries = cast(Mapping[str, str], recipe.inputs["libraries"])
    known |= {f"package {name}": version for name, version in libraries.items()}
    return {**known, PACKS: recipe.key}


def refuse_other_identities(now: Identities, paths: SweepPaths) -> None:
    """Raise ConfigError where the sweep exists and began with something else."""
    if not files.exists(paths.sweep):
        return
    then: Identities = files.read_object(paths.sweep).get("identities", {})
    if what := changes(then, now):
        fixes = [fix for name in _changed(then, now) if (fix := _fix(name, then.get(name, "")))]
        raise ConfigError(
            f"{paths.root}: what this sweep began with has changed under its name, and trials of "
            f"both could not be compared: {what}",
            "; or ".join([*fixes, "put back what it was, or use --name for a new sweep"]),
        )


def changes(then: Identities, now: Identities) -> str:
    """What has changed, old and new; nothing where nothing has."""
    return "; ".join(
        f"{name} was {then.get(name, 'not recorded')}, is {now.get(name, 'nothing')}"
        for name in _changed(then, now)
    )


def _changed(then: Identities, now: Identities) -> list[str]:
    """The names that stand for something else; the packs only where nothing else says why."""
    names = [
        name
        for name in {**now, **then}
        if then.get(name, "").partition(" ")[0] != now.get(name, "").partition(" ")[0]
    ]
    return [name for name in names if name != PACKS] or names


def _fix(name: str, then: str) -> str:
    """How to have again what a name stood for, where that has a name of its own."""
    kind, _, package = name.partition(" ")
    if kind == "package" and then:
        return f"pip install {package}=={then}"
    commit = then.partition("commit ")[2].partition(",")[0].rstrip(")")
    revision = _REVISIONS.get(name)
    return f"continue on the old one with --set {revision}={commit}" if commit and revision else ""


def _source(source: Source) -> str:
    size = f"{source.size:,} bytes"
    if source.revision is not None:
        size = f"commit {source.revision}, {source.size:,} rows"
    return f"{_digest(source.fingerprint.encode())} ({size})"


def _base(recipe: Recipe) -> dict[str, str]:
    """Of a base from the Hub its commit; of a folder its weights, and its tokenizer's files."""
    if commit := recipe.model_revision:
        return {BASE: f"{commit[:_SHOWN]} (commit {commit})"}
    folder = Path(recipe.model).expanduser()
    patterns = ["*.safetensors", "*.safetensors.index.json", *(["*.py"] * recipe.trust_remote_code)]
    weights = sorted(path for pattern in patterns for path in folder.glob(pattern))
    texts = [f"{path.name} {digest}\n" for path in weights for digest in _of_weights(path)]
    size = sum(path.stat().st_size for path in weights)
    whole = _digest("".join(texts).encode())
    return {BASE: f"{whole} (weights of {size:,} bytes)"} | {
        f"{BASE}'s {name}": _digest((folder / name).read_bytes())
        for name in FILES
        if (folder / name).is_file()
    }


def _of_weights(path: Path) -> Iterator[str]:
    """Digests that together change when the file does, see above."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= HASHED_WHOLE_BYTES:
            yield hashlib.file_digest(file, "sha256").hexdigest()
            return
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, size))
        try:
            tensors = json.loads(header)
        except ValueError as error:
            raise DataError(f"{path}: is no safetensors file", "fetch it again") from error
        sampled = hashlib.sha256(header)
        for name in sorted(tensors.keys() - {"__metadata__"}):
            begin, end = tensors[name]["data_offsets"]
            for place in (begin, (begin + end) // 2, max(begin, end - SAMPLED_BYTES)):
                file.seek(8 + length + place)
                sampled.update(file.read(min(SAMPLED_BYTES, end - place)))
        yield f"{size} {sampled.hexdigest()}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_SHOWN]
