"""PyTorch's variable-length attention drops nothing that a model passes it: the next is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as t
from bank_models import SIZES, random_model, random_rows
from torch.nn.attention import varlen
from transformers import AttentionInterface, AttentionMaskInterface

from sftray.config import TrialConfig
from sftray.errors import ConfigError
from sftray.trial import attention
from sftray.trial.attention import NotComputedError, settle_attention
from sftray.trial.collate import collate
from sftray.trial.isolation import prove_isolation

TRIAL = TrialConfig("base", base_precision="fp32")
NAME = attention._VARLEN.implementation

SPECIAL: dict[str, Any] = {
    "mistral": lambda: t.MistralConfig(**SIZES, sliding_window=8),
    "qwen2": lambda: t.Qwen2Config(
        **SIZES, sliding_window=8, use_sliding_window=True, max_window_layers=1
    ),
    "phi3": lambda: t.Phi3Config(**SIZES, sliding_window=8, pad_token_id=0),
    "gemma3": lambda: t.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=8),
    "llama4, chunks": lambda: t.Llama4TextConfig(
        **SIZES, head_dim=8, attention_chunk_size=8, num_local_experts=2, intermediate_size_mlp=48
    ),
    "llama, not causal": lambda: _not_causal(t.LlamaConfig(**SIZES)),
    "llama, dropout": lambda: t.LlamaConfig(**SIZES, attention_dropout=0.1),
}
NEITHER: dict[str, Any] = {
    "gemma2, soft cap": lambda: t.Gemma2Config(**SIZES, head_dim=8, attn_logit_softcapping=5.0),
    "gpt_oss, sinks": lambda: t.GptOssConfig(
        **SIZES, head_dim=8, num_local_experts=4, num_experts_per_tok=2,
        layer_types=["full_attention"] * 2,
    ),
}  # fmt: skip


def _not_causal(config: Any) -> Any:
    config.is_causal = False
    return config


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the kernel, which wants a GPU: causal, each document by itself."""

    def attend(q: Any, k: Any, v: Any, bounds: Any, *_: Any, scale: float, **__: Any) -> Any:
        out = torch.empty_like(q)
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            parts = (part[start:end].transpose(0, 1) for part in (q, k, v))
            mixed = torch.nn.functional.scaled_dot_product_attention(
                *parts, is_causal=True, scale=scale
            )
            out[start:end] = mixed.transpose(0, 1)
        return out

    monkeypatch.setattr(varlen, "varlen_attn", attend)
    AttentionInterface.register(NAME, attention._varlen_forward)
    AttentionMaskInterface.register(NAME, attention._varlen_mask)


def model_of(config: Any) -> Any:
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(
        config, attn_implementation=NAME, dtype=torch.float32
    )
    return model.requires_grad_(False).eval()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_base_of_full_causal_attention_stays_on_varlen(family: str) -> None:
    model = random_model(family)
    rows = random_rows(2, 40, 97, seed=1)
    stacked = model(**without_labels(rows, flatten=False), use_cache=False).logits
    model.set_attn_implementation(NAME)
    settled = settle_attention(model, attention._VARLEN, TRIAL)
    assert settled == attention._VARLEN
    assert prove_isolation(model, settled) == 0
    flat = model(**without_labels(rows, flatten=True), use_cache=False).logits
    torch.testing.assert_close(flat.view_as(stacked), stacked)


@pytest.mark.parametrize("family", SPECIAL)
def test_a_base_that_wants_more_than_varlen_computes_gets_sdpa_with_the_reason(family: str) -> None:
    model = model_of(SPECIAL[family]())
    settled = settle_attention(model, attention._VARLEN, TRIAL)
    assert (settled.name, settled.flatten) == ("sdpa", False)
    assert settled.reason.startswith("varlen does not compute that the base ")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", SPECIAL.keys() - {"llama, dropout"})  # off in evaluation
def test_what_the_configuration_does_not_tell_is_found_in_a_forward_pass(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "special_attention", lambda config: None)
    settled = settle_attention(model_of(SPECIAL[family]()), attention._VARLEN, TRIAL)
    assert settled.name == "sdpa"


@pytest.mark.parametrize("family", SPECIAL)
def test_varlen_that_is_asked_for_is_refused_where_it_would_drop_something(family: str) -> None:
    wanted = replace(TRIAL, attention="varlen")
    with pytest.raises(ConfigError, match=r"got 'varlen', but the base .* leave it None"):
        settle_attention(model_of(SPECIAL[family]()), attention._VARLEN, wanted)


@pytest.mark.parametrize("family", NEITHER)
def test_a_base_that_neither_computes_is_refused(family: str) -> None:
    with pytest.raises(ConfigError, match="varlen and sdpa attention do not compute"):
        settle_attention(model_of(NEITHER[family]()), attention._VARLEN, TRIAL)


@pytest.mark.parametrize(
    "passed",
    [
        {"sliding_window": 8},
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


def without_labels(rows: Any, *, flatten: bool) -> dict[str, Any]:
    batch = collate(rows, flatten=flatten)
    del batch["labels"]
    return batch
