"""A spot notice becomes a drain: against stand-ins of both metadata services, and a real GCS."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sftray.cluster import spot_notice
from sftray.cluster.spot_notice import NotDrainedError, Notice


class Metadata(BaseHTTPRequestHandler):
    """EC2's IMDSv2 and Compute Engine's metadata, with the refusals that the real ones make."""

    server: Any

    def do_PUT(self) -> None:
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        asked = self.path == "/latest/api/token" and seconds is not None
        self._say(200, "token-1") if asked else self._say(400)

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers.get("X-aws-ec2-metadata-token") != "token-1":
                self._say(401)
            elif self.server.end is None:
                self._say(404)
            else:
                time = self.server.end.strftime("%Y-%m-%dT%H:%M:%SZ")
                self._say(200, json.dumps({"action": "terminate", "time": time}))
        elif self.path == "/computeMetadata/v1/instance/preempted":
            if self.headers.get("Metadata-Flavor") != "Google":
                self._say(403)
            else:
                self._say(200, "FALSE\n" if self.server.end is None else "TRUE\n")
        else:
            self._say(404)

    def _say(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def metadata() -> Iterator[Any]:
    """A metadata service on this machine; `end` is when it says that the machine goes."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.end, server.asked = None, 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("look", [spot_notice.aws_notice, spot_notice.gcp_notice])
def test_no_notice_while_the_machine_stays(metadata: Any, look: Any) -> None:
    assert look(metadata.url) is None


def test_ec2_says_when_the_machine_ends(metadata: Any) -> None:
    metadata.end = datetime.now(UTC) + timedelta(seconds=120)
    notice = spot_notice.aws_notice(metadata.url)
    assert notice is not None
    assert 115 <= notice.seconds <= 120
    assert notice.reason.startswith("EC2 spot: terminate at 20")


def test_an_end_that_has_passed_leaves_a_second_to_drain(metadata: Any) -> None:
    metadata.end = datetime.now(UTC) - timedelta(seconds=5)
    notice = spot_notice.aws_notice(metadata.url)
    assert notice is not None
    assert notice.seconds == 1.0


def test_compute_engine_gives_half_a_minute(metadata: Any) -> None:
    metadata.end = datetime.now(UTC)
    assert spot_notice.gcp_notice(metadata.url) == Notice("Compute Engine spot: preempted", 30.0)


@pytest.mark.parametrize("look", [spot_notice.aws_notice, spot_notice.gcp_notice])
def test_the_watcher_asks_until_the_notice_comes(metadata: Any, look: Any) -> None:
    def look_thrice() -> Notice | None:
        if metadata.asked == 3:
            metadata.end = datetime.now(UTC) + timedelta(seconds=60)
        found: Notice | None = look(metadata.url)
        return found

    notice = spot_notice.wait_for_notice(look_thrice, poll_seconds=0.01)
    assert notice.seconds > 0
    assert metadata.asked == 4


def test_a_metadata_service_that_is_away_is_asked_again(
    metadata: Any, caplog: pytest.LogCaptureFixture
) -> None:
    metadata.end = datetime.now(UTC) + timedelta(seconds=60)
    addresses = iter(["http://127.0.0.1:9", "http://127.0.0.1:9", metadata.url])
    notice = spot_notice.wait_for_notice(
        lambda: spot_notice.aws_notice(next(addresses)), poll_seconds=0.01
    )
    assert notice.seconds > 0
    assert caplog.text.count("does not answer") == 1


def test_the_drain_is_tried_until_ray_has_been_told() -> None:
    left = []

    def drain(notice: Notice) -> None:
        left.append(notice.seconds)
        if len(left) < 3:
            raise NotDrainedError("the GCS is busy")

    assert spot_notice.drain_in_time(Notice("going", 60.0), drain, retry_seconds=0.01)
    assert len(left) == 3
    assert left == sorted(left, reverse=True)


def test_the_drain_is_given_up_when_the_machine_s_time_is_over() -> None:
    def drain(notice: Notice) -> None:
        raise NotDrainedError("the GCS is gone")

    assert not spot_notice.drain_in_time(Notice("going", 0.05), drain, retry_seconds=0.01)


@pytest.mark.ray
def test_the_ray_nodes_of_this_machine_are_found_by_its_addresses(ray_cluster: None) -> None:
    import ray
    from ray._raylet import GcsClient

    context = ray.get_runtime_context()
    client = GcsClient(address=context.gcs_address)
    assert spot_notice.nodes_here(client) == [context.get_node_id()]
