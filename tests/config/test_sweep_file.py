"""A sweep written as a Python file is the same sweep when the file is run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from fake_trials import make_sweep

from sftray.config import (
    DataConfig,
    SweepConfig,
    TrialConfig,
    choice,
    fitting,
    loguniform,
    randint,
    uniform,
)
from sftray.config.sweep_file import as_file

SWEEPS = (
    make_sweep(),
    make_sweep(
        data=DataConfig("a 'quoted' \"path\\n\".jsonl", eval_fraction=0.1, max_conversations=7),
        trial=TrialConfig("m/b", lora_target_modules=("q_proj",), learning_rate=3.25e-5),
        search_space={
            "learning_rate": loguniform(2e-5, 1e-3),
            "effective_batch_size": fitting([8, 16]),
            "num_train_epochs": choice([0.5, 1]),
            "lora_r": randint(2, 9),
            "warmup_ratio": uniform(0.0, 0.1),
        },
        confirm_top=2,
    ),
    make_sweep(objective="metric", metric="sftray.metrics:exact_match"),
    make_sweep(search_space={}, points=({},)),
    make_sweep(search_space={}, points=({"learning_rate": 1e-3}, {"seed": 3})),
)


def swept(text: str, folder: Path) -> SweepConfig:
    file = folder / "written.py"
    file.write_text(text, encoding="utf-8")
    found: SweepConfig = runpy.run_path(str(file))["sweep"]
    return found


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_written_sweep_is_the_same_sweep(sweep: SweepConfig, tmp_path: Path) -> None:
    text = as_file(sweep, 'It says "why".')
    assert swept(text, tmp_path) == sweep
    assert max(map(len, text.splitlines())) <= 100


def test_reasons_stand_above_their_values(tmp_path: Path) -> None:
    reasons = {
        "trial.lora_r": "capacity " * 20,
        "search_space.learning_rate": "the one that matters",
        "num_trials": "enough",
    }
    text = as_file(SWEEPS[0], "Why.", reasons)
    lines = [line.strip() for line in text.splitlines()]
    assert lines[lines.index("lora_r=16,") - 1].startswith("# capacity")  # a default that is shown
    assert lines[lines.index('"learning_rate": loguniform(1e-5, 0.1),') - 1] == (
        "# the one that matters"
    )
    assert lines[lines.index("num_trials=16,") - 1] == "# enough"
    assert "lora_alpha" not in text
    assert swept(text, tmp_path) == SWEEPS[0]
