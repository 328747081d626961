"""The bank's decoder against transformers and PEFT, on tiny random models of every family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bank_models import CONFIGS, bank_batch, loss_sum, peft_model, random_model, random_rows
from torch import nn

from sftray.config import TrialConfig
from sftray.demo import FOLDER
from sftray.errors import ConfigError, UnfitTrainerError
from sftray.plan.model_shape import PROJECTIONS
from sftray.plan.trainer_choice import target_projections
from sftray.trainers.bank.adapters import Adapters, Layout, import_row, lay_out
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.decoder_proof import begin_proof, prove_equality
from sftray.trainers.bank.frozen_base import take_base
from sftray.trainers.bank.packed_attention import Sdpa
from sftray.trial.base_model import load_base
from sftray.trial.equality import Reference

CPU = torch.device("cpu")
LENGTH = 40
TRIALS = (
    TrialConfig("tiny", lora_r=4, seed=1),
    TrialConfig("tiny", lora_r=8, lora_alpha=4.0, seed=2),
    TrialConfig("tiny", lora_r=3, lora_alpha_ratio=1.0, seed=3),
)


@pytest.mark.parametrize("family", CONFIGS)
def test_losses_and_gradients_are_those_of_peft(family: str) -> None:
    rows = [random_rows(2, LENGTH, 97, seed=k) for k in range(len(TRIALS))]
    expected = [_by_peft(family, trial, rows[k]) for k, trial in enumerate(TRIALS)]
    decoder, adapters = _bank(family, [tensors for _, _, tensors in expected])
    batch = bank_batch([row for of_slot in rows for row in of_slot])
    sums = decoder.accumulate(batch, adapters.work, adapters.grad, recompute=False)
    for k, (loss, gradients, _) in enumerate(expected):
        assert float(sums[k]) == pytest.approx(loss, rel=1e-5)
        for name, value in gradients.items():
            found = _gradient(adapters, decoder.layout, k, name, TRIALS[k])
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


def test_recomputing_activations_changes_no_bit() -> None:
    expected = [_by_peft("qwen3", trial, random_rows(2, LENGTH, 97, seed=9)) for trial in TRIALS]
    decoder, adapters = _bank("qwen3", [tensors for _, _, tensors in expected])
    batch = bank_batch(random_rows(6, LENGTH, 97, seed=3))
    found = []
    for recompute in (False, True):
        adapters.grad.zero_()
        sums = decoder.accumulate(batch, adapters.work, adapters.grad, recompute=recompute)
        found.append((sums, adapters.grad.clone()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_losses_without_a_backward_pass_are_the_same() -> None:
    rows = random_rows(3, LENGTH, 97, seed=5)
    expected = _by_peft("llama", TRIALS[0], rows)
    decoder, adapters = _bank("llama", [expected[2]])
    losses = decoder.losses(bank_batch(rows), adapters.work)
    assert float(losses.sum()) == pytest.approx(expected[0], rel=1e-5)


def test_a_subset_of_the_projections_can_be_adapted() -> None:
    trial = TrialConfig("tiny", lora_r=4, lora_target_modules=("q_proj", "v_proj", "up_proj"))
    rows = random_rows(2, LENGTH, 97, seed=1)
    loss, gradients, tensors = _by_peft("qwen2", trial, rows)
    decoder, adapters = _bank("qwen2", [tensors], trial)
    sums = decoder.accumulate(bank_batch(rows), adapters.work, adapters.grad, recompute=True)
    assert float(sums[0]) == pytest.approx(loss, rel=1e-5)
    assert len(gradients) == 2 * 3 * 2
    for name, value in gradients.items():
        found = _gradient(adapters, decoder.layout, 0, name, trial)
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


@pytest.mark.parametrize("resident", [True, False])
def test_a_4bit_base_gives_what_bitsandbytes_gives(resident: bool) -> None:
    trial = TrialConfig(str(FOLDER), lora_r=4)
    rows = random_rows(2, LENGTH, 500, seed=1)
    model = peft_model(load_base(trial, CPU), trial, seed=0)
    loss = loss_sum(model, rows)
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    tensors = {name.replace(".default", ""): p.detach() for name, p in trained.items()}
    base = take_base(load_base(trial, CPU), torch.float32, resident=resident)
    layout = lay_out(base.shape, PROJECTIONS, trial.lora_r)
    adapters = Adapters(layout, 1, base.dtype, base.device)
    row = import_row(layout, trial.lora_r, _adapted(layout), tensors, _no_moments(tensors))
    adapters.admit(0, row, trial.lora_scale)
    decoder = Decoder(base, layout, LENGTH, None)
    sums = decoder.accumulate(bank_batch(rows), adapters.work, adapters.grad, recompute=False)
    assert float(sums[0]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, parameter in trained.items():
        assert parameter.grad is not None
        found = _gradient(adapters, layout, 0, name, trial)
        most = float(parameter.grad.abs().max())
        np.testing.assert_allclose(found, parameter.grad.numpy(), rtol=1e-3, atol=1e-5 * most)


def test_padded_ranks_get_no_gradient() -> None:
    rows = random_rows(2, LENGTH, 97, seed=1)
    _, _, tensors = _by_peft("llama", TRIALS[2], rows)
    decoder, adapters = _bank("llama", [tensors])
    decoder.accumulate(bank_batch(rows), adapters.work, adapters.grad, recompute=False)
    used = torch.zeros(decoder.layout.size, dtype=torch.bool)
    ones = {name: torch.ones_like(value) for name, value in tensors.items()}
    layout = decoder.layout
    row = import_row(layout, TRIALS[2].lora_r, _adapted(layout), ones, _no_moments(ones))
    used |= row.param.bool()
    assert adapters.grad[0, ~used].abs().max() == 0
    assert adapters.grad[0, used].abs().max() > 0


def test_one_slot_that_is_not_a_number_leaves_the_others_bit_identical() -> None:
    rows = [random_rows(2, LENGTH, 97, seed=k) for k in range(3)]
    tensors = [_by_peft("llama", trial, rows[k])[2] for k, trial in enumerate(TRIALS)]
    batch = bank_batch([row for of_slot in rows for row in of_slot])
    found = []
    for poisoned in (False, True):
        decoder, adapters = _bank("llama", tensors)
        if poisoned:
            adapters.work[1].fill_(torch.nan)
        sums = decoder.accumulate(batch, adapters.work, adapters.grad, recompute=False)
        found.append((sums, adapters.grad))
    assert not torch.isfinite(found[1][0][1])
    for k in (0, 2):
        assert torch.equal(found[0][0][k], found[1][0][k])
        assert torch.equal(found[0][1][k], found[1][1][k])


def _by_peft(
    family: str, trial: TrialConfig, rows: list[dict[str, Any]]
) -> tuple[float, dict[str, np.ndarray], dict[str, torch.Tensor]]:
    """Loss sum, gradients and adapter of one trial, under PEFT's names."""
    model = peft_model(random_model(family), trial, seed=trial.seed)
    loss = loss_sum(model, rows)
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.numpy() for name, p in trained.items()}  # type: ignore[union-attr]
    tensors = {name.replace(".default", ""): p.detach() for name, p in trained.items()}
    return float(loss.detach()), gradients, tensors


