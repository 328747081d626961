"""A Ray that is killed beneath a sweep ends it in our words, and blames no trial."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray.exceptions

from sftray.cluster import ray_watch
from sftray.cluster.ray_errors import plain
from sftray.cluster.ray_watch import Part
from sftray.errors import DataError, OutageError

DRIVER = """
import sys
import time
from sftray.cli.terminal import Stop
from sftray.cluster import ray_watch
from sftray.cluster.connect import connect

stop = Stop(lambda: print("the leaderboard", flush=True))
ray_watch.ask_at_the_end(stop.finish_if_terminated)
try:
    connect(print, dashboard=False)
    print("connected", flush=True)
    time.sleep(600)  # until it is ended
except KeyboardInterrupt:
    sys.exit(stop.finish())
"""


@pytest.fixture
def closed() -> tuple[str, int]:
    """An address at which nothing listens any more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return "127.0.0.1", server.getsockname()[1]


@pytest.fixture
def watched(closed: tuple[str, int]) -> Iterator[None]:
    ray_watch._watched[:] = [Part("raylet of this machine", *closed, 0.0)]
    yield
    ray_watch._watched.clear()


@pytest.mark.usefixtures("watched")
def test_what_fails_when_ray_has_gone_is_no_trial_s_failure() -> None:
    for error in (ray.exceptions.ActorDiedError(), RuntimeError("without a word")):
        found = plain(error, "/x")
        assert isinstance(found, OutageError)
        assert found.message.startswith("Ray's raylet of this machine has ended")
        assert found.hint.endswith("run the same command to continue")
    own = DataError("chats.jsonl, line 7")
    assert plain(own, "/x") is own


def test_a_ray_that_lives_or_that_nobody_watches_changes_no_error() -> None:
    error = ray.exceptions.ActorDiedError()
    assert plain(error, "/x") is error
    with socket.create_server(("127.0.0.1", 0)) as server:
        ray_watch._watched[:] = [Part("raylet", *server.getsockname(), 0.0)]
        assert plain(error, "/x") is error
    ray_watch._watched.clear()


def test_a_control_process_of_a_joined_cluster_may_come_back(closed: tuple[str, int]) -> None:
    now = [0.0]
    part = Part("gcs_server", *closed, patience=45.0, clock=lambda: now[0])
    seen = [part.is_lost()]
    now[0] += 44
    seen.append(part.is_lost())
    with socket.create_server(closed):
        seen.append(part.is_lost())
    for passed in (44, 44):  # from here on, anew
        now[0] += passed
        seen.append(part.is_lost())
    assert not any(seen)
    now[0] += 1
    assert part.is_lost()


def test_a_part_that_is_silent_is_not_taken_for_dead_at_once() -> None:
    """As one that is suspended, or that has more to do than it can: its queue is full."""
    now = [0.0]
    with contextlib.ExitStack() as queued, socket.create_server(("127.0.0.1", 0), backlog=0) as it:
        address = it.getsockname()
        for _ in range(4):
            waiting = queued.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        part = Part("raylet", *address, 0.0, clock=lambda: now[0], connect_seconds=0.1)
        assert not part.is_lost()
        now[0] += ray_watch.RETURN_SECONDS
        assert part.is_lost()


@contextlib.contextmanager
def connected_driver() -> Iterator[subprocess.Popen[str]]:
    """A driver in a process group of its own, whose Ray has started."""
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # a socket's path is limited
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            env=env | {"RAY_TMPDIR": short},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert driver.stdout is not None
            begun = any(line == "connected\n" for line in driver.stdout)
            assert begun, driver.stderr and driver.stderr.read()
            yield driver
        finally:
            driver.kill()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_killed_part_of_ray_ends_the_driver_with_our_words(name: str) -> None:
    with connected_driver() as driver:
        below = psutil.Process(driver.pid).children(recursive=True)
        next(one for one in below if one.name() == name).send_signal(signal.SIGKILL)
        _, said = driver.communicate(timeout=300)
    assert driver.returncode == 2
    assert f"error: Ray's {name} " in said
    assert "run the same command to continue\n" in said
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == [], "what was started goes with the driver"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False])
def test_sigterm_to_the_driver_or_to_ray_as_well_ends_it_with_143(whole_group: bool) -> None:
    """SLURM and `timeout` send it to all; Kubernetes to the first process."""
    with connected_driver() as driver:
        (os.killpg if whole_group else os.kill)(driver.pid, signal.SIGTERM)
        printed, said = driver.communicate(timeout=300)
    assert driver.returncode == 143
    assert printed == "the leaderboard\n"
    assert said == "\ninterrupted: run the same command to continue\n"
