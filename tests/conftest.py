"""One Ray, one small pack, one tiny model and one small sweep for the whole test session."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.results import Results

TESTS = Path(__file__).parent
# a busy machine decides no test
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# proofs of an earlier run do not count in this one
os.environ["SFTRAY_CACHE"] = tempfile.mkdtemp(prefix="sftray-tests-")
atexit.register(shutil.rmtree, os.environ["SFTRAY_CACHE"], ignore_errors=True)
# the bundled base is so small that a second thread waits more than it works
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on 2 CPUs, with the State API that frees a stopped Train run's resources."""
    import ray

    # Ray's workers import sftray and the trainables that tests define
    tests = {str(path.parent) for path in TESTS.glob("**/*.py")}
    folders = [str(TESTS.parent), *sorted(tests), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    from sftray.cluster.ray_private import dashboard_installed

    ray.init("local", num_cpus=2, include_dashboard=dashboard_installed(), log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_sweep_config(tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    """Three trials of 12 steps over rows of 256 tokens; ASHA stops the last."""
    from sftray.demo import FOLDER

    return SweepConfig(
        name="small",
        data=DataConfig(
            str(FOLDER / "chats.jsonl"),
            max_length=256,
            max_conversations=250,
            eval_fraction=0.15,
            num_eval_conversations=34,
        ),
        trial=TrialConfig(
            str(FOLDER),
            base_precision="fp32",
            effective_batch_size=2,
            num_train_epochs=0.5,
            lora_r=4,
            lora_alpha_ratio=2.0,
            lora_dropout=0.1,
        ),
        points=tuple({"learning_rate": rate} for rate in (1e-3, 1e-2, 1e-5)),
        rungs=(0.42,),
        grace_steps=1,
        evals_per_trial=3,
        storage=str(tmp_path_factory.mktemp("small")),
        wandb="disabled",
    )


@pytest.fixture(scope="session")
def small_packs(small_sweep_config: SweepConfig) -> Packs:
    """250 of the bundled conversations in rows of 256 tokens, built without Ray."""
    from packs_here import build_packs_here

    sweep = small_sweep_config
    return build_packs_here(sweep.data, sweep.trial.model, storage=sweep.storage)


@pytest.fixture(scope="session")
def mixed_data(
    small_sweep_config: SweepConfig, tmp_path_factory: pytest.TempPathFactory
) -> DataConfig:
    """Seven rows of the bundled conversations to three of sums, of which there are few."""
    sums = tmp_path_factory.mktemp("sums") / "sums.jsonl"
    texts = [{"prompt": f"{k} + {k + 3}?", "completion": f"It is {2 * k + 3}."} for k in range(60)]
    sums.write_text("".join(json.dumps(text) + "\n" for text in texts))
    data = small_sweep_config.data
    return replace(data, source=None, sources=[(str(data.source), 0.7), (str(sums), 0.3)])


@pytest.fixture(scope="session")
def mixed_packs(mixed_data: DataConfig, small_sweep_config: SweepConfig) -> Packs:
    """Packs of both, built without Ray."""
    from packs_here import build_packs_here

    sweep = small_sweep_config
    return build_packs_here(mixed_data, sweep.trial.model, storage=sweep.storage)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TrialConfig:
    """A trial of a random model of 2 layers with the demo's tokenizer."""
    from bank_models import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def small_sweep(ray_cluster: None, small_sweep_config: SweepConfig) -> Results:
    """The small sweep, run to its end in this process."""
    from sftray.sweep.run import run_sweep

    return run_sweep(small_sweep_config, local=True, log=lambda line: None)
