"""A packed dataset on disk: its manifest, and its rows memory-mapped, as a trainer reads them.

Promise: a pack that opens is whole, because the manifest is written last, has a checksum of its own
and names every file with its size. A sweep that finds packs also compares their bytes with the
checksums in the manifest, and so does who copies them. Rows are never copied into memory nor
converted. Price: opening reads one small JSON file and imports neither ray nor torch; checking
reads all, a second or so a GB; a row takes 5 µs.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sftray.config.data_config import WeightedSource
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.packs.manifest import Manifest
from sftray.errors import PacksError
from sftray.storage import files
from sftray.storage.checksums import file_sum
from sftray.storage.paths import PacksPaths, is_uri, join, node_cache

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_COPY_SECONDS = 3600
"""How long to wait for another process of this node that copies the same file."""


@dataclass(frozen=True)
class Packs:
    """A complete pack."""

    root: str
    """<storage>/packs/<key>."""
    manifest: Manifest

    @property
    def key(self) -> str:
        return self.manifest["key"]

    @property
    def max_length(self) -> int:
        return self.manifest["max_length"]

    @functools.cached_property
    def chat(self) -> ChatFormat:
        """What wrote the rows, and writes prompts."""
        tokenizer = files.read_text(PacksPaths(self.root).tokenizer)
        return ChatFormat.from_json(self.manifest["chat_format"], tokenizer)

    @property
    def chat_template(self) -> str:
        """What writes prompts where nothing else is given: data.chat_template, or the model's own
        template, with data.enable_thinking as its default."""
        own, thinks = self.manifest["own_template"], self.manifest["chat_format"]["enable_thinking"]
        if thinks is None:
            return own
        value = str(thinks).lower()
        return (
            "{%- if enable_thinking is not defined %}{% set enable_thinking = "
            f"{value} %}}{{% endif -%}}\n{own}"
        )

    def source_rows(self, split: str) -> list[int]:
        """Rows of each source of a split, in which order they lie behind one another."""
        return [one["rows"] for one in self.manifest["splits"][split]["sources"]]

    def eval_sources(self, mixture: Sequence[WeightedSource]) -> list[tuple[int, float]]:
        """Rows of each source of the evaluation set, and its weight in the eval loss."""
        rows = self.source_rows("eval")
        weights = [one.weight for one in mixture] if len(rows) > 1 else [1.0]
        return [*zip(rows, weights, strict=True)]

    @property
    def end_of_turn(self) -> int:
        """The token that ends the assistant's turns."""
        return self.manifest["end_of_turn_id"]

    def target_entropy(self) -> float:
        """`MappedRows.target_entropy` of the training rows."""
        return MappedRows(self.dataset("train")).target_entropy()

    def rows(self, split: str) -> int:
        """Packed rows of "train" or "eval"."""
        return self.manifest["splits"][split]["rows"]

    def dataset(self, split: str) -> datasets.Dataset:
        """The rows of a split, memory-mapped; copied to this node once where storage is remote."""
        import datasets

        parts = [datasets.Dataset.from_file(str(path)) for path in local_parts(self, split)]
        return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def open_packs(root: str) -> Packs:
    """The packs in a folder or URI. Raises PacksError where they are incomplete or damaged."""
    path = PacksPaths(root).manifest
    if not files.is_file(path):
        raise PacksError(f"{root}: has no manifest.json, so its packs are incomplete; build them")
    try:
        manifest: Manifest = json.loads(files.read_text(path))
        if manifest["sha256"] != manifest_sum(manifest):
            raise ValueError("its checksum is not its own")
        parts = [
            (split, part)
            for split in manifest["splits"]
            for part in manifest["splits"][split]["parts"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PacksError(
            f"{path}: damaged ({error!r}); delete the folder and build again"
        ) from error
    for split, part in parts:
        size = files.info(join(root, split, part["name"])).size
        if size != part["bytes"]:
            raise PacksError(
                f"{root}/{split}/{part['name']}: got {size} bytes, must be {part['bytes']}; delete "
                "the folder and build again"
            )
    return Packs(root, manifest)


def manifest_sum(manifest: Mapping[str, object]) -> str:
    """What "sha256" of a manifest must be: the checksum of all else in it."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_sums(packs: Packs) -> None:
    """Raise PacksError where a file has not the checksum that the manifest names. Parts on a URI
    are checked when a node copies them."""
    tokenizer = PacksPaths(packs.root).tokenizer
    content = files.read_bytes(tokenizer) if files.is_file(tokenizer) else b""
    sums = {"tokenizer.json": hashlib.sha256(content).hexdigest()}
    expected = {"tokenizer.json": packs.manifest["tokenizer_sha256"]}
    for split in () if is_uri(packs.root) else packs.manifest["splits"]:
        for part in packs.manifest["splits"][split]["parts"]:
            name = join(split, part["name"])
            sums[name] = file_sum(Path(packs.root) / name)
            expected[name] = part["sha256"]
    damaged = [name for name in sums if sums[name] != expected[name]]
    if damaged:
        raise PacksError(
            f"{packs.root}: damaged, the checksum of {', '.join(damaged)} is not the manifest's; "
            "delete the folder and build again"
        )


def local_parts(packs: Packs, split: str) -> list[Path]:
    """The Arrow files of a split on this node's disk."""
    parts = packs.manifest["splits"][split]["parts"]
    folder = join(packs.root, split)
    if not is_uri(packs.root):
        return [Path(folder) / part["name"] for part in parts]
    return [localise(folder, part["name"], part["sha256"]) for part in parts]


def localise(folder: str, name: str, sha256: str | None = None) -> Path:
    """This node's copy of a file on a URI, made once however many processes ask, and again where it
    is damaged.

    Raises PacksError where it has not the checksum that it must have.
    """
    from filelock import FileLock

    target = node_copy(folder) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock", timeout=_COPY_SECONDS):
        if not (target.exists() and _is_whole(target, sha256)):
            data = files.read_bytes(join(folder, name))
            if sha256 not in (None, hashlib.sha256(data).hexdigest()):
                raise PacksError(f"{folder}/{name}: damaged, its checksum is not the manifest's")
            files.write_bytes(str(target), data)
    return target


def _is_whole(copy: Path, sha256: str | None) -> bool:
    facts = copy.stat()
    return sha256 is None or _sum_of(copy, facts.st_size, facts.st_mtime_ns) == sha256


@functools.lru_cache(maxsize=1024)
def _sum_of(path: Path, size: int, changed: int) -> str:
    """A file's checksum, taken once a process as long as it does not change."""
    return file_sum(path)


def node_copy(folder: str) -> Path:
    """Where this node keeps its copy of a folder of packs on a URI."""
    scheme, _, rest = folder.partition("://")
    return node_cache() / "packs" / scheme / rest.strip("/")


class MappedRows:
    """The rows of a split, read from its memory-mapped dataset without a copy."""

    def __init__(self, dataset: datasets.Dataset) -> None:
        table = dataset.data
        self._columns = {
            name: [_list_values(chunk) for chunk in table[name].chunks]
            for name in ("input_ids", "labels", "seq_lengths", "documents", "kinds")
            if name in table.column_names
        }
        sizes = [len(offsets) - 1 for offsets, _ in self._columns["input_ids"]]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self.max_length = len(self._cell("input_ids", 0))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: self._cell(name, index) for name in self._columns}

    def tokens(self) -> np.ndarray:
        """Tokens of each row that belong to a document, padding left out; int64 [rows]."""
        tokens = []
        for (starts, values), (documents, _) in zip(
            self._columns["seq_lengths"], self._columns["documents"], strict=True
        ):
            sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
            tokens.append(sums[starts[:-1] + np.diff(documents)] - sums[starts[:-1]])
        return np.concatenate(tokens)

    def target_entropy(self) -> float:
        """Entropy of the frequencies of the tokens that are trained on, in nats: the loss of one
        who knows nothing else."""
        counts = np.zeros(1, dtype=np.int64)
        for _, labels in self._columns["labels"]:
            found = np.bincount(labels[labels >= 0])
            longer, shorter = sorted((counts, found), key=len, reverse=True)
            counts = longer.copy()
            counts[: len(shorter)] += shorter
        shares = counts[counts > 0] / max(counts.sum(), 1)
        return float(-(shares * np.log(shares)).sum())

    def most_documents(self) -> int:
        """The most documents of a row, padding left out."""
        return max(int(np.diff(starts).max()) for starts, _ in self._columns["documents"])

    def _cell(self, name: str, index: int) -> np.ndarray:
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        offsets, values = self._columns[name][chunk]
        row = index - self._starts[chunk]
        cell: np.ndarray = values[offsets[row] : offsets[row + 1]]
        return cell


def _list_values(chunk: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and values of an Arrow list array, without a copy."""
    offsets = chunk.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return offsets, chunk.values.to_numpy(zero_copy_only=False)
