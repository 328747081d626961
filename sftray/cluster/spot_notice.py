"""Pass a cloud's notice that it takes this spot machine back on to Ray, as a drain of its node.

    python -m sftray.cluster.spot_notice aws --address 10.0.0.4:6379

Promise: seconds after the notice Ray places nothing new on this machine's nodes, tells Train and
actors that they are about to go and when, and counts what dies with them as preempted, not as
failed. Price: one or two small HTTP requests to the machine's own metadata service every two
seconds; Ray is imported at the notice. Ray's cluster launcher has no such watcher; on Kubernetes
the raylet drains itself when its pod is asked to end.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sftray.cluster import ray_private
from sftray.storage.terminal_text import log_handler

POLL_SECONDS = 2.0
HTTP_SECONDS = 2.0
"""How long the metadata service may take; it is on this machine, or there is none."""
RPC_SECONDS = 5.0
"""How long one call to Ray may take."""
GCP_SECONDS = 30.0
"""From Google's notice to the machine's end; it names no time."""

AWS_METADATA = "http://169.254.169.254"
GCP_METADATA = "http://metadata.google.internal"

_log = logging.getLogger("sftray.cluster.spot_notice")


@dataclass(frozen=True)
class Notice:
    """The cloud's word that this machine ends."""

    reason: str
    seconds: float
    """From now to the end."""


class NotDrainedError(Exception):
    """Ray did not answer, refused, or knows no node of this machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until the notice, then drain. 0 once Ray drains, 1 where it could not be reached."""
    parser = argparse.ArgumentParser(
        prog="python -m sftray.cluster.spot_notice", description=__doc__
    )
    parser.add_argument("cloud", choices=sorted(CLOUDS))
    parser.add_argument("--address", required=True, help="the head's GCS, host:port")
    parser.add_argument("--metadata", help="another metadata service, for a test")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    look, service = CLOUDS[asked.cloud]
    service = asked.metadata or service
    _log.info("watching %s for a spot notice every %g s", service, POLL_SECONDS)
    notice = wait_for_notice(lambda: look(service))
    _log.info("%s: %.0f s left, draining", notice.reason, notice.seconds)
    return 0 if drain_in_time(notice, lambda left: drain(left, asked.address)) else 1


def wait_for_notice(
    look: Callable[[], Notice | None], *, poll_seconds: float = POLL_SECONDS
) -> Notice:
    """The first notice. Every look is bounded; there is one every `poll_seconds`, for as long as
    the machine lives. A metadata service that does not answer is logged once, and asked again."""
    silent = False
    while True:
        try:
            if notice := look():
                return notice
            silent = False
        except OSError as error:  # refused, timed out, or an HTTP status that is no answer
            if not silent:
                _log.warning("the metadata service does not answer (%s); asking again", error)
            silent = True
        time.sleep(poll_seconds)


def drain_in_time(
    notice: Notice, drain: Callable[[Notice], None], *, retry_seconds: float = 1.0
) -> bool:
    """Drain, again and again until it is done or the machine's time is up; whether it is done."""
    end = time.monotonic() + notice.seconds
    while (left := end - time.monotonic()) > 0:
        try:
            drain(Notice(notice.reason, left))
        except NotDrainedError as error:
            _log.warning("not drained, %.0f s left: %s", left, error)
            time.sleep(retry_seconds)
        else:
            _log.info("drained")
            return True
    return False


def aws_notice(service: str = AWS_METADATA) -> Notice | None:
    """What EC2 says (IMDSv2): 404 until about two minutes before the end.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    """
    token = _answer(
        f"{service}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT"
    )
    try:
        text = _answer(
            f"{service}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}
        )
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    action = json.loads(text)
    end = datetime.strptime(action["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    left = (end - datetime.now(UTC)).total_seconds()
    return Notice(f"EC2 spot: {action['action']} at {action['time']}", max(left, 1.0))


def gcp_notice(service: str = GCP_METADATA) -> Notice | None:
    """What Compute Engine says: FALSE until half a minute before the end.

    https://cloud.google.com/compute/docs/instances/create-use-preemptible
    """
    url = f"{service}/computeMetadata/v1/instance/preempted"
    if _answer(url, {"Metadata-Flavor": "Google"}).strip() != "TRUE":
        return None
    return Notice("Compute Engine spot: preempted", GCP_SECONDS)


CLOUDS: Mapping[str, tuple[Callable[[str], Notice | None], str]] = {
    "aws": (aws_notice, AWS_METADATA),
    "gcp": (gcp_notice, GCP_METADATA),
}


def drain(notice: Notice, address: str) -> None:
    """Tell Ray that every node on this machine is preempted. Raises NotDrainedError."""
    from ray.exceptions import RpcError

    ray_private.use_token()
    try:
        client = ray_private.gcs_client()(address=address)
        nodes = nodes_here(client)
        if not nodes:
            raise NotDrainedError(f"{address} knows no living node on this machine")
        for node in nodes:
            drain_node(client, node, notice)
    except RpcError as error:
        raise NotDrainedError(f"{address} does not answer: {error}") from error


def drain_node(client: ray_private.GcsClient, node: str, notice: Notice) -> None:
    """Tell Ray, by its GcsClient, that a node is preempted. Raises NotDrainedError.

    It is what the hidden command `ray drain-node` does, without the driver that the command starts
    to learn which node it is on.
    """
    reason = ray_private.drain_reason().Value("DRAIN_NODE_REASON_PREEMPTION")
    end_ms = int((time.time() + notice.seconds) * 1000)
    accepted, why = client.drain_node(node, reason, notice.reason, end_ms, timeout=RPC_SECONDS)
    if not accepted:
        raise NotDrainedError(f"Ray refused to drain node {node}: {why}")


def nodes_here(client: ray_private.GcsClient) -> list[str]:
    """The living Ray nodes whose address is one of this machine's, as hex ids; client: a Ray
    GcsClient."""
    import psutil

    alive = ray_private.node_info().ALIVE
    here = {a.address for addresses in psutil.net_if_addrs().values() for a in addresses}
    known = client.get_all_node_info(timeout=RPC_SECONDS)
    return [
        node.hex()
        for node, info in known.items()
        if info.state == alive and info.node_manager_address in here
    ]


def _answer(url: str, headers: Mapping[str, str], *, method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    # no proxy: the service is on this machine, and its token is nobody else's
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=HTTP_SECONDS) as answer:
        return str(answer.read().decode("utf-8"))


if __name__ == "__main__":
    sys.exit(main())
