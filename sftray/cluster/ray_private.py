"""What sftray uses of Ray that Ray does not promise to keep; no other file imports any of it.

Promise: each function gives one piece, and says why and what to do when it moves;
`tests/house/test_private.py` calls them all, so an upgrade that takes a piece away fails there by
its name. Nothing of Ray is imported before a function is called.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from ray._private.state import GlobalState
    from ray._raylet import GcsClient as GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import ClusterConfig, DrainNodeReason
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    # what Tune hands to a scheduler's public methods
    from ray.tune.execution.tune_controller import TuneController as TuneController

AUTH_LOGGER = "ray._private.authentication.authentication_token_setup"
"""The logger that says of every new cluster that it has a token. When it moves: the warning shows
at a start; look for its new name where Ray logs "Token authentication is enabled"."""


def gcs_client() -> type[GcsClient]:
    """GcsClient, a cluster's control plane without joining it: a watcher on a spot machine and the
    head's own start must not become drivers. When it moves: `ray drain-node` uses the same."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return cast("type[GcsClient]", GcsClient)


def bootstrap_address() -> Callable[[str], str | None]:
    """The function that finds this machine's cluster, of "auto"; `ray.init` would join it. When
    it moves: `ray status` finds its cluster by it."""
    from ray._private.services import canonicalize_bootstrap_address

    return cast("Callable[[str], str | None]", canonicalize_bootstrap_address)


def token_switch() -> Callable[..., object]:
    """The function that turns token authentication on where a token lies on this machine and
    RAY_AUTH_MODE is unset. Ray calls it for a cluster that it finds itself, but neither for one
    that RAY_ADDRESS names nor for a GcsClient. When it moves: `ray.init` calls its
    successor; when Ray turns the token on for every client, it goes."""
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )

    return cast("Callable[..., object]", maybe_enable_token_auth_if_token_available)


def use_token() -> bool:
    """Show the clusters that this process turns to the token of this machine; whether it does."""
    logging.getLogger(AUTH_LOGGER).setLevel(logging.ERROR)  # that a token is used is good
    return bool(token_switch()(warn_if_disabled=False))


def cluster_config() -> type[ClusterConfig]:
    """ClusterConfig, the message by which an autoscaler says how far a cluster may grow; Ray has no
    public way to say it. When it moves: it is in Ray's autoscaler.proto."""
    from ray.core.generated.autoscaler_pb2 import ClusterConfig

    return cast("type[ClusterConfig]", ClusterConfig)


def drain_reason() -> type[DrainNodeReason]:
    """DrainNodeReason: that a node is preempted is an enum. When it moves: it is in Ray's
    autoscaler.proto."""
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    return cast("type[DrainNodeReason]", DrainNodeReason)


def node_info() -> type[GcsNodeInfo]:
    """GcsNodeInfo, for the value of its ALIVE: GcsClient gives nodes in these. When it moves: it is
    in Ray's gcs.proto."""
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    return cast("type[GcsNodeInfo]", GcsNodeInfo)


def cluster_state() -> GlobalState:
    """The state that this process's cluster keeps: which nodes are being drained, and what the
    autoscaler may start. When it moves: `ray.train.get_preemption_info` reads the former, Ray
    Train's and Ray Data's requests the latter."""
    from ray._private.state import state

    return state


def tune_environment() -> set[str]:
    """The names that Tune copies from the driver's environment into the trials' runtime_env, a set
    to be changed in place: keys of a cloud among them, which the dashboard shows. When it moves:
    see where ray.tune makes the runtime_env of its trainables; test_secrets.py finds a key
    that comes through."""
    from ray.tune.execution import class_cache

    names: set[str] = class_cache.ENV_VARS_TO_PROPAGATE
    return names


def dashboard_installed() -> bool:
    """Whether Ray came with its `default` extra, which has no public sign but a module that imports
    only then. When it moves: `ray start` checks for the same."""
    try:
        importlib.import_module("ray.dashboard.optional_deps")
    except ImportError:
        return False
    return True