def _bank(
    family: str, adapters: list[dict[str, torch.Tensor]], trial: TrialConfig | None = None
) -> tuple[Decoder, Adapters]:
    base = take_base(random_model(family), torch.float32, resident=True)
    trials = TRIALS if trial is None else (trial,)
    targets = target_projections(trials[0].lora_target_modules, base.shape.groups)
    assert targets is not None
    layout = lay_out(base.shape, targets, max(t.lora_r for t in trials))
    bank = Adapters(layout, len(adapters), base.dtype, base.device)
    for slot, tensors in enumerate(adapters):
        rank = next(iter(tensors.values())).shape[0]
        config = next(t for t in trials if t.lora_r == rank)
        row = import_row(layout, rank, targets, tensors, _no_moments(tensors))
        bank.admit(slot, row, config.lora_scale)
    return Decoder(base, layout, LENGTH, None), bank


def _adapted(layout: Layout) -> set[str]:
    return {place.projection for place in layout.places}


def _no_moments(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        f"{name.replace('.weight', '.default.weight')}/{moment}": torch.zeros_like(value)
        for name, value in tensors.items()
        for moment in ("exp_avg", "exp_avg_sq")
    }


def _gradient(
    adapters: Adapters, layout: Layout, slot: int, name: str, trial: TrialConfig
) -> np.ndarray:
    """A slot's gradient of one parameter, LoRA's scale put back where it was left out."""
    for place in layout.places:
        if f"layers.{place.layer}." in name and f".{place.projection}." in name:
            rank, row = layout.rank, adapters.grad[slot]
            if "lora_A" in name:
                first = row[place.first : place.first + rank * place.inputs].view(rank, -1)
                return first[: trial.lora_r].numpy()
            second = row[place.second : place.second + place.outputs * rank].view(-1, rank)
            return second[:, : trial.lora_r].numpy() * trial.lora_scale
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_causal": False}, "not causal"),
        ({"hidden_act": "relu"}, "activation is 'relu'"),
        ({"auto_map": {"AutoModelForCausalLM": "mine.Mine"}}, "code of its own"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised by fp8"),
    ],
)
def test_a_loaded_base_that_the_bank_does_not_compute_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    model = random_model("mistral")
    for name, value in changes.items():
        setattr(model.config, name, value)
    with pytest.raises(ConfigError, match=reason):
        take_base(model, torch.float32, resident=True)


