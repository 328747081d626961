"""What a sweep records of itself holds where its storage is moved or copied."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sftray.cli.main import main
from sftray.config import SweepConfig
from sftray.data.packs.packs import Packs, open_packs
from sftray.storage.paths import SweepPaths, resolved
from sftray.sweep.sweep_json import write_record


@pytest.mark.parametrize("act", [shutil.move, shutil.copytree])
def test_a_storage_that_was_moved_or_copied_is_inspected(
    small_sweep_config: SweepConfig,
    small_packs: Packs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    act: object,
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    root = old / "packs" / small_packs.key
    shutil.copytree(small_packs.root, root)
    sweep = replace(small_sweep_config, storage=str(old))
    paths = SweepPaths.of(str(old), sweep.name)
    write_record(sweep, sweep, paths, open_packs(str(root)), {})
    assert callable(act)
    act(old, new)
    shutil.rmtree(old, ignore_errors=True)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["inspect", str(new / sweep.name)])
    assert capsys.readouterr().out.startswith(f"{new}/packs/{small_packs.key}\n")


def test_a_path_is_resolved_against_the_folder_of_the_file_that_names_it(tmp_path: Path) -> None:
    assert resolved("s3://bucket/a/sweep/", "../packs/k") == "s3://bucket/a/packs/k"
    assert resolved("s3://bucket/sweep/best", "../../packs/k") == "s3://bucket/packs/k"
    assert resolved(f"{tmp_path}/sweep/.", "../packs/k") == f"{tmp_path}/packs/k"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "sweep")
    assert resolved(f"{tmp_path}/link", "../packs/k") == f"{tmp_path}/elsewhere/packs/k"
    assert resolved("sweep", "/packs/k") == "/packs/k"
