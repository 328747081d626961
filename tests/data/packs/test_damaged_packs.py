"""`inspect` of packs or a sweep's folder that is damaged, in whatever way, is one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sftray.cli.main import main
from sftray.data.packs.packs import Packs

PART = "train/00000.arrow"


def with_bytes(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(data)


def without(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def as_folder(name: str) -> Callable[[Path], object]:
    return lambda root: ((root / name).unlink(), (root / name).mkdir())


def overwritten(begin: int, end: int) -> Callable[[Path], object]:
    """Bytes of a part that are others, as many as before."""

    def act(root: Path) -> None:
        data = (root / PART).read_bytes()
        changed = data[:begin] + bytes(len(data[begin:end])) + data[end:]
        (root / PART).write_bytes(changed)

    return act


@pytest.mark.parametrize(
    "act",
    [
        with_bytes("tokenizer.json", b""),
        without("tokenizer.json"),
        as_folder("tokenizer.json"),
        overwritten(0, 10**9),
        overwritten(3000, 5000),
        without(PART),
        with_bytes("manifest.json", b"[" * 100_000),
        with_bytes("manifest.json", b'{"a": ' + b"9" * 6000 + b"}"),
        with_bytes("manifest.json", b"[]"),
        with_bytes("manifest.json", b"\xff\xfe{}"),
        as_folder("manifest.json"),
        with_bytes("sweep.json", b"{"),
        with_bytes("sweep.json", b"[]"),
        with_bytes("sweep.json", b"{}"),
        with_bytes("sweep.json", b'{"packs": 5, "config": {}}'),
    ],
)
def test_what_is_damaged_is_named_in_one_line(
    small_packs: Packs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    act: Callable[[Path], object],
) -> None:
    root = Path(shutil.copytree(small_packs.root, tmp_path / "packs"))
    act(root)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["inspect", str(root)])
    error, *hint = capsys.readouterr().err.splitlines()
    assert error.strip().startswith(f"error: {root}")
    assert len(hint) <= 1
