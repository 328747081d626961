"""Checkpoints that would not be trained as what they are are refused before anything starts."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_trials import make_sweep
from saved_bases import FP8, copy_of_the_base, resized

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice
from sftray.demo import FOLDER
from sftray.errors import ConfigError, DataError, SftrayError
from sftray.plan.checkpoint_format import held_in, require_precision
from sftray.plan.memory import base_bytes
from sftray.plan.model_shape import ModelShape
from sftray.plan.preflight import checked_base
from sftray.plan.preview import make_plan
from sftray.plan.proposal import propose
from sftray.storage.model_files import BaseConfig, model_config
from sftray.winner.merge import require_unquantised

INT8: dict[str, Any] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
NF4: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
CHATS = str(FOLDER / "chats.jsonl")


def quantised(config: dict[str, Any] | None) -> BaseConfig:
    return BaseConfig(model_type="llama", quantization_config=config)


def sweep_on(base: Path, storage: Path, precision: str = "fp32") -> SweepConfig:
    trial = TrialConfig(str(base), base_precision=precision)
    return make_sweep(data=DataConfig(CHATS, max_length=512), trial=trial, storage=str(storage))


@pytest.mark.parametrize(
    ("config", "true"),
    [
        (None, ("nf4", "bf16", "fp32", "fp8")),
        (NF4, ("nf4",)),
        ({"load_in_4bit": True}, ("fp4",)),  # transformers' default
        (INT8, ("int8",)),
        (FP8["fp8"], ("bf16", "fp32")),
    ],
)
def test_base_precision_is_what_the_base_is_held_in(
    config: dict[str, Any] | None, true: tuple[str, ...]
) -> None:
    base = quantised(config)
    assert held_in(base) == held_in({"model_type": "gemma3", "text_config": base}) == true
    for precision in ("nf4", "fp4", "int8", "bf16", "fp32", "fp8"):
        sweep = make_sweep(trial=TrialConfig("base", base_precision=precision))
        if precision in true:
            require_precision(sweep, base)
            continue
        message = f"trial.base_precision: got {precision!r} with a checkpoint in "
        with pytest.raises(ConfigError, match=re.escape(message)) as refused:
            require_precision(sweep, base)
        assert refused.value.hint == f"--set trial.base_precision={true[0]}"
    searched = make_sweep(search_space={"base_precision": choice(["nf4", "int8"])})
    with pytest.raises(ConfigError, match=r"trial\.base_precision: got "):
        require_precision(searched, base)


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"quant_method": "gptq", "bits": 4}, "take the base that it was made from"),
        ({"quant_method": "awq", "bits": 4}, "take the base that it was made from"),
        ({"quant_method": "mxfp4"}, "save it once in bf16: "),
        ({"quant_method": "fbgemm_fp8"}, "take the base that it was made from"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            "take the base that it was made from",
        ),
        ({"bits": 3}, "take the base that it was made from"),
    ],
)
def test_what_is_not_trained_is_refused_in_one_line(
    config: dict[str, Any], hint: str, tmp_path: Path
) -> None:
    base = copy_of_the_base(tmp_path / "base", quantization_config=config)
    method = config.get("quant_method", "an unknown method")
    with pytest.raises(ConfigError) as refused:
        make_plan(sweep_on(base, tmp_path), gpu_memory=None)
    assert refused.value.message.startswith(f"trial.model: got a checkpoint quantised by {method}")
    assert refused.value.hint.startswith(hint)
    assert "\n" not in str(refused.value)


def test_compressed_tensors_is_asked_for_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install compressed-tensors"):
        held_in(quantised(FP8["compressed-tensors"]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert held_in(quantised(FP8["compressed-tensors"])) == ("bf16", "fp32")


@pytest.mark.parametrize("config", [NF4, INT8, FP8["fp8"]])
def test_a_winner_on_a_quantised_base_is_not_merged(config: dict[str, Any]) -> None:
    with pytest.raises(SftrayError, match="got a base whose own weights are quantised"):
        require_unquantised("base", quantised(config))


def test_a_proposal_holds_the_base_as_it_is_saved(tmp_path: Path) -> None:
    base = copy_of_the_base(tmp_path / "base", quantization_config=INT8)
    proposal = propose("a", [CHATS], str(base), split="train", gpus=0, gpu_memory=None)
    assert proposal.sweep.trial.base_precision == "int8"
    assert proposal.reasons["trial.base_precision"] == "as the checkpoint is saved"


def test_memory_is_that_of_the_bits() -> None:
    shape = ModelShape.of(model_config(str(FOLDER)))
    assert shape is not None
    held = {p: base_bytes(shape, p, resident=False) for p in ("nf4", "fp4", "int8", "bf16")}
    rest = 2 * (shape.embedding + shape.inner * shape.hidden)
    assert (held["int8"] - rest) / shape.linear == 1
    assert held["nf4"] < held["fp4"] < held["int8"] < held["bf16"] + rest


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_no_base(alone: bool, tmp_path: Path) -> None:
    base = copy_of_the_base(tmp_path / "base")
    (base / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    if alone:
        (base / "config.json").unlink()
    what = "an adapter alone" if alone else "an adapter beside its weights"
    with pytest.raises(DataError, match=f"{what}.*; take org/base, merge the adapter into it"):
        make_plan(sweep_on(base, tmp_path), gpu_memory=None)
    with pytest.raises(DataError, match=what):
        propose("a", [CHATS], str(base), split="train", gpus=0, gpu_memory=None)


def test_weights_that_are_pickles_are_refused(tmp_path: Path) -> None:
    base = copy_of_the_base(tmp_path / "base")
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(DataError, match="save it again with save_pretrained"):
        checked_base(sweep_on(base, tmp_path))


def test_an_embedding_too_small_for_its_tokenizer_is_refused(tmp_path: Path) -> None:
    base = resized(tmp_path / "base", 800)
    with pytest.raises(ConfigError, match=r"800 rows, must be more than 8\d\d, a token id"):
        make_plan(sweep_on(base, tmp_path), gpu_memory=None)
    wide = resized(tmp_path / "wide", 832 + 64)
    assert make_plan(replace(sweep_on(wide, tmp_path), name="w"), gpu_memory=None).starts
