"""A multimodal checkpoint is planned by what its config.json says of the language model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_trials import make_sweep
from multimodal_bases import multimodal_base
from saved_bases import copy_of_the_base

from sftray.config import DataConfig, SweepConfig, TrialConfig, loguniform
from sftray.demo import FOLDER
from sftray.errors import ConfigError
from sftray.plan.disk import disk_needed
from sftray.plan.model_shape import ModelShape
from sftray.plan.preview import make_plan
from sftray.plan.prior_points import prior_points
from sftray.plan.trainer_choice import why_not
from sftray.storage.model_files import model_config

GEMMA_3_4B: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16},
}  # fmt: skip
"""As published: what is default is left out."""


def sweep_on(base: Path, storage: Path, **changes: Any) -> SweepConfig:
    data = DataConfig(str(FOLDER / "chats.jsonl"), max_length=512)
    trial = replace(TrialConfig(str(base), base_precision="bf16"), **changes)
    return make_sweep(
        data=data, trial=trial, storage=str(storage),
        search_space={"learning_rate": loguniform(1e-5, 1e-3)},
    )  # fmt: skip


def test_memory_priors_and_disk_are_those_of_the_language_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GEMMA_3_4B))
    base = model_config(str(tmp_path))
    shape = ModelShape.of(base)
    assert shape is not None
    # 3.88 billion without the vision tower
    assert shape.parameters == pytest.approx(3.88e9, rel=0.01)
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.window) == (8, 4, 256, 1024)
    sweep = sweep_on(tmp_path, tmp_path)
    point, *_ = prior_points(sweep, base)
    assert point["learning_rate"] == pytest.approx(5e-4 * (2000 / 2560) ** 0.781)
    assert disk_needed(sweep, base, {}, at_once=1).bundle < 4 * 34e6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"new": 1}, "the base's new is 1, which the bank does not know"),
        ({"model_type": "gemma4_text"}, "this one is 'gemma4_text'"),
    ],
)
def test_a_bank_asks_for_the_fields_of_the_language_model_alone(
    changes: dict[str, Any], reason: str | None, tmp_path: Path
) -> None:
    text = {**GEMMA_3_4B["text_config"], **changes}
    (tmp_path / "config.json").write_text(json.dumps(GEMMA_3_4B | {"text_config": text}))
    found = why_not(sweep_on(tmp_path, tmp_path), model_config(str(tmp_path)))
    assert found is None if reason is None else reason in str(found)


def test_a_plan_is_made_and_all_weights_are_not_trained(tmp_path: Path) -> None:
    base = multimodal_base(tmp_path / "base", "gemma3")
    plan = make_plan(sweep_on(base, tmp_path), gpu_memory=80 * 2**30)
    assert plan.trainer == "bank"
    assert plan.memory is not None
    with pytest.raises(ConfigError, match=r"got 'full' on a checkpoint with other"):
        make_plan(sweep_on(base, tmp_path, finetune="full"), gpu_memory=None)
    dense = copy_of_the_base(tmp_path / "dense")
    assert make_plan(sweep_on(dense, tmp_path, finetune="full"), gpu_memory=None).starts
