"""A packed dataset on disk: its manifest, and its rows memory-mapped.

Promise: a pack that opens is whole, because the manifest is written last and names every part with
its size; rows are never copied into memory. Price: opening reads one small JSON file and imports
neither ray nor torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftray import storage as files
from sftray.config import DataConfig
from sftray.data.estimate import estimate_packs as estimate_packs
from sftray.data.recipe import make_recipe
from sftray.errors import PacksError
from sftray.paths import PacksPaths, is_uri, join, node_cache

if TYPE_CHECKING:
    import datasets

SPLITS = ("train", "eval")
_COPY_SECONDS = 3600
"""How long to wait for another process of this node that copies the same file."""


@dataclass(frozen=True)
class Packs:
    """A complete pack."""

    root: str
    """<storage>/packs/<key>."""
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    @property
    def max_length(self) -> int:
        return int(self.manifest["max_length"])

    @property
    def chat_template(self) -> str:
        """What prompts are written with: data.chat_template, or the model's own template."""
        return str(self.manifest["own_template"])

    @property
    def end_of_turn(self) -> int:
        """The token that ends the assistant's turns."""
        return int(self.manifest["end_of_turn_id"])

    def rows(self, split: str) -> int:
        """Packed rows of "train" or "eval"."""
        return int(self.manifest["splits"][split]["rows"])

    def dataset(self, split: str) -> datasets.Dataset:
        """The rows of a split, memory-mapped; copied to this node once where storage is remote."""
        import datasets

        parts = [datasets.Dataset.from_file(str(path)) for path in local_parts(self, split)]
        return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def open_packs(root: str) -> Packs:
    """The packs in a folder or URI. Raises PacksError where they are incomplete or damaged."""
    path = PacksPaths(root).manifest
    if not files.exists(path):
        raise PacksError(f"{root}: has no manifest.json, so its packs are incomplete; build them")
    try:
        manifest = json.loads(files.read_text(path))
        parts = [(split, part) for split in SPLITS for part in manifest["splits"][split]["parts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PacksError(
            f"{path}: damaged ({error!r}); delete the folder and build again"
        ) from error
    for split, part in parts:
        filesystem, inner = files.resolve(join(root, split, part["name"]))
        size = filesystem.get_file_info(inner).size
        if size != part["bytes"]:
            raise PacksError(
                f"{root}/{split}/{part['name']}: got {size} bytes, must be {part['bytes']}; delete "
                "the folder and build again"
            )
    return Packs(root, manifest)


def find_packs(
    data: DataConfig,
    model: str,
    *,
    storage: str,
    model_revision: str | None = None,
    trust_remote_code: bool = False,
) -> Packs | None:
    """The packs that `build_packs` would open, if they are there whole; builds nothing."""
    recipe = make_recipe(data, model, revision=model_revision, trust_remote_code=trust_remote_code)
    return open_if_whole(PacksPaths.of(storage, recipe.key).root)


def open_if_whole(root: str) -> Packs | None:
    """The packs in a folder, or None where they must be built (again)."""
    try:
        return open_packs(root)
    except PacksError:
        return None


def local_parts(packs: Packs, split: str) -> list[Path]:
    """The Arrow files of a split on this node's disk."""
    parts = packs.manifest["splits"][split]["parts"]
    folder = join(packs.root, split)
    if not is_uri(packs.root):
        return [Path(folder) / part["name"] for part in parts]
    return [localise(folder, part["name"], part["sha256"]) for part in parts]


def localise(folder: str, name: str, sha256: str | None = None) -> Path:
    """This node's copy of a file on a URI, made once however many processes ask.

    Raises PacksError where it has not the checksum that it must have.
    """
    from filelock import FileLock

    target = node_copy(folder) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock", timeout=_COPY_SECONDS):
        if not target.exists():
            data = files.read_bytes(join(folder, name))
            if sha256 not in (None, hashlib.sha256(data).hexdigest()):
                raise PacksError(f"{folder}/{name}: damaged, its checksum is not the manifest's")
            files.write_bytes(str(target), data)
    return target


def node_copy(folder: str) -> Path:
    """Where this node keeps its copy of a folder of packs on a URI."""
    scheme, _, rest = folder.partition("://")
    return node_cache() / "packs" / scheme / rest.strip("/")
