"""The plan counts the memory that a proof takes, and a proof takes no more."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
import transformers
from bases import LLAMA_1B, LLAMA_8B, QWEN_05B
from live_memory import LiveMemory
from more_cases import shortened

from sftray.config import TrialConfig
from sftray.plan.effective_batch import ONE_ROW, Execution
from sftray.plan.memory import Memory, train_memory
from sftray.plan.model_shape import ModelShape
from sftray.plan.proof_memory import proof_bytes
from sftray.storage.model_files import BaseConfig
from sftray.trial import reference_model
from sftray.trial.attention import Attention
from sftray.trial.equality import Reference
from sftray.trial.reference_model import decoded

SDPA = Attention("sdpa", "sdpa", "stacked")
SIZES: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
}


def in_4_bits(layer: torch.nn.Linear) -> Any:
    import bitsandbytes as bnb

    packed = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, quant_type="nf4")
    packed.weight = bnb.nn.Params4bit(layer.weight.data, quant_type="nf4").to("cpu")
    return packed.requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("quantised", shortened([False, True]))
@pytest.mark.parametrize("window", shortened([None, 512]))
def test_a_proof_takes_what_the_plan_says_and_no_more(quantised: bool, window: int | None) -> None:
    config = transformers.MistralConfig(**SIZES, sliding_window=window)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.eval().requires_grad_(False)
    for parent in [*model.modules()] if quantised else []:
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.Linear) and name != "lm_head":
                setattr(parent, name, in_4_bits(child))
    with LiveMemory(chain(model.parameters(), model.buffers())) as live:
        reference = Reference(model, 2048, contextlib.nullcontext)
        reference.compare(model, SDPA)
    shape = ModelShape.of(BaseConfig(**config.to_dict()))
    assert shape is not None
    planned = proof_bytes(shape, 4, 2048)
    assert 0.2 * planned < live.peak < planned


def test_the_proof_of_an_8b_is_under_a_gibibyte_and_counted() -> None:
    for base, most in ((LLAMA_8B, 0.5), (LLAMA_1B, 0.45), (QWEN_05B, 0.2)):
        shape = ModelShape.of(BaseConfig(**base))
        assert shape is not None
        assert 0.1 < proof_bytes(shape, 2, 2048) / 2**30 < most
    trial = TrialConfig("base", lora_r=1)
    shape = ModelShape.of(BaseConfig(**LLAMA_8B))
    assert shape is not None
    large = train_memory(shape, trial, 2048, Execution(4))
    assert large.total == large.base + large.training > large.base + large.proof
    small = train_memory(shape, trial, 128, replace(ONE_ROW, activation_checkpointing=True))
    assert small.total == small.base + small.proof > small.base + small.training
    assert str(small).endswith(f"its proof {small.proof / 2**30:.1f}")
    assert not Memory(2e9, 1e9, 1e9, 0, proof=math.inf).fits(80e9)


@pytest.mark.parametrize("columns", [48, 64, 192])
def test_a_weight_is_decoded_some_rows_at_a_time(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # blocks of 64 numbers go over the ends of rows of 48
    layer = in_4_bits(torch.nn.Linear(columns, 100, bias=False))
    whole = decoded(layer)
    monkeypatch.setattr(reference_model, "DECODED_AT_ONCE", 5 * columns)
    assert len(list(reference_model._row_blocks(layer))) > 5
    torch.testing.assert_close(decoded(layer), whole, atol=0, rtol=0)
