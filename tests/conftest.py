"""One Ray for the whole test session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftray.config import DataConfig
from sftray.data.packs import Packs

TESTS = Path(__file__).parent
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on 2 CPUs, with the State API that frees a stopped Train run's resources."""
    import ray

    # Ray's workers import sftray and the trainables that tests define
    folders = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    from sftray.sweep import dashboard_installed

    ray.init("local", num_cpus=2, include_dashboard=dashboard_installed(), log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_packs(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Packs:
    """160 of the bundled conversations in rows of 256 tokens: 49 to train on, 6 to evaluate on."""
    from sftray.data.pipeline import build_packs
    from sftray.demo import FOLDER

    data = DataConfig(
        str(FOLDER / "chats.jsonl"),
        max_length=256,
        max_conversations=160,
        eval_fraction=0.1,
        num_eval_conversations=16,
    )
    return build_packs(data, str(FOLDER), storage=str(tmp_path_factory.mktemp("small")))