def test_weights_that_the_bank_cannot_read_and_another_scale_are_refused() -> None:
    model = random_model("llama")
    projection = model.model.layers[1].mlp.up_proj
    projection.weight = nn.Parameter(projection.weight.data.to(torch.int8), requires_grad=False)
    with pytest.raises(ConfigError, match=r"weights of torch\.int8"):
        take_base(model, torch.float32, resident=True)
    model = random_model("llama")
    model.model.layers[0].self_attn.scaling = 1.0
    with pytest.raises(ConfigError, match="scales its attention by 1, not by 0"):
        take_base(model, torch.float32, resident=True)


class Mixed(Sdpa):
    """As a build of FlashAttention without kernels for a head's size: wrong, and says nothing."""

    name = "mixed"

    def _attend(self, *args: Any) -> torch.Tensor:
        return super()._attend(*args).flip(1)  # twice as much a norm behind it would hide


def test_an_attention_that_does_not_compute_the_base_is_passed_over_and_said() -> None:
    model = random_model("gemma3").eval()
    end_proof = begin_proof(model, TrialConfig("tiny"), LENGTH, resident=True)
    base = take_base(model, torch.float32, resident=True)
    layout = lay_out(base.shape, PROJECTIONS, 8)
    decoder = Decoder(base, layout, LENGTH, None)
    decoder._attentions.insert(0, Mixed(base.shape))
    proof = end_proof(decoder)
    assert decoder.attention.name == proof.attention == "sdpa"
    assert "passed over: mixed: in the bank's decoder the " in proof.text()
    again = Decoder(base, layout, LENGTH, None)
    again._attentions.insert(0, Mixed(base.shape))
    model = random_model("gemma3").eval()
    assert begin_proof(model, TrialConfig("tiny"), LENGTH, resident=True)(again) == proof
    assert again.attention.name == "sdpa"
    wrong = Decoder(base, layout, LENGTH, None)
    wrong._attentions[:] = [Mixed(base.shape)]
    reference = Reference(random_model("gemma3").eval(), LENGTH)
    with pytest.raises(UnfitTrainerError, match="in the bank's decoder"):
        prove_equality(wrong, reference)
