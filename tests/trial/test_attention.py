"""PyTorch's variable-length attention computes what it is given, drops nothing that a model passes
it, and gives way to the next where it cannot."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import transformers as t
from bank_models import SIZES
from torch.nn.attention import varlen

from sftray.trial import attention
from sftray.trial.attention import NotComputedError
from sftray.trial.equality import Reference
from sftray.trial.proof import Proof, first_that_passes

CHAIN = [
    attention._VARLEN, attention._SDPA, attention._EAGER, attention._APART, attention._APART_EAGER
]  # fmt: skip
WINDOWS: dict[str, Any] = {
    "mistral": lambda: t.MistralConfig(**SIZES, sliding_window=8),
    "qwen2": lambda: t.Qwen2Config(
        **SIZES, sliding_window=8, use_sliding_window=True, max_window_layers=1
    ),
    "phi3": lambda: t.Phi3Config(**SIZES, sliding_window=8, pad_token_id=0),
    "gemma3": lambda: t.Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "cohere2": lambda: t.Cohere2Config(**SIZES, sliding_window=8, pad_token_id=0),
}
FULL: dict[str, Any] = {
    "llama": lambda: t.LlamaConfig(**SIZES),
    "qwen3": lambda: t.Qwen3Config(**SIZES, head_dim=16),
    "mistral": lambda: t.MistralConfig(**SIZES, sliding_window=None),
}
OTHERS: dict[str, tuple[Any, str]] = {
    "llama4, chunks": (
        lambda: t.Llama4TextConfig(
            **SIZES, head_dim=8, attention_chunk_size=8, num_local_experts=2,
            intermediate_size_mlp=48,
        ),
        "sdpa",
    ),
    "gemma2, soft cap": (
        lambda: t.Gemma2Config(
            **SIZES, head_dim=8, attn_logit_softcapping=5.0, layer_types=["full_attention"] * 2
        ),
        "eager",
    ),
    "gpt_oss, sinks": (
        lambda: t.GptOssConfig(
            **SIZES, head_dim=8, num_local_experts=4, num_experts_per_tok=2,
            layer_types=["full_attention"] * 2,
        ),
        "apart",  # transformers masks its packed rows in no other way
    ),
}  # fmt: skip


def attend(
    q: Any, k: Any, v: Any, bounds: Any, *_: Any, scale: float, window_size: Any, **__: Any
) -> Any:
    """What PyTorch's kernel computes: causal, each document by itself, a window."""
    out = torch.empty_like(q)
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        places = torch.arange(end - start)
        back = places[:, None] - places[None]
        seen = (back >= 0) & ((back <= window_size[0]) | (window_size[0] < 0))
        parts = (part[start:end].transpose(0, 1) for part in (q, k, v))
        mixed = torch.nn.functional.scaled_dot_product_attention(
            *parts, attn_mask=seen, scale=scale
        )
        out[start:end] = mixed.transpose(0, 1)
    return out


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the kernel, which wants a GPU."""
    monkeypatch.setattr(varlen, "varlen_attn", attend)


def proof_of(config: Any, max_length: int = 200) -> Proof:
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    )
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.2)
    model.requires_grad_(False).eval()
    reference = Reference(model, max_length)
    proof, refused = first_that_passes(model, CHAIN, reference, contextlib.nullcontext)
    assert proof is not None, refused
    assert model.config._attn_implementation == proof.attention.implementation
    return proof


@pytest.mark.parametrize("family", FULL)
def test_full_causal_attention_stays_on_varlen(family: str) -> None:
    proof = proof_of(FULL[family]())
    assert (proof.attention.name, proof.isolation) == ("varlen", 0)


@pytest.mark.parametrize("family", WINDOWS)
def test_varlen_computes_windows(family: str) -> None:
    proof = proof_of(WINDOWS[family]())
    assert proof.attention.name == "varlen"
    assert proof.equality.window is None


@pytest.mark.parametrize("family", WINDOWS)
def test_a_kernel_without_windows_gives_way(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, scale: float, **_: Any) -> Any:
        return attend(*args, scale=scale, window_size=(-1, 0))

    monkeypatch.setattr(varlen, "varlen_attn", full)
    proof = proof_of(WINDOWS[family]())
    assert proof.attention.name == "sdpa"
    assert "differs from eager attention in float32" in proof.attention.reason


def test_a_window_that_no_document_can_reach_is_said() -> None:
    proof = proof_of(t.MistralConfig(**SIZES, sliding_window=80), max_length=64)
    assert proof.equality.window == 80
    assert "no document reaches beyond its window of 80" in proof.equality.text()


@pytest.mark.parametrize("family", OTHERS)
def test_what_varlen_does_not_compute_gets_the_next_with_the_reason(family: str) -> None:
    config, name = OTHERS[family]
    proof = proof_of(config())
    assert proof.attention.name == name
    assert proof.attention.reason.startswith("varlen: ")


@pytest.mark.parametrize(
    "passed",
    [
        {"softcap": 5.0},
        {"s_aux": torch.zeros(4)},
        {"dropout": 0.1},
        {"position_bias": torch.zeros(1, 4, 3, 3)},
        {"is_causal": False},
        {"something_new": 1},
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_keyword_that_would_be_dropped_is_an_error(passed: Any, packed: bool) -> None:
    heads = torch.zeros(1, 4, 3, 8)
    bounds = {"cu_seq_lens_q": torch.tensor([0, 3]), "max_length_q": 3} if packed else {}
    module = torch.nn.Module()
    attend = attention._varlen_forward
    attend(module, heads, heads, heads, None, scaling=1.0, dropout=0.0, softcap=None, **bounds)
    with pytest.raises(NotComputedError, match="the base "):
        attend(module, heads, heads, heads, None, scaling=1.0, **bounds, **passed)
