"""Experts in the plan: their memory, what is adapted and what is refused, as PEFT does it."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from expert_bases import PUBLISHED, small_expert_base
from fake_trials import TRIAL, make_sweep
from peft import LoraConfig, get_peft_model

from sftray.config import DataConfig, TrialConfig, uniform
from sftray.demo import FOLDER
from sftray.errors import ConfigError
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.experts_text import experts_text
from sftray.plan.lora_targets import EXPERTS_BY_NAME, MAMBA, require_targets
from sftray.plan.memory import base_bytes, train_memory
from sftray.plan.model_shape import EVERYWHERE, ModelShape, adapter_parameters
from sftray.plan.preview import make_plan
from sftray.plan.preview_text import plan_text
from sftray.plan.trainer_choice import why_not
from sftray.storage.model_files import BaseConfig

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from models import TYPES, small_model  # noqa: E402

EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


def config_of(kind: str) -> BaseConfig:
    return BaseConfig(model_type=kind, **PUBLISHED[kind])  # type: ignore[typeddict-item]


def shape_of(kind: str) -> ModelShape:
    shape = ModelShape.of(config_of(kind))
    assert shape is not None
    return shape


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_plan_counts_the_parameters_of_transformers(kind: str) -> None:
    config = transformers.AutoConfig.for_model(kind, **PUBLISHED[kind])
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    held = [(n, p.numel()) for n, p in model.named_parameters() if "bias" not in n]
    shape = shape_of(kind)
    in_experts = sum(size for name, size in held if ".experts." in name)
    assert shape.in_experts == in_experts
    assert shape.parameters == pytest.approx(sum(size for _, size in held), rel=2e-3)


def test_every_known_kind_is_counted() -> None:
    assert {*EVERYWHERE} == {*PUBLISHED}
    odd = config_of("qwen3_moe") | BaseConfig(mlp_only_layers=[0])
    assert ModelShape.of(odd) is None
    assert ModelShape.of({**config_of("mixtral"), "model_type": "dots1"}) is None


def test_experts_are_counted_at_their_real_width() -> None:
    shape = shape_of("qwen3_moe")
    assert base_bytes(shape, "nf4", resident=False) > 2 * shape.in_experts > 50 * 2**30
    trial = TrialConfig("base")
    less, more = (
        train_memory(shape, one, 2048, ONE_ROW)
        for one in (trial, replace(trial, lora_target_parameters=EXPERTS))
    )
    assert less.proof > 4 * shape.in_experts / shape.layers
    assert more.activations - less.activations == 2 * shape.in_experts  # PEFT's sums
    wide = adapter_parameters(shape, "all-linear", 16, EXPERTS)
    plain = adapter_parameters(shape, "all-linear", 16)
    assert wide - plain == 48 * 16 * 128 * (2048 + 2 * 768 + 768 + 2048)


SOME = ("mixtral", "qwen3_moe", "qwen2_moe", "gpt_oss", "mamba2")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind in SOME else pytest.mark.exhaustive)
        for kind in TYPES.split()
    ],
)
def test_what_peft_makes_of_all_linear_is_known(kind: str) -> None:
    model = small_model(kind, torch.float32, torch.device("cpu"))
    plain = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    if kind in MAMBA:
        with pytest.raises(ValueError, match="incompatible with Mamba"):
            get_peft_model(model, plain)
        return
    adapted = get_peft_model(model, plain).peft_config["default"]
    assert bool(adapted.target_parameters) == (kind in EXPERTS_BY_NAME)


BY_NAME = "attention alone is adapted, experts with lora_target_parameters"
OTHER = "linear layers alone are adapted, experts with lora_target_parameters"
BITS = "16 bits (bitsandbytes quantises linear layers alone)"


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        ("qwen3_moe", {}, f"128 × 48 layers, 54 GiB in {BITS}; {BY_NAME}"),
        (
            "qwen2_moe",
            {"base_precision": "fp32"},
            f"60 × 24 layers, 46.4 GiB in 32 bits; {OTHER}",
        ),
        (
            "mixtral",
            {"base_precision": "bf16", "lora_target_parameters": EXPERTS},
            "8 × 32 layers, 84 GiB in 16 bits; mlp.experts.gate_up_proj, mlp.experts.down_proj "
            "are adapted: PEFT loads and merges that, vLLM serves it merged",
        ),
        ("dots1", {}, f"of unknown memory, in {BITS}; {BY_NAME}"),
        ("llama", {}, None),
    ],
)
def test_a_plan_says_how_experts_are_held_and_what_is_adapted(
    kind: str, changes: dict[str, Any], text: str | None
) -> None:
    sizes = PUBLISHED.get(kind, {"n_routed_experts": 8} if kind == "dots1" else {})
    base: Any = {"model_type": kind, **sizes}
    assert experts_text(base, replace(TRIAL, **changes)) == text


def test_the_line_stands_in_the_plan(tmp_path: Path) -> None:
    base = small_expert_base(tmp_path / "base", "mixtral")
    data = DataConfig(str(FOLDER / "chats.jsonl"), max_length=512)
    sweep = make_sweep(data=data, trial=TrialConfig(str(base)), storage=str(tmp_path))
    plan = make_plan(sweep, gpu_memory=80 * 2**30)
    assert "experts: 4 × 2 layers, " in plan_text(plan)
    assert plan.to_json()["experts"] == plan.experts
    assert plan.trainer == "train"
    assert plan.memory is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_target_modules": ("q_proj", "gate_proj")}, "'gate_proj' on a qwen3_moe"),
        ({"lora_target_modules": r".*\.up_proj"}, r"up_proj' on a qwen3_moe"),
        ({"lora_target_modules": ("q_proj",)}, None),
        ({"lora_target_modules": r".*\.(q|v)_proj"}, None),
        ({"lora_target_parameters": EXPERTS}, None),
    ],
)
def test_names_that_peft_takes_for_experts_are_refused(
    changes: dict[str, Any], message: str | None
) -> None:
    sweep = make_sweep(trial=replace(TRIAL, **changes))
    if message is None:
        require_targets(sweep, config_of("qwen3_moe"))
        return
    with pytest.raises(ConfigError, match=re.escape(message)):
        require_targets(sweep, config_of("qwen3_moe"))
    require_targets(sweep, {"model_type": "qwen2_moe"})


def test_parameters_are_adapted_without_dropout_and_not_in_a_bank() -> None:
    with pytest.raises(ConfigError, match=r"must be without dropout and on one worker's base"):
        replace(TRIAL, lora_target_parameters=EXPERTS, lora_dropout=0.1)
    wrong: Any = "mlp.experts.down_proj"
    with pytest.raises(ConfigError, match=r"lora_target_parameters: got .*, must be a list"):
        replace(TRIAL, lora_target_parameters=wrong)
    listed: Any = [*EXPERTS]
    trial = replace(TRIAL, lora_target_parameters=listed)
    assert trial.lora_target_parameters == EXPERTS
    with pytest.raises(ConfigError, match=r"must be without dropout"):
        make_sweep(trial=trial, search_space={"lora_dropout": uniform(0.0, 0.1)})
    reason = why_not(make_sweep(trial=trial), {"model_type": "llama"})
    assert reason == "lora_target_parameters are adapted, and a bank adapts linear layers alone"
