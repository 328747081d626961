"""What the autoscaler may grow a cluster to gets to where sweeps read it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sftray.cluster import autoscaler_limits
from sftray.cluster.autoscaler_limits import Group

CLUSTER = Path(__file__).parents[2] / "cluster"


def test_a_launcher_file_names_one_head_and_its_workers() -> None:
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
    assert autoscaler_limits.launcher_groups(config) == [
        Group("head", 1, {"CPU": 4}),
        Group("gpu_spot", 4, {"CPU": 4, "GPU": 1}),
    ]


def test_workers_are_never_more_than_the_file_allows_in_all() -> None:
    config = {
        "max_workers": 2,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 1}, "max_workers": 0},
            "many": {"resources": {"GPU": 8}, "max_workers": 9},
            "unsaid": {"resources": {"GPU": 1}},
        },
    }
    assert [g.count for g in autoscaler_limits.launcher_groups(config)] == [1, 2, 2]


def test_a_group_on_the_command_line() -> None:
    assert autoscaler_limits.group_of(["4", "CPU=6", "GPU=1"], "g") == Group(
        "g", 4, {"CPU": 6, "GPU": 1}
    )


def test_nothing_to_tell_is_an_error() -> None:
    with pytest.raises(SystemExit):
        autoscaler_limits.main([])


@pytest.mark.ray
def test_what_was_told_is_what_a_sweep_can_reach(ray_cluster: None) -> None:
    import ray

    from sftray.cluster.connect import Cluster, connect

    here = ray.cluster_resources()
    address = ray.get_runtime_context().gcs_address
    try:
        groups = [Group("head", 1, {"CPU": 1}), Group("gpu", 3, {"CPU": 4, "GPU": 2})]
        assert autoscaler_limits.tell(groups, address, seconds=10)
        reach = autoscaler_limits.reachable()
        assert reach["CPU"] == 13
        assert reach["GPU"] == 6
        assert reach["memory"] == here["memory"]
        assert connect(lambda line: None, dashboard=False) == Cluster(cpus=13, gpus=6)
    finally:  # the cluster is the whole session's
        assert autoscaler_limits.tell([], address, seconds=10)
    assert autoscaler_limits.reachable() == here
