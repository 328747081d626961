"""Whether each node sees what a sweep reads and writes: its storage, the data, the base.

Promise: a node that does not is named, with the path, before it does anything for the sweep, and as
an outage: the sweep stops, and no trial is blamed. Price: one small file in the storage as long as
a sweep runs, and a task a node at its start. Ray is imported only to ask other nodes.
"""

from __future__ import annotations

import functools
import os
import socket
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from sftray.errors import OutageError
from sftray.storage import files, outages
from sftray.storage.paths import is_uri, join

ANSWER_SECONDS = 10.0
"""How long a sweep's start waits for the answers of nodes. Who is later is asked at its first
task."""
PATIENCE_SECONDS = 5.0
"""A node that was just started may have to mount first."""


@dataclass(frozen=True)
class Sight:
    """What every node has to see."""

    storage: str
    word: str
    """What the head writes there, in a file of this name."""
    paths: tuple[tuple[str, str], ...]
    """What else it reads, as messages call it, and where that is."""

    @classmethod
    def of(cls, storage: str, data: Iterable[str], base: str) -> Sight:
        """`data`: files; `base`: a folder, or a name of the Hub, which is not looked for."""
        paths = [("the data", path if is_uri(path) else os.path.abspath(path)) for path in data]
        paths += [("the base", base)] if os.path.isdir(base) else []
        return cls(storage, f".seen-{uuid.uuid4().hex[:12]}", tuple(paths))

    def write(self) -> None:
        """By the head."""
        files.write_text(self._token, self.word)

    def remove(self) -> None:
        files.remove(self._token)

    def unseen(self) -> list[str]:
        """What this node does not see."""
        unseen = []
        with outages.patience(PATIENCE_SECONDS):
            for what, path in (("the storage", self._token), *self.paths):
                reason = _why_unseen(path)
                if reason is not None:
                    unseen.append(f"{what} {path}{reason}")
        return unseen

    @property
    def _token(self) -> str:
        return join(self.storage, self.word)


@functools.lru_cache(maxsize=8)
def require_sight(sight: Sight) -> None:
    """At the first task of a process. Raises OutageError where its node does not see all."""
    if unseen := sight.unseen():
        raise _blind({_this_node(): unseen})


def ask_nodes(sight: Sight) -> None:
    """Ask all nodes that are there, if there are several. Raises OutageError where one does not see
    all."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    ask = ray.remote(num_cpus=0, max_retries=0)(_answer)
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    asked = [ask.options(scheduling_strategy=place).remote(sight) for place in places]
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
    blind = {node: unseen for node, unseen in ray.get(ready) if unseen}
    if blind:
        raise _blind(blind)


def _answer(sight: Sight) -> tuple[str, list[str]]:
    return _this_node(), sight.unseen()


def _why_unseen(path: str) -> str | None:
    """Why a path is not seen, where more is known than that it is not there; None where it is."""
    try:
        return None if files.exists(path) else ""
    except OSError as error:
        return f" ({outages.first_line(error)})"


def _this_node() -> str:
    """Its address and name."""
    import ray

    address = ray.util.get_node_ip_address() if ray.is_initialized() else ""
    return " ".join(filter(None, (address, socket.gethostname())))


def _blind(unseen: dict[str, list[str]]) -> OutageError:
    said = "; ".join(f"node {node} does not see {', '.join(all)}" for node, all in unseen.items())
    return OutageError(
        said,
        hint="mount it there under the same path as on the head, or name what all nodes reach "
        "(s3://…), and run the same command to continue",
    )
