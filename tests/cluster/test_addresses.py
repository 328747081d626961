"""Which Ray a sweep joins: this user's, or the one that is named, if it is one at all."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sftray.cluster.addresses import Standing, check_address, standing_clusters, to_join
from sftray.errors import ConfigError

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""With what a gRPC server greets."""


@pytest.fixture
def server() -> Iterator[Callable[[bytes], str]]:
    """Makes one that greets whoever connects, and is silent then; gives its address."""
    made: list[socket.socket] = []

    def make(greeting: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        made.append(listening)
        threading.Thread(target=greet, args=(listening, greeting), daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"

    def greet(listening: socket.socket, greeting: bytes) -> None:
        try:
            while True:
                one, _ = listening.accept()
                made.append(one)
                one.sendall(greeting)
        except OSError:  # closed
            return

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    "address", ["ray://10.0.0.4:10001", "local", "10.0.0.4", ":6379", "head:", "head:0", "h:70000"]
)
def test_an_address_that_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS: got .*, must be host:port .*; unset it"):
        check_address(address)


def test_an_address_where_nothing_answers_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}, where no Ray cluster answers .*"):
        check_address(f"127.0.0.1:{port}")


def test_a_name_that_is_no_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="where no Ray cluster answers"):
        check_address("no-such-head.invalid:6379")


@pytest.mark.parametrize("greeting", [b"", b"220 mail.example.org ESMTP\r\n", b"\0\0"])
def test_a_port_that_accepts_connections_and_is_no_ray_is_refused(
    greeting: bytes, server: Callable[[bytes], str]
) -> None:
    with pytest.raises(ConfigError, match="where no Ray cluster answers"):
        check_address(server(greeting), seconds=0.2)


def test_a_port_that_speaks_as_ray_does_passes(server: Callable[[bytes], str]) -> None:
    check_address(server(SETTINGS))


# those of this machine


def process(name: str, port: int, uid: int, owner: str) -> Any:
    """As psutil gives one."""
    words = ["/ray/gcs_server", f"--gcs_server_port={port}", "--node-ip-address=10.0.0.4"]
    return SimpleNamespace(
        name=lambda: name,
        cmdline=lambda: words,
        uids=lambda: SimpleNamespace(effective=uid),
        username=lambda: owner,
    )


def gone() -> Any:
    def name() -> str:
        raise psutil.NoSuchProcess(1)

    return SimpleNamespace(name=name)


def test_standing_clusters_are_found_with_their_owner_ours_first() -> None:
    us = os.geteuid()
    processes = [
        process("gcs_server", 6379, us + 1, "theirs"),
        process("gcs_server", 0, us, "us"),  # within a Python process, and dies with it
        gone(),
        process("raylet", 6381, us, "us"),
        process("gcs_server", 6380, us, "us"),
    ]
    assert standing_clusters(lambda: processes) == [
        Standing("10.0.0.4:6380", "us", is_ours=True),
        Standing("10.0.0.4:6379", "theirs", is_ours=False),
    ]


def test_another_user_s_cluster_is_not_joined_by_itself_and_said(
    server: Callable[[bytes], str],
) -> None:
    lines: list[str] = []
    theirs = Standing(server(SETTINGS), "them", is_ours=False)
    assert to_join("", [theirs], lines.append) == ("", "")
    assert lines == [
        f"warning: the Ray cluster at {theirs.address} is of user them: not joined; name it with "
        "--address to join it all the same"
    ]
    with pytest.raises(ConfigError, match="this user's `ray start` started none here"):
        to_join("auto", [theirs], lines.append)


def test_another_user_s_cluster_is_joined_where_it_is_named_and_said_whose_it_is(
    server: Callable[[bytes], str],
) -> None:
    theirs = Standing(server(SETTINGS), "them", is_ours=False)
    assert to_join(theirs.address, [theirs], print) == (theirs.address, "of user them")
    elsewhere = Standing("10.0.0.4:6379", "them", is_ours=False)
    assert to_join(theirs.address, [elsewhere], print) == (theirs.address, "(RAY_ADDRESS)")


@pytest.mark.parametrize("named", ["", "auto"])
def test_our_own_cluster_is_joined_by_itself(named: str, server: Callable[[bytes], str]) -> None:
    ours = Standing(server(SETTINGS), "us", is_ours=True)
    assert to_join(named, [ours], print) == (ours.address, "of user us")


def test_a_cluster_of_ours_that_does_not_answer_is_passed_over_and_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    lines: list[str] = []
    assert to_join("", [Standing(address, "us", is_ours=True)], lines.append) == ("", "")
    assert lines[0].startswith("warning: not joined: RAY_ADDRESS: got 127.0.0.1:")
