"""The bank on an FP8 base against transformers, PEFT and SFTTrainer, whose linear layers round as
`trial.fp8_rounding` has it; all on a CPU, where the bank's products are those of its plain twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bank_models import (
    bank_batch,
    loss_sum,
    peft_model,
    random_model,
    random_rows,
    save_tiny,
    settings_for,
    short_spec,
)
from reported import into
from torch import Tensor

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.errors import UnfitTrainerError
from sftray.plan.trainer_choice import target_projections
from sftray.storage.paths import TrialPaths
from sftray.trainers.bank import torch_ops
from sftray.trainers.bank.adapters import Adapters, AdapterState, Layout, import_row, lay_out
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.decoder_proof import begin_proof, prove_equality
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.fp8_proof import ProductReference
from sftray.trainers.bank.frozen_base import load_model, take_base
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial import checkpoint as checkpoints
from sftray.trial.equality import Reference
from sftray.trial.eval_loss import evaluate_adapter
from sftray.trial.fp8_rounding import Fp8Linear, round_products, rounded

CPU = torch.device("cpu")
LENGTH = 40
TRIAL = TrialConfig("tiny", base_precision="fp8", lora_r=4, seed=1)
FAMILIES = ("qwen2", "gemma3", "phi3", "granite", "qwen3")
"""Biases; norms behind branches; joint projections; a factor on branches; normed heads."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bank_and_the_reference_round_to_the_same_bits(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    size = torch.logspace(-30, 30, 61)[:, None]
    x = (torch.randn(61, 200, generator=generator) * size).to(dtype)
    x[3] = 0
    for edge, value in enumerate((448.0, 448.01, 224.0, 224.01, 1.75, 1e-40)):
        x[4 + edge] = torch.linspace(-value, value, 200)
    codes, scale = torch_ops.quantise(x)
    assert codes.dtype == torch.float8_e4m3fn
    assert torch.equal(codes.float() * scale, rounded(x).float())
    assert torch.equal(torch.frexp(scale)[0], torch.full((61, 1), 0.5))
    assert torch.equal(rounded(rounded(x)), rounded(x))
    off = (rounded(x).double() - x.double()).norm() / x.double().norm()
    assert float(off) == pytest.approx(0.026, rel=0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_spoils_its_own_row(value: float) -> None:
    x = torch.ones(3, 32)
    x[1, 5] = value
    right = torch_ops.quantise(torch.ones(16, 32))
    product = torch_ops.scaled_product(torch_ops.quantise(x), (right[0], right[1].T), None, x.dtype)
    assert product[1].isnan().all()
    assert torch.equal(product[[0, 2]], torch.full((2, 16), 32.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_peft_on_rounding_layers(family: str) -> None:
    """Sums in another order come to another code now and then, so not to the last digit."""
    rows = random_rows(4, LENGTH, 97, seed=1)
    loss, gradients, tensors = _by_peft(_rounding(family), rows)
    _, unrounded, _ = _by_peft(random_model(family), rows)
    decoder = _decoder(_rounding(family))
    layout = decoder.layout
    adapters = Adapters(layout, 1, torch.float32, CPU)
    adapters.admit(0, _row(layout, tensors), TRIAL.lora_scale)
    sums = decoder.accumulate(bank_batch(rows), adapters.work, adapters.grad, recompute=True)
    assert float(sums[0]) == pytest.approx(loss, rel=1e-4)
    expected, plain = (_row(layout, of).param for of in (gradients, unrounded))
    off = float((adapters.grad[0] - expected).norm() / expected.norm())
    assert off < 0.1 * float((plain - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_proof_passes_on_rounding_layers(family: str) -> None:
    model = _rounding(family).eval()
    reference = Reference(model, LENGTH)
    assert reference.precision == "bfloat16"
    assert prove_equality(_decoder(model), reference).ratio < 1


QUANTISE = torch_ops.quantise


def _unrounded(x: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return x if factor is None else x * factor, torch.ones(len(x), 1)


def _without_factor(x: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return QUANTISE(x)


def _gradient_unrounded(x: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return QUANTISE(x) if factor is None else _unrounded(x, factor)


def _a_scale_for_all(x: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    codes, scale = QUANTISE(x.view(1, -1) if factor is None else (x * factor).view(1, -1))
    return codes.view(x.shape), scale.expand(len(x), 1)


def _to_fewer_bits(x: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    codes, scale = QUANTISE(x, factor)
    return codes.float().to(torch.float8_e5m2), scale


@pytest.mark.parametrize(
    "fault", [_unrounded, _without_factor, _gradient_unrounded, _a_scale_for_all, _to_fewer_bits]
)
def test_a_bank_that_rounds_otherwise_is_refused(
    fault: Callable[..., tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _rounding("llama").eval()
    reference, decoder = ProductReference(model), _decoder(_rounding("llama"))
    assert reference.prove(decoder) < 1e-6
    monkeypatch.setattr(torch_ops, "quantise", fault)
    with pytest.raises(UnfitTrainerError, match="take base_precision='bf16'"):
        reference.prove(decoder)


def test_a_bank_on_unrounded_weights_is_refused() -> None:
    end_proof = begin_proof(_rounding("llama").eval(), TRIAL, 4 * LENGTH, resident=True)
    with pytest.raises(UnfitTrainerError, match="differs from that of layers that round to FP8"):
        end_proof(_decoder(random_model("llama")))
    assert "products in FP8 within " in end_proof(_decoder(_rounding("llama"))).text()


def test_codes_are_the_checkpoints_weights_rounded_once() -> None:
    plain, model = random_model("llama"), _rounding("llama")
    group = take_base(model, torch.float32, resident=True).layers[0].groups[0]
    attention = plain.model.layers[0].self_attn
    weights = [getattr(attention, name).weight.data for name in ("q_proj", "k_proj", "v_proj")]
    assert group.codes is not None
    assert torch.equal(group.matrix(), rounded(torch.cat(weights)))
    assert torch.equal(group.codes.forward_OI.float(), group.codes.backward_IO.float().T)
    assert isinstance(plain.lm_head, torch.nn.Linear)
    assert not isinstance(model.lm_head, Fp8Linear)


@pytest.mark.slow
def test_a_trial_learns_in_the_bank_what_it_learns_by_sfttrainer(
    small_packs: Packs, tmp_path: Path
) -> None:
    """And the winner's check, plain PEFT on rounding layers, measures the same."""
    (tmp_path / "base").mkdir()
    # at five times this rate gradients jump, and one code rounded otherwise moves losses by 2e-3
    tiny = replace(save_tiny(tmp_path / "base"), base_precision="fp8", learning_rate=1e-3)
    tiny = replace(tiny, effective_batch_size=2)
    spec = short_spec(small_packs, tiny, tmp_path / "bank")
    settings = settings_for([tiny], slots=1)
    engine = Engine(load_model(tiny, CPU), tiny, small_packs, settings, CPU)
    found: list[dict[str, Any]] = []
    engine.admit(engine.prepare(spec, into(found)))
    while engine.advance():
        pass
    expected: list[dict[str, Any]] = []
    run_trial(replace(spec, folder=str(tmp_path / "alone")), into(expected), CPU)
    plain: list[dict[str, Any]] = []
    bf16 = replace(spec, config=replace(tiny, base_precision="bf16"))
    run_trial(replace(bf16, folder=str(tmp_path / "plain")), into(plain), CPU)
    losses, theirs, unrounded = (
        np.array([report["eval_loss"] for report in reports])
        for reports in (found, expected, plain)
    )
    assert abs(losses[0] - theirs[0]) < 0.1 * abs(unrounded[0] - theirs[0])
    np.testing.assert_allclose(losses, theirs, atol=1e-3)  # other codes, now and then
    adapter = tmp_path / "adapter"
    newest = checkpoints.newest(TrialPaths(spec.folder), tmp_path / "scratch")
    checkpoints.export_weights(newest.folder, adapter)  # type: ignore[union-attr]
    again = evaluate_adapter(adapter, tiny, small_packs.dataset("eval"))
    assert again == pytest.approx(losses[-1], abs=1e-4)


def _rounding(family: str) -> Any:
    model = random_model(family)
    round_products(model)
    return model


def _decoder(model: Any) -> Decoder:
    base = take_base(model, torch.float32, resident=True)
    targets = target_projections("all-linear", base.shape.groups)
    assert targets is not None
    return Decoder(base, lay_out(base.shape, targets, TRIAL.lora_r), LENGTH * 4, None)


def _by_peft(
    model: Any, rows: list[dict[str, Any]]
) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """Loss sum, gradients as a slot has them, and the adapter; under PEFT's names."""
    model = peft_model(model, TRIAL, seed=TRIAL.seed)
    loss = loss_sum(model, rows)
    loss.backward()
    adapter, gradients = {}, {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            key = name.replace(".default", "")
            adapter[key] = parameter.detach()
            # the bank's lack LoRA's scale, which the optimizer puts in
            gradients[key] = parameter.grad / (TRIAL.lora_scale if "lora_B" in name else 1.0)
    return float(loss.detach()), gradients, adapter


def _row(layout: Layout, tensors: dict[str, Tensor]) -> AdapterState:
    moments = {
        f"{name.replace('.weight', '.default.weight')}/{moment}": torch.zeros_like(value)
        for name, value in tensors.items()
        for moment in ("exp_avg", "exp_avg_sq")
    }
    targets = {place.projection for place in layout.places}
    return import_row(layout, TRIAL.lora_r, targets, tensors, moments)
