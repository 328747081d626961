"""Addresses of Ray clusters: those that `ray start` has put up on this machine, whose they are, and
whether a cluster answers at one.

Promise: nothing is sent to a cluster here but the opening of HTTP/2, which any server may see.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from sftray.errors import ConfigError, Log

ANSWER_SECONDS = 10.0
"""How long the head of a cluster may take to accept a connection, and to say that it is one."""
LOCAL_SECONDS = 2.0
"""The same of a cluster on this machine."""
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The client's opening, with settings that are empty; a gRPC server answers with its own."""
_SETTINGS = 4


@dataclass(frozen=True)
class Standing:
    """A cluster whose head runs on this machine."""

    address: str
    owner: str
    """The name of its user."""
    is_ours: bool


def to_join(named: str, standing: Sequence[Standing], log: Log) -> tuple[str, str]:
    """The address of the cluster to join, and whose it is; nothing where there is none. `named`: by
    RAY_ADDRESS. Raises ConfigError where that does not answer.

    A cluster gets the chats, the base and the environment, and what its workers return is unpickled
    here: another user's is joined only where it is named.
    """
    if named and named != "auto":
        check_address(named)
        owners = [one.owner for one in standing if _is_same(one.address, named)]
        return named, f"of user {owners[0]}" if owners else "(RAY_ADDRESS)"
    for one in standing:
        if not one.is_ours:
            owned = f"the Ray cluster at {one.address} is of user {one.owner}"
            log(f"warning: {owned}: not joined; name it with --address to join it all the same")
            continue
        try:
            check_address(one.address, seconds=LOCAL_SECONDS)
        except ConfigError as error:  # in a container of its own, say
            log(f"warning: not joined: {error.message}")
            continue
        return one.address, f"of user {one.owner}"
    if named:
        raise no_cluster("auto", LookupError("this user's `ray start` started none here"))
    return "", ""


def _is_same(standing: str, named: str) -> bool:
    (_, _, port), (host, _, wanted) = standing.rpartition(":"), named.rpartition(":")
    return standing == named or (port == wanted and host in ("localhost", "127.0.0.1", "[::1]"))


def standing_clusters(
    processes: Callable[[], Iterable[psutil.Process]] = psutil.process_iter,
) -> list[Standing]:
    """The clusters that `ray start` has put up here, those of this user first.

    A cluster that lives inside another Python process (`ray.init`) would die with it under us, or
    is just dying after it, so it is left out. It leaves the port to chance, `ray start` does not.
    """
    found: list[Standing] = []
    for process in processes():
        with contextlib.suppress(psutil.Error):
            if process.name() == "gcs_server":
                found += _standing(process)
    return sorted(found, key=lambda one: not one.is_ours)


def _standing(process: psutil.Process) -> Iterator[Standing]:
    given = dict(word.split("=", 1) for word in process.cmdline() if "=" in word)
    port, host = given.get("--gcs_server_port", "0"), given.get("--node-ip-address", "127.0.0.1")
    if port != "0":
        is_ours = process.uids().effective == os.geteuid()
        yield Standing(f"{host}:{port}", process.username(), is_ours)


def check_address(address: str, *, seconds: float = ANSWER_SECONDS) -> None:
    """Raise ConfigError where RAY_ADDRESS is not the host:port of a head that answers: Ray itself
    takes 40 s to fail, and names a part of its own."""
    host, _, port = address.rpartition(":")
    if "/" in host or not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(
            f"RAY_ADDRESS: got {address!r}, must be host:port of a cluster's head, as "
            "10.0.0.4:6379, or auto; unset it to start Ray on this machine"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds) as opened:
            # under TLS no plain byte is answered
            if os.environ.get("RAY_USE_TLS", "0") in ("0", "") and not _is_grpc(opened):
                raise OSError("something else listens there")
    except OSError as error:
        raise no_cluster(address, error) from error


def no_cluster(address: str, error: Exception) -> ConfigError:
    """That no cluster answers at an address, and why."""
    return ConfigError(
        f"RAY_ADDRESS: got {address}, where no Ray cluster answers ({error}), must be the head of "
        "one that runs; start it there (`ray start --head`), or unset RAY_ADDRESS to start Ray on "
        "this machine"
    )


def _is_grpc(opened: socket.socket) -> bool:
    opened.sendall(_HTTP2)
    head = b""
    with contextlib.suppress(ConnectionError):
        while len(head) < 4 and (more := opened.recv(4 - len(head))):
            head += more
    return head[3:] == bytes([_SETTINGS])
