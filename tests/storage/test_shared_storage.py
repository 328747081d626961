"""Two users on one storage: whole packs are read without writing; a shared folder stays shared."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from events import an_event
from packs_here import build_packs_here

from sftray.config import DataConfig
from sftray.demo import FOLDER
from sftray.errors import OutageError
from sftray.storage import files
from sftray.storage.journal import Journal

NOBODY = 65534


@contextmanager
def another_user() -> Iterator[None]:
    """Be nobody for a while; needs to be root."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def seen_by_all() -> Iterator[Path]:
    """A folder that others may look into; pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_whole_packs_of_another_user_are_read_without_a_lock_or_a_right_to_write(
    seen_by_all: Path,
) -> None:
    chats = (FOLDER / "chats.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    (seen_by_all / "chats.jsonl").write_text("\n".join(chats), encoding="utf-8")
    data = DataConfig(str(seen_by_all / "chats.jsonl"), max_length=512)

    def build() -> dict[str, object]:
        packs = build_packs_here(data, str(FOLDER), storage=str(seen_by_all / "storage"))
        return dict(packs.manifest)

    built = build()
    before = sorted(seen_by_all.rglob("*"))
    with another_user():
        assert build() == built
    assert sorted(seen_by_all.rglob("*")) == before


def test_packs_that_another_user_would_have_to_build_are_one_line_of_error(
    seen_by_all: Path,
) -> None:
    (seen_by_all / "chats.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "a"}]}), encoding="utf-8"
    )
    (seen_by_all / "storage").mkdir()
    data = DataConfig(str(seen_by_all / "chats.jsonl"), max_length=512)
    words = r"storage/packs.*: it may not be used \(Permission denied\); give this user the right"
    with another_user(), pytest.raises(OutageError, match=words):
        build_packs_here(data, str(FOLDER), storage=str(seen_by_all / "storage"))


def write(folder: Path) -> list[Path]:
    """What a sweep makes there, of each way to make it."""
    files.write_text(str(folder / "packs/key/manifest.json"), "{}")
    files.create(str(folder / "packs/key/claim"), b"{}")
    with Journal(str(folder / "sweep/journal.jsonl")) as journal:
        journal.append(an_event("sweep_started", uid="one"))
    made = [path for path in folder.rglob("*") if path != folder]
    assert len(made) == 7
    return made


def test_what_is_made_in_a_shared_folder_is_the_group_s_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    for path in write(tmp_path):
        assert mode(path) & 0o070 == (0o070 if path.is_dir() else 0o060), path
        assert path.is_file() or mode(path) & stat.S_ISGID, path
    write(tmp_path)  # again: nothing is in the way


@pytest.mark.parametrize("private", [0o755, 0o775, 0o2755, 0o1777])
def test_what_is_made_in_any_other_folder_is_as_the_user_has_it(
    tmp_path: Path, private: int
) -> None:
    tmp_path.chmod(private)
    before = os.umask(0o022)
    try:
        made = write(tmp_path)
    finally:
        os.umask(before)
    assert not any(mode(path) & 0o020 for path in made)


def test_another_user_of_the_group_continues_what_this_one_began(seen_by_all: Path) -> None:
    shared = seen_by_all / "storage"
    shared.mkdir()
    if os.geteuid() == 0:
        os.chown(shared, 0, NOBODY)
    shared.chmod(0o2775)
    write(shared)
    with another_user():
        files.write_text(str(shared / "packs/key/manifest.json"), '{"by": "another"}')
        with Journal(str(shared / "sweep/journal.jsonl")) as journal:
            journal.append(an_event("sweep_ended"))
            assert len(journal.events()) == 2
