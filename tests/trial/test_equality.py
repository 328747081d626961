"""The proof of equality sees what is wrong with an attention, a backward pass or a product, and
passes what is right, on models whose weights matter."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from bank_models import CONFIGS, SIZES, random_model
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sftray.config import TrialConfig
from sftray.demo import FOLDER
from sftray.errors import BrokenBaseError
from sftray.trial.attention import Attention
from sftray.trial.base_model import load_base
from sftray.trial.equality import Equality, Reference, document_lengths
from sftray.trial.proof import first_that_passes, prove
from sftray.trial.reference_model import decoded

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from models import small_model  # noqa: E402

CPU = torch.device("cpu")
SDPA = Attention("sdpa", "sdpa", "stacked")
WINDOW = {"sliding_window": 8}


def window_model() -> Any:
    torch.manual_seed(0)
    config = t.MistralConfig(**SIZES, **WINDOW)
    model = t.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.2)
    return model.requires_grad_(False).eval()


def registered(name: str, forward: Any, mask: Any = sdpa_mask) -> Attention:
    """An attention of this name in transformers."""
    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, mask)
    return Attention(name, name, "stacked")


def scaled(module: Any, *args: Any, scaling: float, **rest: Any) -> Any:
    return sdpa_attention_forward(module, *args, scaling=1.05 * scaling, **rest)


class Weaker(torch.autograd.Function):
    """The same value, of whose gradient a tenth is lost."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return 0.9 * gradients[0]


def weaker_backward(module: Any, *args: Any, **rest: Any) -> Any:
    out, weights = sdpa_attention_forward(module, *args, **rest)
    return Weaker.apply(out), weights


def whole_row(*args: Any, mask_function: Any, **rest: Any) -> Any:
    """Causal over the whole row, whatever its documents."""
    return None


BROKEN: dict[str, tuple[Any, Any, str]] = {
    "scales by 5 % too much": (scaled, sdpa_mask, "differs from eager attention in float32"),
    "loses a tenth of the gradient": (weaker_backward, sdpa_mask, "the gradient of"),
    "lets documents see each other": (sdpa_attention_forward, whole_row, "see each other"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_broken_attention_is_refused(fault: str, dtype: torch.dtype) -> None:
    forward, mask, message = BROKEN[fault]
    model = window_model().to(dtype)
    reference = Reference(model, 256)
    broken = registered(fault.replace(" ", "_"), forward, mask)
    proof, refused = first_that_passes(model, [broken, SDPA], reference, contextlib.nullcontext)
    assert proof is not None
    assert proof.attention.name == "sdpa"
    assert message in refused[0]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_right_attention_passes(family: str, dtype: torch.dtype) -> None:
    model = random_model(family).to(dtype).eval()
    own = model.config._attn_implementation  # which is eager with a soft cap
    equality = Reference(model, 256).compare(model, Attention(own, own, "stacked"))
    assert equality.passed, equality
    assert equality.text().startswith("equal to eager attention in float32: ")


def test_a_4_bit_base_is_equal_to_its_decoded_weights() -> None:
    trial = TrialConfig(str(FOLDER), base_precision="nf4")
    model = load_base(trial, CPU)
    proof = prove(model, trial, 256)
    assert proof.attention.name == "sdpa"
    for module in model.modules():
        if type(module).__name__ == "Linear4bit" and module.in_features % 64 == 0:
            x = torch.eye(module.in_features)
            torch.testing.assert_close(module(x).T, decoded(module), atol=1e-6, rtol=1e-5)


def test_a_4_bit_product_without_a_gradient_is_refused() -> None:
    # pitfall P41: on some CPUs bitsandbytes' products once lost their gradients
    trial = TrialConfig(str(FOLDER), base_precision="nf4")
    model = load_base(trial, CPU)
    product = model.model.layers[0].mlp.down_proj
    forward = product.forward
    product.forward = lambda x: forward(x.detach())
    with pytest.raises(BrokenBaseError, match=r"the gradient of .*layer 0"):
        prove(model, trial, 256)


def test_an_8_bit_weight_is_decoded() -> None:
    import bitsandbytes as bnb

    layer = bnb.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False)
    weight = torch.randn(32, 64)
    codes, scales, _ = bnb.functional.int8_vectorwise_quant(weight.half())
    layer.weight = bnb.nn.Int8Params(codes, requires_grad=False, has_fp16_weights=False)
    layer.weight.SCB = scales
    torch.testing.assert_close(decoded(layer), weight, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "jamba"])
def test_a_weight_that_is_read_past_its_module_has_the_reference_dtype(kind: str) -> None:
    model = small_model(kind, torch.bfloat16, CPU)
    reference = Reference(model, 256, lambda: torch.autocast("cpu", torch.bfloat16))
    apart = Attention("apart", "eager", "apart")
    proof, refused = first_that_passes(model, [apart], reference, contextlib.nullcontext)
    assert proof is not None, refused
    assert reference.precision == "bfloat16"


def test_what_is_not_finite_never_passes() -> None:
    model = random_model("llama").eval()
    reference = Reference(model, 256)
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    assert not reference.compare(model, SDPA).passed


def test_documents_go_beyond_a_window_where_they_can() -> None:
    assert document_lengths(None, 2048, 10_000) == [112, 48, 17]
    assert document_lengths(512, 2048, 10_000)[0] == 576
    assert document_lengths(512, 2048, 300)[0] == 300
    lengths = document_lengths(4096, 256, 10_000)
    assert sum(lengths) <= 256
    assert len(set(lengths)) > 1


def test_a_refusal_says_where_and_by_how_much() -> None:
    equality = Equality("layer 3 (GemmaDecoderLayer)", "the output", 812.0, 0.9, "bfloat16")
    assert equality.text() == (
        "the output of layer 3 (GemmaDecoderLayer) differs from eager attention in float32 by "
        "8.1e+02 × the error of eager attention in bfloat16"
    )
