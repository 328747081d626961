"""A sweep joins the cluster that RAY_ADDRESS names, with this machine's token where it asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOIN = "from sftray.cluster.connect import connect; connect(print, dashboard=False)"


@pytest.fixture(scope="module")
def address(ray_cluster: None) -> str:
    """Of a cluster that asks for a token."""
    import ray

    assert os.environ["RAY_AUTH_MODE"] == "token"
    return str(ray.get_runtime_context().gcs_address)


def join(address: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "RAY_ADDRESS": address, "HOME": str(home)}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        env.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", JOIN], env=env, capture_output=True, text=True, timeout=600
    )


@pytest.mark.ray
def test_a_cluster_that_asks_for_a_token_is_shown_this_machine_s(address: str) -> None:
    done = join(address, Path.home())
    assert done.returncode == 0, done.stderr
    assert f"joined the Ray cluster at {address} (RAY_ADDRESS)" in done.stdout
    assert "warning" not in done.stdout


@pytest.mark.ray
def test_a_machine_without_the_token_is_told_where_to_get_it(address: str, tmp_path: Path) -> None:
    done = join(address, tmp_path)
    assert done.returncode != 0
    assert "copy ~/.ray/auth_token of the machine that started it" in done.stderr
