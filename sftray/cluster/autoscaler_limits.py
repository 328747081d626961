"""How far the autoscaler may grow the cluster: reported to Ray once, read by every sweep.

    python -m sftray.cluster.autoscaler_limits --launcher ~/ray_bootstrap_config.yaml
    python -m sftray.cluster.autoscaler_limits --group 1 CPU=4 --group 4 CPU=6 GPU=1

Ray has a place for it, which Ray Train and Ray Data read as well: a request that can never be met
is then an error at once, not a wait without end. Its open-source autoscaler leaves that place
empty; this fills it, run on the head after `ray start`. Price: two seconds, one call to Ray.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from sftray.cluster import ray_private
from sftray.storage.terminal_text import log_handler

START_SECONDS = 120.0
"""How long the head may take to answer; in a pod this runs beside `ray start`."""
RPC_SECONDS = 5.0

_log = logging.getLogger("sftray.cluster.autoscaler_limits")


@dataclass(frozen=True)
class Group:
    """Machines of one kind."""

    name: str
    count: int
    """At most this many."""
    resources: Mapping[str, int]
    """Of each: CPU, GPU, …"""


class NodeType(TypedDict):
    """Machines of one kind in a file of `ray up`."""

    resources: dict[str, int]
    max_workers: NotRequired[int]


class LauncherFile(TypedDict):
    """What is read of a file of `ray up`."""

    max_workers: int
    head_node_type: str
    available_node_types: dict[str, NodeType]


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell Ray. 0 once it knows, 1 where it did not answer."""
    parser = argparse.ArgumentParser(
        prog="python -m sftray.cluster.autoscaler_limits", description=__doc__
    )
    parser.add_argument("--address", default="auto", help="the head's GCS, host:port")
    parser.add_argument("--launcher", type=Path, help="a file of `ray up`")
    parser.add_argument(
        "--group",
        action="append",
        nargs="+",
        default=[],
        metavar=("COUNT", "NAME=AMOUNT"),
        help="at most COUNT machines with these resources each; may be given again",
    )
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    groups = [group_of(words, f"group-{i}") for i, words in enumerate(asked.group)]
    if asked.launcher:
        import yaml  # type: ignore[import-untyped]  # comes with Ray

        groups += launcher_groups(yaml.safe_load(asked.launcher.read_text("utf-8")))
    if not groups:
        parser.error("got neither --launcher nor --group, must be given one")
    return 0 if tell(groups, asked.address) else 1


def group_of(words: Sequence[str], name: str) -> Group:
    """`4 CPU=6 GPU=1` as a group. Raises ValueError where it is no such thing."""
    count, *amounts = words
    pairs = (amount.partition("=") for amount in amounts)
    return Group(name, int(count), {kind: int(much) for kind, _, much in pairs})


def launcher_groups(config: LauncherFile) -> list[Group]:
    """The node types of a file of `ray up`: the one head, and what workers there may be."""
    most = config["max_workers"]
    return [
        Group(
            name,
            1 if name == config["head_node_type"] else min(kind.get("max_workers", most), most),
            {k: v for k, v in kind["resources"].items() if v},
        )
        for name, kind in config["available_node_types"].items()
    ]


def tell(groups: Sequence[Group], address: str, *, seconds: float = START_SECONDS) -> bool:
    """Report the groups to the cluster; whether it took them within `seconds`."""
    from ray.exceptions import RpcError

    find_cluster, client_of = ray_private.bootstrap_address(), ray_private.gcs_client()
    ray_private.use_token()
    config = ray_private.cluster_config()()
    for group in groups:
        message = config.node_group_configs.add()
        message.name, message.max_count = group.name, group.count
        message.resources.update(group.resources)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        where = find_cluster("auto") if address == "auto" else address
        try:
            if where is not None:
                client = client_of(address=where)
                client.report_cluster_config(config.SerializeToString())
                _log.info("reported to %s: %s", where, list(groups))
                return True
        except RpcError as error:
            _log.warning("%s does not answer: %s", where, error)
        time.sleep(1.0)
    _log.warning("no Ray cluster at %s after %.0f s", address, seconds)
    return False


def reachable() -> dict[str, float]:
    """What the cluster that this process is connected to has, or could grow to, of each
    resource."""
    import ray

    here: dict[str, float] = ray.cluster_resources()
    state = ray_private.cluster_state()
    limits: dict[str, float] = state.get_max_resources_from_cluster_config() or {}
    return {name: max(here.get(name, 0.0), limits.get(name, 0.0)) for name in here | limits}


if __name__ == "__main__":
    sys.exit(main())
