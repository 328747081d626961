"""Each node is asked at its first task whether it sees storage, data and base."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sftray.cluster.node_sight import Sight, ask_nodes, require_sight
from sftray.errors import OutageError


@pytest.fixture
def sight(tmp_path: Path) -> Sight:
    """Of a storage, one file of data and a base that are there."""
    for name in ("storage", "base"):
        (tmp_path / name).mkdir()
    data = tmp_path / "chats.jsonl"
    data.write_text("{}")
    sight = Sight.of(str(tmp_path / "storage"), [str(data)], str(tmp_path / "base"))
    sight.write()
    return sight


def test_a_node_that_sees_all_is_let_in(sight: Sight) -> None:
    assert [what for what, _ in sight.paths] == ["the data", "the base"]
    assert sight.unseen() == []
    require_sight(sight)


@pytest.mark.parametrize("what", ["storage", "chats.jsonl", "base"])
def test_a_node_that_does_not_see_one_of_them_is_named_with_the_path(
    sight: Sight, tmp_path: Path, what: str
) -> None:
    hidden = tmp_path / what
    hidden.rename(tmp_path / "elsewhere")
    with pytest.raises(OutageError, match=f"^node .* does not see the .*{hidden}"):
        require_sight(sight)
    (tmp_path / "elsewhere").rename(hidden)
    require_sight(sight)  # a mount that came late


def test_a_storage_of_the_same_name_is_not_the_heads(sight: Sight, tmp_path: Path) -> None:
    other = replace(sight, word=".seen-of-another")
    with pytest.raises(OutageError, match=r"the storage .*\.seen-of-another"):
        require_sight(other)
    sight.remove()
    assert list((tmp_path / "storage").iterdir()) == []


def test_a_base_of_the_hub_is_not_looked_for(tmp_path: Path) -> None:
    assert Sight.of(str(tmp_path), [], "nobody/nothing").paths == ()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_task_of_packing_that_sees_no_data_says_so_in_one_line(
    sight: Sight, tmp_path: Path
) -> None:
    from sftray.data.packs.ray_passes import each_on_ray

    ask_nodes(sight)
    assert each_on_ray(abs, [-1, 2], sight) == [1, 2]
    blind = replace(sight, paths=(("the data", str(tmp_path / "gone.jsonl")),))
    with pytest.raises(OutageError, match=r"^node .* does not see the data .*gone\.jsonl; mount"):
        each_on_ray(abs, [-1, 2], blind)


def _hides(folder: Path) -> list[str]:
    """What runs a command that sees an empty folder in the place of this one."""
    return ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {folder} && exec "$@"', "sh"]


@pytest.mark.ray
@pytest.mark.exhaustive
@pytest.mark.usefixtures("ray_cluster")
def test_of_two_nodes_the_one_without_the_storage_is_named(sight: Sight) -> None:
    import ray

    hidden = _hides(Path(sight.storage))
    if not shutil.which("unshare") or subprocess.run([*hidden, "true"]).returncode:
        pytest.skip("no right to hide a folder")
    address = ray.get_runtime_context().gcs_address
    start = [str(Path(sys.executable).with_name("ray")), "start", f"--address={address}"]
    command = [*hidden, *start, "--num-cpus=1", "--block"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as node:
        try:
            _wait_for_nodes(2)
            with pytest.raises(OutageError, match=r"^node .* does not see the storage") as refused:
                ask_nodes(sight)
        finally:
            node.terminate()
    assert str(refused.value).count("node ") == 1  # and not the head
    _wait_for_nodes(1)


def _wait_for_nodes(number: int) -> None:
    import ray

    while sum(node["Alive"] for node in ray.nodes()) != number:
        time.sleep(0.2)
