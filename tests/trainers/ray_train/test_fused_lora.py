"""The fused LoRA layers of the `train` trainer: PEFT's losses and gradients on any base."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from bank_models import random_model
from peft import LoraConfig, get_peft_model

from sftray.config import TrialConfig
from sftray.demo import FOLDER
from sftray.trainers.ray_train.fused_lora import fuse_lora, make_resident
from sftray.trial.base_model import load_base
from sftray.trial.lora_adapter import init_adapters

CPU = torch.device("cpu")


def peft_model(base: Any, dropout: float = 0.0) -> Any:
    """An adapter with some history: lora_B is not zero."""
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    init_adapters(model, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    return model.train()


def loss_and_gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, vocabulary, (2, 24), generator=torch.Generator().manual_seed(4))
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: Any, theirs: Any) -> None:
    (loss, gradients), (their_loss, their_gradients) = map(loss_and_gradients, (ours, theirs))
    torch.testing.assert_close(loss, their_loss, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == their_gradients.keys()
    assert all("lora_" in name for name in gradients)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, their_gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # qwen2 has biases
def test_fused_layers_compute_what_peft_computes(kind: str, dropout: float) -> None:
    theirs = peft_model(random_model(kind), dropout)
    ours = copy.deepcopy(theirs)
    assert fuse_lora(ours) == 2 * 7
    assert_same(ours, theirs)
    with torch.no_grad():
        ids = torch.arange(12)[None]
        torch.testing.assert_close(ours.eval()(ids).logits, theirs.eval()(ids).logits)


@pytest.mark.parametrize("resident", [False, True])
def test_fused_layers_over_a_4bit_base(resident: bool) -> None:
    trial = TrialConfig(str(FOLDER), base_precision="nf4")
    theirs = peft_model(load_base(trial, CPU))
    base = load_base(trial, CPU)
    if resident:
        make_resident(base)
    ours = peft_model(base)
    layers = base.config.num_hidden_layers
    assert fuse_lora(ours) == 7 * layers
    assert_same(ours, theirs)


def test_fused_layers_under_activation_checkpointing() -> None:
    theirs = peft_model(random_model("llama"), 0.3)
    ours = copy.deepcopy(theirs)
    fuse_lora(ours)
    ours.activation_checkpointing_enable({"use_reentrant": False})
    assert_same(ours, theirs)


def test_layers_of_another_kind_keep_pefts_forward() -> None:
    config = LoraConfig(r=4, target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM")
    dora = get_peft_model(random_model("llama"), config)
    assert fuse_lora(dora) == 0
