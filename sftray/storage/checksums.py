"""SHA-256 sums of a folder's files, in a manifest that is written last.

Promise: a folder with a manifest was written to its end, and `damaged` names each file whose bytes
are others since. Price: reading every file, 1 GB a second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from sftray.errors import CheckpointError

MANIFEST = "manifest.json"


def file_sum(path: Path) -> str:
    """A local file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_of(folder: Path, *, but: Collection[str] = ()) -> dict[str, str]:
    """The sums of the files in a local folder, by name."""
    return {file.name: file_sum(file) for file in sorted(folder.iterdir()) if file.name not in but}


def as_manifest(sums: Mapping[str, str]) -> str:
    """The manifest's text."""
    return json.dumps({"sha256": sums}, indent=1)


def read_sums(folder: Path, shown: str) -> dict[str, str]:
    """The sums in the manifest of a local folder, by name. Raises CheckpointError, which calls the
    folder `shown`, where it is damaged."""
    try:
        sums = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        return {str(name): str(digest) for name, digest in sums.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{shown}: {MANIFEST} is damaged ({error!r})") from error


def damaged(folder: Path, sums: Mapping[str, str], needed: Collection[str] = ()) -> list[str]:
    """The files of a local folder that are missing or differ from their sums, `needed` ones among
    them."""
    names = sorted({*needed, *sums})
    return [n for n in names if not (folder / n).is_file() or file_sum(folder / n) != sums.get(n)]
