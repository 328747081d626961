"""Which trials a bank can train, and what is said where it cannot."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from fake_trials import TRIAL, make_sweep
from transformers import AutoConfig

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice
from sftray.config.sweep_config import ONE_FROZEN_BASE
from sftray.demo import FOLDER
from sftray.errors import ConfigError
from sftray.plan.bank_fields import COMPUTED, HARMLESS
from sftray.plan.bank_settings import choose_settings
from sftray.plan.device_fit import fit_train
from sftray.plan.layer_description import FAMILIES
from sftray.plan.model_shape import PROJECTIONS
from sftray.plan.preview import make_plan
from sftray.plan.trainer_choice import (
    ROPE_TYPES,
    SHARED,
    adapted_by_any,
    pick_trainer,
    target_projections,
    why_not,
    without_bank,
)

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.py"))

QWEN3_8B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 32768,
    "max_window_layers": 36,
    "model_type": "qwen3",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
MISTRAL: dict[str, Any] = {"model_type": "mistral", "hidden_act": "silu", "sliding_window": None}
GEMMA3: dict[str, Any] = {"model_type": "gemma3_text", "sliding_window_pattern": 6}
COMMAND_R7B: dict[str, Any] = {
    "attention_bias": False, "cache_implementation": "hybrid", "head_dim": 128,
    "hidden_act": "silu", "layer_norm_eps": 1e-05, "layer_switch": 4, "logit_scale": 0.25,
    "model_type": "cohere2", "order_of_interleaved_layers": "local_attn_first",
    "position_embedding_type": "rope_gptj", "rope_scaling": None, "rope_theta": 50000,
    "rotary_pct": 1.0, "sliding_window": 4096, "sliding_window_pattern": 4,
    "use_embedding_sharing": True, "use_gated_activation": True, "use_parallel_block": True,
    "use_parallel_embedding": False, "use_qk_norm": False,
}  # fmt: skip
INT8 = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True}
REFUSED = {"attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"}
REFUSED |= {"residual_dropout", "resid_pdrop", "embd_pdrop", "use_qk_norm"}
"""Fields of configurations that are refused where they are on."""
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_trials_of_every_family_are_slots_of_a_bank(family: str) -> None:
    assert why_not(make_sweep(), {"model_type": family, "attention_dropout": 0.0}) is None


@pytest.mark.parametrize("rope_type", ROPE_TYPES)
@pytest.mark.parametrize(
    "spelled",
    [
        lambda kind: {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0}},
        lambda kind: {"rope_scaling": {"rope_type": kind, "factor": 8.0}},
        lambda kind: {"rope_scaling": {"type": kind, "factor": 8.0}},
    ],
)
def test_rotary_embeddings_that_the_bank_knows_are_computed(rope_type: str, spelled: Any) -> None:
    assert why_not(make_sweep(), {"model_type": "llama", **spelled(rope_type)}) is None


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (
            {"model_type": "gemma3"},
            f"the bank computes {', '.join(FAMILIES)} models, and this one is 'gemma3'",
        ),
        ({}, "this one is None"),
        (
            {"model_type": "llama", "hidden_act": "gelu"},
            "is 'gelu', not of silu, gelu_pytorch_tanh",
        ),
        (QWEN3_8B | {"is_causal": False}, "not causal (is_causal is false)"),
        (QWEN3_8B | {"auto_map": {"AutoModel": "mine.Mine"}}, "code of its own (auto_map)"),
        (QWEN3_8B | {"quantization_config": {"quant_method": "gptq"}}, "quantised by gptq"),
        (QWEN3_8B | {"quantization_config": INT8}, "quantised by bitsandbytes in 8 bits"),
        (QWEN3_8B | {"attention_dropout": 0.1}, "the base has attention dropout"),
        (
            QWEN3_8B | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rotary embedding is 'dynamic', not of default, linear, llama3, yarn, longrope",
        ),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "dynamic"}}, "is 'dynamic'"),
        (GEMMA3 | {"rope_parameters": {"full_attention": {"rope_type": "yarn", "x": 1}}}, "x is 1"),
        (
            GEMMA3 | {"rope_parameters": {"sliding_attention": {"rope_type": "longrope"}}},
            "rotary embedding is 'longrope', not of default, linear, llama3, yarn",
        ),
        (GEMMA3 | {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        (GEMMA3 | {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ],
)
def test_a_base_that_the_bank_does_not_compute_is_named(base: dict[str, Any], reason: str) -> None:
    assert reason in str(why_not(make_sweep(), base))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"residual_multiplier": 0.22}, "residual_multiplier is 0.22"),  # Granite's
        ({"attention_gate": "headwise"}, "attention_gate is 'headwise'"),  # nobody's
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "is 0.5"),
        ({"rope_scaling": {"type": "default", "mrope_section": [16, 24]}}, "mrope_section is [16"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "has 'linear_attention'"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ({"partial_rotary_factor": 1.0}, None),
        ({"attention_bias": True, "mlp_bias": True}, None),  # which it computes
        ({"residual_multiplier": None, "use_mrope": False, "embd_pdrop": 0.0}, None),
        ({"_name_or_path": "x", "temperature": 0.7, "unsloth_version": "2026.1"}, None),
    ],
)
def test_a_field_that_is_not_known_and_not_off_is_a_refusal(
    changes: dict[str, Any], reason: str | None
) -> None:
    found = why_not(make_sweep(), QWEN3_8B | changes)
    if reason is None:
        assert found is None
        return
    assert reason in str(found)
    assert str(found).endswith(", which the bank does not know")
    assert pick_trainer(make_sweep(), QWEN3_8B | changes) == ("train", found)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_of_transformers_configuration_is_known(family: str) -> None:
    off = {"seed_oss": {"attention_dropout": 0.0, "residual_dropout": 0.0}}.get(family, {})
    config = AutoConfig.for_model(family, **off)
    fields = set(config.to_dict()) | {*getattr(type(config), "__annotations__", {})}
    unknown = fields - COMPUTED - HARMLESS - FAMILIES[family].fields - REFUSED
    assert {name for name in unknown if not name.startswith("_")} == set()
    assert why_not(make_sweep(), config.to_dict()) is None


@pytest.mark.parametrize(
    "base",
    [
        MISTRAL,
        MISTRAL | {"sliding_window": 4096},
        QWEN3_8B,
        QWEN3_8B | {"model_type": "qwen2", "sliding_window": 131072},
        COMMAND_R7B,
        QWEN3_8B | {"layer_types": ["full_attention"] * 36},
    ],
)
def test_windows_are_computed_or_not_used(base: dict[str, Any]) -> None:
    assert why_not(make_sweep(), base) is None


def test_a_base_in_bitsandbytes_4_bits_is_for_a_bank() -> None:
    assert why_not(make_sweep(), QWEN3_8B | {"quantization_config": NF4}) is None


VALUES: dict[str, list[Any]] = {
    "model": ["one", "another"],
    "model_revision": ["main", "v2"],
    "base_precision": ["nf4", "bf16"],
    "lora_target_parameters": [(), ("mlp.experts.down_proj",)],
    "num_workers": [1, 2],
    "micro_batch_size": [1, 2],
    "activation_checkpointing": [True, False],
    "attention": ["sdpa", "flash_attention_2"],
}


@pytest.mark.parametrize("name", VALUES)
def test_what_all_trials_share_cannot_be_searched_in_a_bank(name: str) -> None:
    reason = f"{name} is searched, and all trials of a bank share it"
    searched = make_sweep(search_space={name: choice(VALUES[name])})
    assert why_not(searched, QWEN3_8B) == reason
    points = make_sweep(points=({"learning_rate": 1e-4}, {name: VALUES[name][0]}))
    assert why_not(points, QWEN3_8B) == reason


def test_everything_else_can_be_searched_in_a_bank() -> None:
    values: dict[str, Any] = {
        f.name: getattr(TRIAL, f.name) for f in fields(TrialConfig) if f.name not in SHARED
    }
    del values["lora_alpha_ratio"], values["mixture"]  # lora_alpha's place; an axis a source
    assert {*SHARED} - {*VALUES} == {"trust_remote_code", "finetune"}  # which no sweep can search
    assert {"learning_rate", "lora_r", "lora_dropout", "adam_beta2", "seed"} <= values.keys()
    assert why_not(make_sweep(points=(values,)), QWEN3_8B) is None


def test_trials_of_several_workers_are_not_for_a_bank() -> None:
    sweep = make_sweep(trial=replace(TRIAL, num_workers=2))
    reason = "a trial has 2 workers, and a bank's trials share one GPU"
    assert why_not(sweep, QWEN3_8B) == reason


@pytest.mark.parametrize(
    "targets", [r".*\.(q|v)_proj", "q_proj", ("q_proj", "lm_head"), ("self_attn.q_proj",)]
)
def test_target_modules_that_the_bank_does_not_know_are_named(targets: Any) -> None:
    sweep = make_sweep(trial=replace(TRIAL, lora_target_modules=targets))
    reason = why_not(sweep, QWEN3_8B)
    assert reason is not None
    assert reason.startswith(f"lora_target_modules is {targets!r}; a bank knows 'all-linear' or ")


def test_target_modules_may_be_searched_and_the_bank_adapts_all_of_them() -> None:
    values = [("q_proj", "v_proj"), ("down_proj", "q_proj")]
    sweep = make_sweep(search_space={"lora_target_modules": choice(values)})
    assert why_not(sweep, QWEN3_8B) is None
    settings = choose_settings(sweep, QWEN3_8B, memory=None)
    assert settings is not None
    assert settings.lora_target_modules == ("down_proj", "q_proj", "v_proj")
    whole = replace(sweep, search_space={"lora_target_modules": choice([*values, "all-linear"])})
    assert adapted_by_any(whole) == "all-linear"
    odd = replace(sweep, search_space={"lora_target_modules": choice([*values, ("lm_head",)])})
    reason = why_not(odd, QWEN3_8B)
    assert reason is not None
    assert reason.startswith("lora_target_modules is ('lm_head',); a bank knows")


def test_targets_are_projections_in_the_order_of_the_forward_pass() -> None:
    assert target_projections("all-linear") == PROJECTIONS
    assert target_projections(("v_proj", "q_proj")) == ("q_proj", "v_proj")


def test_auto_takes_the_bank_where_it_can_and_says_why_where_not() -> None:
    assert pick_trainer(make_sweep(), QWEN3_8B) == (
        "bank",
        "plain LoRA trials that share one base",
    )
    trainer, why = pick_trainer(make_sweep(), {"model_type": "phi"})
    assert trainer == "train"
    assert "this one is 'phi'" in why


def test_an_fp8_base_is_of_the_bank_alone() -> None:
    fp8 = replace(TRIAL, base_precision="fp8")
    assert pick_trainer(make_sweep(trial=fp8), QWEN3_8B)[0] == "bank"
    refused = [
        (make_sweep(trial=fp8, trainer="train"), QWEN3_8B, "trainer='train' is asked for"),
        (make_sweep(trial=replace(fp8, num_workers=2)), QWEN3_8B, "a trial has 2 workers"),
        (make_sweep(trial=fp8), QWEN3_8B | {"intermediate_size": 1000}, "a side of 1000, no mult"),
    ]
    for sweep, base, reason in refused:
        with pytest.raises(ConfigError, match=f"which only a bank computes, but .*{reason}"):
            pick_trainer(sweep, base)
    with pytest.raises(ConfigError, match="not even one slot of a bank fits"):
        without_bank(make_sweep(trial=fp8))
    with pytest.raises(ConfigError, match="the sweep is run by 'train'"):
        fit_train(make_sweep(trial=fp8), QWEN3_8B, 80e9)


def test_a_trainer_that_is_asked_for_is_taken() -> None:
    assert pick_trainer(make_sweep(trainer="train"), QWEN3_8B) == ("train", "asked for")
    assert pick_trainer(make_sweep(trainer="bank"), QWEN3_8B)[0] == "bank"


def test_a_bank_that_is_asked_for_and_cannot_be_had_is_an_error_with_its_reason() -> None:
    message = (
        "trainer: got 'bank', but the base has attention dropout; leave it 'auto', or take 'train'"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        pick_trainer(make_sweep(trainer="bank"), MISTRAL | {"attention_dropout": 0.1})


def test_a_bank_that_does_not_fit_gives_way_to_train_unless_it_was_asked_for() -> None:
    assert without_bank(make_sweep()) == (
        "train",
        "not even one slot of a bank fits the GPU's memory",
    )
    with pytest.raises(ConfigError, match="not even one slot of a bank fits the GPU's memory; "):
        without_bank(make_sweep(trainer="bank"))
    assert without_bank(make_sweep(bank_slots=8)) == (
        "train",
        "a bank of bank_slots=8 does not fit the GPU's memory",
    )


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_a_shipped_sweep_gets_the_bank_unless_it_trains_all_weights(file: Path) -> None:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    trainer, why = pick_trainer(module.sweep, QWEN3_8B)
    if module.sweep.trial.finetune == "full":
        assert (trainer, why) == ("train", ONE_FROZEN_BASE)
    else:
        assert trainer == "bank"


def test_a_plan_tells_the_trainer_and_what_the_bank_is_built_for(tmp_path: Path) -> None:
    sweep = _demo_sweep(tmp_path)
    plan = make_plan(sweep, gpu_memory=80 * 2**30)
    assert (plan.trainer, plan.why_trainer) == (
        "bank",
        "plain LoRA trials that share one base",
    )
    bank, memory = plan.bank, plan.memory
    assert bank is not None
    assert memory is not None
    assert (bank.slots, bank.lora_r) == (4, TRIAL.lora_r)
    assert 0 < bank.memory_gb == memory.total / 2**30 < 80
    assert {shape.plan.micro_batch_size for shape in plan.shapes} == {bank.micro_batch_size}
    on_cpu = make_plan(sweep, gpu_memory=None)
    assert on_cpu.bank is not None
    assert (on_cpu.bank.slots, on_cpu.bank.memory_gb, on_cpu.memory) == (4, 0.0, None)


def test_a_plan_takes_train_where_no_slot_fits(tmp_path: Path) -> None:
    sweep, little = replace(_demo_sweep(tmp_path), bank_slots=64), 2 * 2**30
    plan = make_plan(sweep, gpu_memory=little)
    assert (plan.trainer, plan.bank) == ("train", None)
    assert plan.why_trainer == "a bank of bank_slots=64 does not fit the GPU's memory"
    with pytest.raises(ConfigError, match="trainer: got 'bank', but a bank of bank_slots=64"):
        make_plan(replace(sweep, trainer="bank"), gpu_memory=little)
    with pytest.raises(ConfigError, match=r"takes at least 1\.\d GiB .* and the GPU has 1\.0"):
        make_plan(sweep, gpu_memory=2**30)


def _demo_sweep(tmp_path: Path) -> SweepConfig:
    """16 trials on the bundled base."""
    data = DataConfig(str(FOLDER / "chats.jsonl"), max_length=512)
    return make_sweep(data=data, trial=TrialConfig(str(FOLDER)), storage=str(tmp_path))
