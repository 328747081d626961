"""The bank's decoder at every family's true width, two layers in bfloat16, against transformers.

    pytest -m gpu tests/trainers/bank/test_decoder_gpu.py -s

Losses and an adapter's gradients may be as far from float32, each document alone, as the proof of a
base allows: twice as far as transformers' eager layers are under autocast.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from bank_models import CONFIGS, bank_batch, documents_of, peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from sftray.config import TrialConfig
from sftray.plan.layer_description import FAMILIES
from sftray.plan.trainer_choice import target_projections
from sftray.trainers.bank.adapters import Adapters, AdapterState, export_row, import_row, lay_out
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.frozen_base import take_base
from sftray.trial.equality import MOST_RATIO, ROUNDING

TRIAL = TrialConfig("base", lora_r=16, seed=1)
LENGTHS = np.array([520, 300, 150, 54])
WINDOW = 200
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 256,
    "short_factor": np.linspace(1, 2, 48).tolist(), "long_factor": np.linspace(1, 30, 48).tolist(),
}  # fmt: skip
Found = dict[str, Tensor]
"""Losses of the supervised tokens, and the adapter's gradients by PEFT's names; float32."""


def true_width(kind: str) -> Any:
    """A family as transformers has it by default, with two layers, a window shorter than the
    documents, and Phi-3 with LongRoPE."""
    changes: dict[str, Any] = {"num_hidden_layers": 2, "attention_dropout": 0.0, "pad_token_id": 0}
    default = AutoConfig.for_model(kind, **changes)
    if getattr(default, "sliding_window", None):
        changes["sliding_window"] = WINDOW
        if getattr(default, "layer_types", None):
            changes["layer_types"] = ["sliding_attention", "full_attention"]
    if kind == "phi3":
        changes["rope_parameters"] = LONGROPE
    return AutoConfig.for_model(kind, **changes)


def some_rows(vocabulary: int, lengths: np.ndarray) -> list[dict[str, Any]]:
    ids = np.random.default_rng(0).integers(0, vocabulary, size=(2, lengths.sum()))
    labels = np.where(ids % 3 > 0, ids, -100)
    labels[:, np.cumsum(lengths) - lengths] = -100
    return [
        {"input_ids": row, "labels": kept, "seq_lengths": lengths}
        for row, kept in zip(ids, labels, strict=True)
    ]


def by_peft(model: Any, rows: list[dict[str, Any]], device: torch.device) -> Found:
    """By transformers and PEFT, each document alone."""
    losses = []
    for ids, labels in documents_of(rows):
        logits = model(input_ids=ids[None].to(device), use_cache=False).logits[0, :-1].float()
        targets = labels[1:].to(device)
        kept = targets != -100
        losses.append(nn.functional.cross_entropy(logits[kept], targets[kept], reduction="none"))
    torch.cat(losses).sum().backward()
    found = {"losses": torch.cat(losses).detach()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[name.replace(".default", "")] = parameter.grad.float()
            parameter.grad = None
    return found


def by_bank(decoder: Decoder, adapters: Adapters, targets: Any, rows: Any) -> Found:
    """By a slot of a bank; LoRA's scale, which its gradients of lora_B lack, put in."""
    batch = bank_batch(rows, device=decoder.base.device)
    adapters.grad.zero_()
    decoder.accumulate(batch, adapters.work, adapters.grad, recompute=False)
    gradients, _ = export_row(
        decoder.layout, adapters.grad[[0, 0, 0]], TRIAL.lora_r, targets, step=0
    )
    scaled = {n: v * (TRIAL.lora_scale if "lora_B" in n else 1) for n, v in gradients.items()}
    losses = decoder.losses(batch, adapters.work)[batch.targets >= 0]
    return {"losses": losses, **scaled}


def distance(found: Found, true: Found) -> dict[str, float]:
    """Of losses and of gradients from the true ones, in root mean squares of these; of gradients
    over all matrices."""
    assert found.keys() == true.keys()
    parts = {n: float((found[n] - true[n]).norm() / true[n].norm()) for n in true}
    of_losses = parts.pop("losses")
    return {"losses": of_losses, "gradients": float(np.sqrt(np.mean(np.square([*parts.values()]))))}


def compare(config: Any, dtype: torch.dtype, device: torch.device, lengths: np.ndarray) -> None:
    """Hold each attention that may run here to the limit; print what was found."""
    torch.manual_seed(0)
    how = {"attn_implementation": "eager", "dtype": dtype}
    with device:
        model = AutoModelForCausalLM.from_config(config, **how).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:  # which begin as ones and zeros
            parameter.data += 0.1 * torch.randn_like(parameter)
    rows = some_rows(config.vocab_size, lengths)
    adapted = peft_model(copy.deepcopy(model).requires_grad_(False), TRIAL, seed=0)
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        eager = by_peft(adapted, rows, device)
    true = by_peft(adapted.float(), rows, device)
    tensors = {
        n.replace(".default", ""): p.data.cpu()
        for n, p in adapted.named_parameters()
        if "lora" in n
    }
    del adapted
    base = take_base(model, dtype, resident=True)
    targets = target_projections("all-linear", base.shape.groups)
    assert targets is not None
    layout = lay_out(base.shape, targets, TRIAL.lora_r)
    adapters = Adapters(layout, 1, dtype, device)
    zeros = {f"{n.replace('.weight', '.default.weight')}/{m}": torch.zeros_like(v)
             for n, v in tensors.items() for m in ("exp_avg", "exp_avg_sq")}  # fmt: skip
    row: AdapterState = import_row(layout, TRIAL.lora_r, targets, tensors, zeros)
    adapters.admit(0, row, TRIAL.lora_scale)
    decoder = Decoder(base, layout, int(lengths.sum()), None)
    allowed = distance(eager, true)
    refused = []
    while True:
        found = distance(by_bank(decoder, adapters, targets, rows), true)
        name = decoder.attention.name
        for what, error in found.items():
            print(f"{config.model_type} {name}: {what} {error:.1e}, eager {allowed[what]:.1e}")  # noqa: T201
            if not error <= MOST_RATIO * allowed[what] + ROUNDING:
                refused.append(f"{name}: {what}")
        if not decoder.pass_over():
            break
    assert refused == []


@pytest.mark.gpu
@pytest.mark.parametrize("kind", FAMILIES)
def test_true_width_in_bfloat16_is_as_near_to_float32_as_eager_attention(kind: str) -> None:
    compare(true_width(kind), torch.bfloat16, torch.device("cuda"), LENGTHS)
    torch.cuda.empty_cache()


def test_the_same_comparison_passes_and_refuses_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    how = (torch.float32, torch.device("cpu"), np.array([13, 9, 6, 4]))
    compare(CONFIGS["gemma2"](), *how)
    right = Decoder.embed
    monkeypatch.setattr(Decoder, "embed", lambda self, ids: right(self, ids) * 1.001)
    with pytest.raises(AssertionError, match="eager: gradients"):
        compare(CONFIGS["gemma2"](), *how)
