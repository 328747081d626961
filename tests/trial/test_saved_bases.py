"""Bases are trained as they were saved: quantised, padded, in 16 bits on a CPU; what is not whole
is refused."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_models import settings_for, short_spec
from more_cases import shortened
from packs_here import build_packs_here
from peft import AutoPeftModelForCausalLM
from reported import into
from safetensors.torch import load_file, save_file
from saved_bases import BITS, FP8, copy_of_the_base, in_bits, in_fp8, resized, with_tokens
from transformers import AutoModelForCausalLM

from sftray.config import SweepConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.demo import FOLDER
from sftray.errors import BrokenBaseError
from sftray.storage.paths import TrialPaths
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial.attention import Attention
from sftray.trial.base_model import load_base
from sftray.trial.eval_loss import evaluate_adapter, packed_eval_loss
from sftray.trial.proof import prove

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"learning_rate": 5e-3, "lora_r": 4, "effective_batch_size": 2}
SDPA = Attention("sdpa", "sdpa", "stacked")


def trained(trial: TrialConfig, packs: Packs, folder: Path) -> list[dict[str, Any]]:
    reports: list[dict[str, Any]] = []
    spec = short_spec(packs, replace(trial, **SHORT), folder)
    run_trial(spec, into(reports), CPU)
    return reports


def trained_in_a_bank(trial: TrialConfig, packs: Packs, folder: Path) -> list[dict[str, Any]]:
    spec = short_spec(packs, replace(trial, **SHORT), folder)
    engine = Engine(load_model(trial, CPU), trial, packs, settings_for([trial], 1), CPU)
    reports: list[dict[str, Any]] = []
    engine.admit(engine.prepare(spec, into(reports)))
    while engine.advance():
        pass
    return reports


@pytest.mark.slow
@pytest.mark.parametrize("kind", shortened(BITS))
def test_a_base_in_bits_is_trained_as_it_is_saved(
    kind: str, small_packs: Packs, tmp_path: Path
) -> None:
    folder = in_bits(tmp_path / kind, kind)
    trial = TrialConfig(str(folder), base_precision=kind)
    reports = trained(trial, small_packs, tmp_path / "trial")
    assert reports[0]["equality"].startswith("equal to eager attention in float32")
    plain = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    rows = small_packs.dataset("eval")
    expected = packed_eval_loss(plain.eval(), rows, SDPA, trial)
    # transformers' 8-bit products round their inputs, too, and fp4 computes in float16 there
    assert reports[0]["eval_loss"] == pytest.approx(expected, abs=1e-2)
    last = reports[-1]
    assert last["eval_loss"] < reports[0]["eval_loss"] - 0.1
    checkpoint = TrialPaths(str(tmp_path / "trial")).checkpoint(last["step"])
    again = evaluate_adapter(Path(checkpoint), trial, rows)
    assert again == pytest.approx(last["eval_loss"], abs=1e-5)
    served = AutoPeftModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    assert packed_eval_loss(served, rows, SDPA, trial) == pytest.approx(again, abs=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FP8)
def test_a_base_in_fp8_is_trained_with_its_decoded_weights(
    kind: str, small_packs: Packs, tmp_path: Path
) -> None:
    if kind == "compressed-tensors" and importlib.util.find_spec("compressed_tensors") is None:
        pytest.skip("needs compressed-tensors")
    decoded = in_fp8(tmp_path / kind, kind)
    trial = TrialConfig(str(tmp_path / kind), base_precision="fp32")
    model = load_base(trial, CPU)
    for name, weight in decoded.items():
        torch.testing.assert_close(model.get_parameter(name), weight, atol=0, rtol=0)
    reports = trained(trial, small_packs, tmp_path / "trial")
    assert reports[-1]["eval_loss"] < reports[0]["eval_loss"] - 0.1


@pytest.mark.slow
def test_on_a_cpu_bf16_is_the_same_in_both_trainers_and_in_the_check(
    tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(tiny, base_precision="bf16")
    alone = trained(trial, small_packs, tmp_path / "alone")
    banked = trained_in_a_bank(trial, small_packs, tmp_path / "bank")
    for ours, theirs in zip(banked, alone, strict=True):
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-6)
    checkpoint = TrialPaths(str(tmp_path / "bank")).checkpoint(banked[-1]["step"])
    checked = evaluate_adapter(Path(checkpoint), trial, small_packs.dataset("eval"))
    assert checked == pytest.approx(banked[-1]["eval_loss"], abs=1e-6)
    weight = load_base(trial, CPU).model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, weight.bfloat16().float())  # rounded, and computed in float32


@pytest.mark.slow
@pytest.mark.parametrize(
    "tokens",
    shortened(
        [{"pad_token": "<|im_end|>"}, {"eos_token": None}, {"eos_token": None, "pad_token": None}]
    ),
    ids=["pad = eos", "no eos", "neither"],
)
def test_special_tokens_change_nothing_of_what_is_trained_on(
    tokens: dict[str, str | None], small_sweep_config: SweepConfig, small_packs: Packs,
    tmp_path: Path,
) -> None:  # fmt: skip
    base = with_tokens(tmp_path / "base", **tokens)
    packs = build_packs_here(small_sweep_config.data, str(base), storage=str(tmp_path))
    plain = small_packs.dataset("train")[0]
    assert packs.dataset("train")[0]["labels"] == plain["labels"]
    assert packs.end_of_turn in plain["labels"]
    trial = TrialConfig(str(base), base_precision="fp32")
    spec = short_spec(packs, replace(trial, **SHORT), tmp_path / "trial")
    reports: list[dict[str, Any]] = []
    run_trial(replace(spec, num_samples_generated=1), into(reports), CPU)
    expected = trained(replace(trial, model=str(FOLDER)), small_packs, tmp_path / "plain")
    assert reports[-1]["eval_loss"] == pytest.approx(expected[-1]["eval_loss"], abs=1e-6)
    assert len(reports[-1]["answer_flags"]) == 1


@pytest.mark.exhaustive
def test_a_vocabulary_that_was_padded_is_trained(small_packs: Packs, tmp_path: Path) -> None:
    trial = TrialConfig(str(resized(tmp_path / "base", 832 + 64)), base_precision="fp32")
    alone = trained(trial, small_packs, tmp_path / "alone")
    banked = trained_in_a_bank(trial, small_packs, tmp_path / "bank")
    assert banked[-1]["eval_loss"] == pytest.approx(alone[-1]["eval_loss"], abs=1e-4)
    assert alone[-1]["eval_loss"] < alone[0]["eval_loss"] - 0.1


def test_8_bit_weights_pass_gradients_in_evaluation_too(tmp_path: Path) -> None:
    trial = TrialConfig(str(in_bits(tmp_path / "int8", "int8")), base_precision="int8")
    model = load_base(trial, CPU).eval()
    prove(model, trial, 256)
    product = model.model.layers[0].mlp.down_proj
    forward = product.forward
    product.forward = lambda x: forward(x.detach())
    with pytest.raises(BrokenBaseError, match=r"the gradient of .*layer 0"):
        prove(model, trial, 256)
    del product.forward  # bitsandbytes' own, which rounds its inputs
    with pytest.raises(BrokenBaseError, match=r"the output of .*layer 0"):
        prove(model, trial, 256)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.layers.1.mlp.up_proj.weight", None, r"up_proj\.weight is missing"),
        (
            "model.embed_tokens.weight",
            slice(800),
            r"embed_tokens\.weight is \[800, 192\] and not \[832, 192\] as its config\.json says",
        ),
    ],
)
def test_a_base_that_is_not_whole_is_refused(
    name: str, change: slice | None, message: str, tmp_path: Path
) -> None:
    folder = copy_of_the_base(tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    weight = weights.pop(name)
    if change is not None:
        weights[name] = weight[change].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenBaseError, match=message):
        load_base(TrialConfig(str(folder), base_precision="fp32"), CPU)
