"""A sweep joins the cluster that RAY_ADDRESS names, with this machine's token where it asks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftray.cluster.connect import check_address
from sftray.errors import ConfigError

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
    assert f"joined the Ray cluster at {address}" in done.stdout
    assert "warning" not in done.stdout


@pytest.mark.ray
def test_a_machine_without_the_token_is_told_where_to_get_it(address: str, tmp_path: Path) -> None:
    done = join(address, tmp_path)
    assert done.returncode != 0
    assert "copy ~/.ray/auth_token of the machine that started it" in done.stderr


@pytest.fixture
def listening() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, server.getsockname()[1]


@pytest.mark.parametrize(
    "address", ["ray://10.0.0.4:10001", "local", "10.0.0.4", ":6379", "head:", "head:0", "h:70000"]
)
def test_an_address_that_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS: got .*, must be host:port .*; unset it"):
        check_address(address)


def test_an_address_where_nothing_answers_is_refused(
    listening: tuple[socket.socket, int],
) -> None:
    server, port = listening
    server.close()
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}, where no Ray cluster answers .*"):
        check_address(f"127.0.0.1:{port}")


def test_a_name_that_is_no_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="where no Ray cluster answers"):
        check_address("no-such-head.invalid:6379")


def test_an_address_that_accepts_connections_passes(
    listening: tuple[socket.socket, int],
) -> None:
    _, port = listening
    check_address(f"127.0.0.1:{port}")
