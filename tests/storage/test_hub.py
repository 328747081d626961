"""A Hub that has too much to do, and many processes of a node that want the same model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import COMMIT, MODEL, FakeHub, fake_hub

from sftray.demo import FOLDER

pytestmark = pytest.mark.slow

NAMES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
FETCH = "from sftray.storage import hub; print(hub.fetched('org/tiny', None))"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    names = tuple(name for name in NAMES if (FOLDER / name).exists())
    with fake_hub(FOLDER, names) as served:
        yield served


def started(hub: FakeHub, tmp_path: Path, code: str) -> subprocess.Popen[str]:
    """A process of a node whose caches lie in `tmp_path`."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf"),
        "SFTRAY_CACHE": str(tmp_path / "node"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_hub_that_has_too_much_to_do_is_waited_for_and_the_model_loaded_from_the_cache(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.busy = 2
    code = (
        "import torch\n"
        "from sftray.config.sweep_config import TrialConfig\n"
        "from sftray.trial.base_model import load_base, load_tokenizer\n"
        f"trial = TrialConfig({MODEL!r}, base_precision='fp32')\n"
        "device = torch.device('cpu')\n"
        "model = load_base(trial, device)\n"
        "print(model.name_or_path, type(load_tokenizer(trial, '')).__name__)\n"
    )
    process = started(hub, tmp_path, code)
    out, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert out.split()[0] == MODEL
    assert said.count("the Hub does not answer") == 1
    assert "429" in said
    assert said.count("the Hub answers again") == 1
    assert hub.asked["commit"] == 1
    downloads = [f"GET {name}" for name in hub.files]
    assert [hub.asked[what] for what in downloads] == [1] * len(downloads)
    assert not [what for what in hub.asked if what.startswith(("GET /", "HEAD /"))]


def test_of_a_nodes_processes_one_downloads_the_model(hub: FakeHub, tmp_path: Path) -> None:
    processes = [started(hub, tmp_path, FETCH) for _ in range(3)]
    for process in processes:
        out, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert COMMIT in out
    assert {hub.asked[f"GET {name}"] for name in hub.files} == {1}
    assert hub.asked["tree"] == 1


def test_a_hub_that_stays_busy_ends_in_plain_words(hub: FakeHub, tmp_path: Path) -> None:
    hub.busy = 1000
    process = started(
        hub, tmp_path, f"from sftray.storage import hub; hub.PATIENCE_SECONDS = 0.2; {FETCH}"
    )
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "OutageError: the Hub does not answer" in said.splitlines()[-1]
    assert "HF_TOKEN" in said
    assert "run the same command to continue" in said


def test_a_model_that_is_not_there_is_not_waited_for(hub: FakeHub, tmp_path: Path) -> None:
    process = started(hub, tmp_path, FETCH.replace("org/tiny", "org/none"))
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "does not answer" not in said
