"""The demo's sweep on a cluster that grows from no worker to three and back, and loses one on the
way.

    python benchmarks/autoscale.py
    python benchmarks/autoscale.py --trainer bank

One machine plays the head, which trains nothing, and up to three workers of one CPU each: Ray's
own fake provider starts and ends them, all else is as in a cloud, autoscaler included. When all
three are there, one is told to go as a spot machine is, with ten seconds of notice, and killed.
With a bank, which is one process and wants one worker, that one is taken back. Prints the number of
workers as it changes, and fails where the sweep did not end well, a worker stayed, or too few came.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from console import argument_parser, say

REPO = Path(__file__).parent.parent
WORKERS = 3
NOTICE_SECONDS = 10.0
SWEEP_SECONDS = 1200.0
IDLE_SECONDS = 15.0


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--trainer", default="train", choices=("train", "bank"))
    parser.add_argument("--num-trials", default="6")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="sftray-scale-") as folder,
        fake_cluster(Path(folder)) as address,
    ):
        return run(address, Path(folder), options.trainer, options.num_trials)


def run(address: str, folder: Path, trainer: str, num_trials: str) -> int:
    """The sweep beside the cluster's life; 0 if both went as they should."""
    started = time.monotonic()

    def log(line: str) -> None:
        say(f"{time.monotonic() - started:7.1f}s  {line}")

    wanted = WORKERS if trainer == "train" else 1
    log("workers: 0")
    counts, lost, ended = [0], "", 0.0
    with sweep(address, folder, trainer, num_trials, log) as alive:
        while time.monotonic() - started < SWEEP_SECONDS:
            nodes = workers(address)
            if len(nodes) != counts[-1]:
                counts.append(len(nodes))
                log(f"workers: {len(nodes)}")
            if not lost and len(nodes) == wanted and has_results(folder, wanted):
                lost = nodes[-1]
                take_back(address, lost, log)
            if alive() is not None:
                ended = ended or time.monotonic()
                if not nodes or time.monotonic() - ended > 120:
                    break
            time.sleep(0.5)
        code = alive()
    log(f"the sweep ended with {code}; workers over time: {counts}; taken back: {lost[-5:]}")
    # a killed worker counts until Ray has found out, beside the one that replaces it
    return 0 if code == 0 and lost and max(counts) >= wanted and counts[-1] == 0 else 1


@contextmanager
def fake_cluster(folder: Path) -> Iterator[str]:
    """A head without a CPU for trials and an autoscaler; its address. Ends with the block.

    Not by `ray.cluster_utils.AutoscalingCluster`: it begins with `ray stop`, which ends every
    cluster of the machine.
    """
    import ray
    from ray._private.authentication.authentication_token_setup import (
        enable_token_auth_by_default,
        ensure_token_if_auth_enabled,
    )

    from sftray.cluster import autoscaler_limits

    enable_token_auth_by_default()
    ensure_token_if_auth_enabled()
    ip = ray.util.get_node_ip_address()  # a sweep that joins takes a loopback address for this
    address = f"{ip}:{free_port()}"
    os.environ |= {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])),
        "RAY_ADDRESS": address,  # Ray Train's cleaner asks by it which cluster it is in
        "RAY_FAKE_CLUSTER": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_autoscaler_v2": "1",
    }
    config = launcher_config(address)
    file = folder / "launcher.json"
    file.write_text(json.dumps(config))
    head = start_head(address, file, folder / "ray")
    try:
        if not autoscaler_limits.tell(autoscaler_limits.launcher_groups(config), address):
            raise RuntimeError(f"the cluster at {address} does not answer")
        yield address
    finally:
        end_cluster(head)


def launcher_config(address: str) -> dict[str, Any]:
    """What a file of `ray up` would say, for Ray's fake provider."""
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    worker = {"CPU": 1, "object_store_memory": 200_000_000}
    return {
        "cluster_name": "fake",
        "max_workers": WORKERS,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "provider": {  # by its module: the type of that name wants a file that Ray's wheel lacks
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "max_workers": WORKERS},
        },
        # an external provider has no defaults
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


def start_head(address: str, launcher: Path, folder: Path) -> Any:
    """Ray's processes of a head with an autoscaler, as children of this one."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    ip, _, port = address.rpartition(":")
    head_only = {
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
    }
    os.environ |= head_only
    head = Node(
        RayParams(
            num_cpus=0,
            num_gpus=0,
            object_store_memory=400_000_000,
            node_ip_address=ip,
            gcs_server_port=int(port),
            dashboard_port=free_port(),
            dashboard_agent_listen_port=0,
            min_worker_port=0,
            max_worker_port=0,
            temp_dir=str(folder),
            include_dashboard=True,
            autoscaling_config=str(launcher),
        ),
        head=True,
        shutdown_at_exit=True,
        spawn_reaper=True,
    )
    for name in head_only:
        del os.environ[name]
    return head


@contextmanager
def sweep(
    address: str, folder: Path, trainer: str, num_trials: str, log: Callable[[str], None]
) -> Iterator[Callable[[], int | None]]:
    """The demo's sweep as a process of its own; its exit status as a function, None till then."""
    command = [sys.executable, str(REPO / "sweeps" / "lr_batch.py"), "--demo"]
    command += ["--trainer", trainer, "--num-trials", num_trials, "--wandb", "disabled"]
    command += ["--storage", str(folder / "results"), "--set", "use_gpu=false"]
    env = {**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=env)
    log("the sweep starts")
    try:
        yield process.poll
    finally:
        process.terminate()
        process.wait(timeout=60)


def workers(address: str) -> list[str]:
    """The living nodes but the head, as hex ids."""
    from ray._raylet import GcsClient
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    known = GcsClient(address=address).get_all_node_info(timeout=5)
    living = (n for n, i in known.items() if i.state == GcsNodeInfo.ALIVE and not i.is_head_node)
    return sorted(node.hex() for node in living)


def has_results(folder: Path, wanted: int) -> bool:
    """Whether every worker may have a trial at work: as many trials have been evaluated."""
    journals = list((folder / "results").glob("*/journal.jsonl"))
    events = [json.loads(line) for j in journals for line in j.read_text().splitlines()]
    return len({e["trial"] for e in events if e["event"] == "result"}) >= wanted


def take_back(address: str, node: str, log: Callable[[str], None]) -> None:
    """What a cloud does with a spot machine: notice, then the end."""
    from ray._raylet import GcsClient

    from sftray.cluster.spot_notice import Notice, drain_node

    drain_node(GcsClient(address=address), node, Notice("taken back", NOTICE_SECONDS))
    log(f"worker {node[-5:]} has notice of {NOTICE_SECONDS:.0f} s")
    time.sleep(NOTICE_SECONDS)
    for process in processes_of(node):
        process.kill()
    log(f"worker {node[-5:]} is gone")


def processes_of(node: str) -> list[Any]:
    """The raylet of a node and all that it has started."""
    import psutil

    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "raylet" and any(node in word for word in process.cmdline()):
            return [*process.children(recursive=True), process]
    return []


def end_cluster(head: Any) -> None:
    """The head and the workers that its monitor started, and no other Ray of this machine."""
    import psutil

    monitors = head.all_processes["monitor"]
    tree = [
        child
        for info in monitors
        for child in psutil.Process(info.process.pid).children(recursive=True)
    ]
    head.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    for process in tree:
        if process.is_running():
            process.kill()


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
