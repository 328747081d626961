"""Which precision is advised on a GPU, and what an FP8 base takes of its memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bases import LLAMA_8B, QWEN_05B
from fake_trials import TRIAL, make_sweep

from sftray.config import DataConfig, SweepConfig
from sftray.demo import FOLDER
from sftray.plan.memory import base_bytes
from sftray.plan.model_shape import ModelShape
from sftray.plan.precision_advice import advice_text, advised_precision
from sftray.plan.preview import make_plan
from sftray.plan.preview_text import plan_text

GIB = 2**30
SWEEP = make_sweep(data=DataConfig("rows.jsonl", max_length=2048))


@pytest.mark.parametrize(
    ("sweep", "base", "gib", "capability", "precision", "why"),
    [
        (SWEEP, LLAMA_8B, 139, 9.0, "fp8", "1.4 times as fast"),
        (SWEEP, LLAMA_8B, 139, 8.0, "bf16", "nothing is rounded"),
        (SWEEP, LLAMA_8B, 16, 9.0, "nf4", "nothing larger fits"),
        (SWEEP, QWEN_05B, 139, 9.0, "bf16", "so small a base"),
        (make_sweep(trial=replace(TRIAL, num_workers=2)), LLAMA_8B, 139, 9.0, "bf16", "it fits"),
    ],
)
def test_a_precision_is_advised_that_fits_and_that_is_computed(
    sweep: SweepConfig,
    base: dict[str, object],
    gib: int,
    capability: float,
    precision: str,
    why: str,
) -> None:
    advised = advised_precision(sweep, base, memory=gib * GIB, capability=capability)  # type: ignore[arg-type]
    assert advised is not None
    assert advised[0] == precision
    assert why in advised[1]


def test_nothing_is_advised_where_there_is_no_choice() -> None:
    quantised: Any = LLAMA_8B | {"quantization_config": {"load_in_4bit": True}}
    assert advised_precision(SWEEP, quantised, memory=80e9, capability=9.0) is None
    assert advice_text(SWEEP, None) is None


def test_an_fp8_base_takes_what_one_in_bf16_does_and_its_scales() -> None:
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    more = base_bytes(shape, "fp8", resident=True) - base_bytes(shape, "bf16", resident=True)
    assert more == 4 * 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)


def test_a_plan_says_what_is_held_and_what_is_advised(tmp_path: Path) -> None:
    data = DataConfig(str(FOLDER / "chats.jsonl"), max_length=256)
    trial = replace(TRIAL, model=str(FOLDER))
    sweep = make_sweep(data=data, trial=trial, storage=str(tmp_path))
    plan = make_plan(sweep, gpu_memory=80e9, capability=9.0)
    assert f"precision: {trial.base_precision}; on this GPU bf16 is advised: " in plan_text(plan)
    assert make_plan(sweep, gpu_memory=80e9).precision is None
