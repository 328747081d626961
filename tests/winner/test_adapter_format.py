"""PEFT and vLLM load the adapter: told from its files, as far as their documented formats go."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_bundle import save_bundle
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

from sftray.config import TrialConfig
from sftray.errors import SftrayError
from sftray.winner.adapter_format import (
    Stored,
    max_lora_rank,
    peft_problems,
    read_adapter,
    vllm_command,
    vllm_problems,
)

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def folder(tiny: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("bundle"), tiny)


@pytest.fixture(scope="module")
def saved(folder: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    return read_adapter(folder)


def test_what_peft_saves_has_no_problem_and_peft_loads_all_of_it(
    folder: Path, saved: tuple[dict[str, Any], dict[str, Stored]]
) -> None:
    config, tensors = saved
    assert peft_problems(config, tensors) == []
    assert vllm_problems(config, tensors) == []
    assert type(config["lora_alpha"]) is int  # no other is read by Ollama's converter
    assert len(tensors) == 2 * 7 * 2  # A and B of seven projections in two layers
    assert tensors[f"{Q_PROJ}.lora_A.weight"] == Stored((4, 48), "F32")
    loaded = AutoPeftModelForCausalLM.from_pretrained(folder).state_dict()
    for name, values in load_file(folder / "adapter_model.safetensors").items():
        assert loaded[name.replace(".weight", ".default.weight")].equal(values)


def _set(**values: Any) -> Callable[[dict[str, Any], dict[str, Stored]], None]:
    return lambda config, tensors: config.update(values)


def _tensor(side: str, stored: Stored | None, name: str = f"{Q_PROJ}.lora_{{}}.weight") -> Any:
    def change(config: dict[str, Any], tensors: dict[str, Stored]) -> None:
        tensors.pop(name.format(side), None)
        if stored is not None:
            tensors[name.format(side)] = stored

    return change


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_set(peft_type="IA3"), "peft_type is 'IA3', not 'LORA'"),
        (_set(task_type=None), "task_type is None"),
        (_set(r=None), "r is None"),
        (_set(r=8), "lora_A.weight has shape [4, 48], not rank 8"),
        (_set(target_modules=["k_proj"]), "q_proj is not among target_modules ['k_proj']"),
        (_tensor("B", None), "q_proj has lora_A alone"),
        (_tensor("B", Stored((48,), "F32")), "lora_B.weight has shape [48], not rank 4"),
        (_tensor("A", Stored((4, 48), "I8")), "lora_A.weight is I8, not a float"),
        (_tensor("A", Stored((4, 48), "F32"), "model.q_proj.lora_{}.weight"), "is not named base_"),
        (lambda config, tensors: tensors.clear(), "holds no tensor"),
    ],
)
def test_what_peft_would_not_load_is_told(
    saved: tuple[dict[str, Any], dict[str, Stored]],
    damage: Callable[[dict[str, Any], dict[str, Stored]], None],
    told: str,
) -> None:
    config, tensors = copy.deepcopy(saved)
    damage(config, tensors)
    assert told in "; ".join(peft_problems(config, tensors))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_set(use_dora=True), "use_dora is set"),
        (_set(modules_to_save=["lm_head"]), "modules_to_save is set"),
        (_set(trainable_token_indices=[1]), "trainable_token_indices is set"),
        (_set(rank_pattern={"q_proj": 2}), "rank_pattern is set"),
        (_set(bias="all"), "bias is 'all'"),
        (_set(r=1024), "rank 1024 is above vLLM's largest, 512"),
        (
            _tensor("A", Stored((4, 48), "F32"), "base_model.model.lm_head.lora_{}.weight"),
            "lm_head",
        ),
    ],
)
def test_what_vllm_would_not_load_is_told(
    saved: tuple[dict[str, Any], dict[str, Stored]],
    damage: Callable[[dict[str, Any], dict[str, Stored]], None],
    told: str,
) -> None:
    config, tensors = copy.deepcopy(saved)
    damage(config, tensors)
    assert told in "; ".join(vllm_problems(config, tensors))


@pytest.mark.parametrize(("rank", "most"), [(1, 1), (4, 8), (16, 16), (33, 64), (257, 320)])
def test_vllm_sets_aside_no_more_than_the_rank_needs(rank: int, most: int) -> None:
    assert max_lora_rank(rank) == most


def test_the_serve_command_can_be_pasted() -> None:
    assert vllm_command("/a b/best", "Qwen/Qwen3-8B-Base", 12, "lr") == (
        "vllm serve Qwen/Qwen3-8B-Base --enable-lora --max-lora-rank 16 "
        "--lora-modules 'lr=/a b/best' --chat-template '/a b/best/chat_template.jinja'"
    )


def test_a_folder_without_an_adapter_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(SftrayError, match=r"must hold adapter_config\.json and adapter_model"):
        read_adapter(tmp_path)
