"""The frozen base as the bank computes with it: its weights, those that share an input in one
matrix.

Promise: the numbers are those of the model that transformers loads; a 4-bit weight is dequantised
to exactly what bitsandbytes multiplies with. Held `resident` (dequantised once) it costs two bytes
a parameter on a GPU; else one group of weights at a time is dequantised, in every pass. In FP8 it
is held as codes, twice: what a product reads must lie along the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sftray.config import TrialConfig
from sftray.errors import ConfigError
from sftray.plan.layer_description import SPLIT, Description, Groups, describe
from sftray.plan.lora_targets import INSIDE
from sftray.plan.trainer_choice import why_not_the_base
from sftray.trainers.bank.torch_ops import quantise
from sftray.trial.attention import possible_attentions
from sftray.trial.base_model import load_base
from sftray.trial.fp8_rounding import Fp8Linear
from sftray.trial.text_part import is_text_part

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""Types of weights that are read as they are."""


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    vocabulary: int
    epsilon: float
    """Of the norms."""
    scale: float
    """Of attention scores."""
    outputs: dict[str, int]
    """Width of each projection's output."""
    inputs: dict[str, int]
    groups: Groups = SPLIT
    cap: float | None = None
    """Attention scores are squashed to ± it by tanh."""
    path: str = "model.layers"
    """What the layers are called in the checkpoint."""

    @property
    def split(self) -> list[int]:
        """Heads of queries, keys and values, as they lie in one tensor."""
        return [self.heads, self.kv_heads, self.kv_heads]


@dataclass
class Group:
    """The weights of projections that share an input, as one matrix [sum of outputs, input]."""

    matrix: Callable[[], Tensor]
    """The dense matrix, in the compute dtype; valid until the next group's is asked for."""
    bias: Tensor | None
    widths: tuple[int, ...]
    """Output width of each projection."""
    codes: Codes | None = None
    """The same in FP8, where the base is held so."""


@dataclass
class Codes:
    """A matrix [O outputs, I inputs] in e4m3 with a scale an output, for both directions."""

    forward_OI: Tensor
    scale_1O: Tensor
    backward_IO: Tensor
    """The same codes."""
    factor_1O: Tensor
    """The scale, in bfloat16, which holds it exactly: it lies along the backward product's sum, so
    it is the gradient that it multiplies."""
    ones_1I: Tensor
    """The backward product's scale."""

    @classmethod
    def of(cls, dense_OI: Tensor) -> Codes:
        codes_OI, scale_O1 = quantise(dense_OI)
        scale_1O, ones_1I = scale_O1.T.contiguous(), scale_O1.new_ones(1, dense_OI.shape[1])
        return cls(codes_OI, scale_1O, codes_OI.T.contiguous(), scale_1O.bfloat16(), ones_1I)

    def decoded(self, dtype: torch.dtype) -> Tensor:
        return (self.forward_OI.float() * self.scale_1O.T).to(dtype)


@dataclass
class Layer:
    """One decoder layer."""

    groups: list[Group]
    before_attention: Tensor | None
    after_attention: Tensor | None
    before_mlp: Tensor | None
    after_mlp: Tensor | None
    """Norms' weights [hidden]; float32 where they are 1 + what the checkpoint has."""
    head_norms: Tensor | None
    """[heads + kv_heads, head_dim]: the norm weight of every query and key head (Qwen3)."""
    joint_norms: tuple[Tensor, Tensor] | None
    """Or those of all queries' features and of all keys' as one (OLMo 2)."""


@dataclass
class Base:
    """A decoder-only base, frozen."""

    shape: DecoderShape
    description: Description
    embedding: Tensor
    """[vocabulary, hidden]"""
    multiplier: float
    """Of the embedding's rows, where they come to the first layer."""
    head: Tensor
    """[vocabulary, hidden]; the embedding itself where they are tied."""
    norm: Tensor
    layers: list[Layer]
    rotary: Callable[[Tensor, str], tuple[Tensor, Tensor]]
    """positions [P], a layer type or "" → cos and sin [P, head_dim], in the compute dtype."""
    dtype: torch.dtype
    device: torch.device
    resident: bool


def load_model(trial: TrialConfig, device: torch.device) -> PreTrainedModel:
    """The base of a sweep's trials, as transformers loads it.

    Raises ConfigError where the attention that the trials ask for cannot run here.
    """
    possible_attentions(trial, device)
    return load_base(trial, device)


@torch.no_grad()
def take_base(model: Any, dtype: torch.dtype, *, resident: bool) -> Base:
    """Take the weights out of a loaded transformers model, which is of no use afterwards.

    dtype is what is computed in. A base that is not quantised is always resident. Raises
    ConfigError for a model that the bank does not compute.
    """
    config, body = model.config, model.model
    if reason := why_not_the_base(config.to_dict()) or _why_not_the_weights(model):
        raise ConfigError(f"trainer: got 'bank', but {reason}; take 'train'")
    embedding = model.get_input_embeddings()
    device = embedding.weight.device
    probe = torch.empty(0, dtype=dtype, device=device)

    def tables(positions: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        own = (kind,) if kind else ()
        cos, sin = body.rotary_emb(probe, positions[None], *own)
        return cos[0], sin[0]

    head_weight = model.lm_head.weight.data
    tied = head_weight.data_ptr() == embedding.weight.data_ptr()
    rows = embedding.weight.data.to(dtype)
    shape = _shape(model)
    scratch = None
    modules = linear_modules(body.layers[0], shape.groups)
    if not resident and any(hasattr(module.weight, "quant_state") for module in modules.values()):
        outputs = shape.outputs
        largest = max(
            sum(outputs[n] for n in names) * shape.inputs[names[0]] for names in shape.groups
        )
        scratch = torch.empty(largest, dtype=dtype, device=device)  # for one group at a time
    description = describe(config.to_dict(), shape.head_dim)
    layers = [_take_layer(layer, shape, description, dtype, scratch) for layer in body.layers]
    return Base(
        shape=shape,
        description=description,
        embedding=rows,
        multiplier=description.embedding * _multiplier(embedding),
        head=rows if tied else head_weight.to(dtype),
        norm=_scaled(_norm(body.norm, description, dtype), description.logits),
        layers=layers,
        rotary=tables,
        dtype=dtype,
        device=device,
        resident=resident,
    )


def _shape(model: Any) -> DecoderShape:
    config, first = model.config, model.model.layers[0]
    head_dim = first.self_attn.head_dim
    description = describe(config.to_dict(), head_dim)
    groups = description.family.groups
    modules = linear_modules(first, groups)
    outputs = {name: module.out_features for name, module in modules.items()}
    return DecoderShape(
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        layers=len(model.model.layers),
        vocabulary=model.lm_head.weight.shape[0],
        epsilon=config.layer_norm_eps if description.family.centred else config.rms_norm_eps,
        scale=description.scale,
        cap=description.attention_cap,
        groups=groups,
        outputs=outputs,
        inputs={name: module.in_features for name, module in modules.items()},
        path=f"model.{INSIDE}.layers" if is_text_part(model) else "model.layers",
    )


def _scaled(weight_D: Tensor, factor: float) -> Tensor:
    """A norm's weight, by which what comes of it is scaled, too; unrounded."""
    return weight_D if factor == 1 else weight_D.float() * factor


def _multiplier(embedding: Any) -> float:
    """What an embedding multiplies its rows by, as rounded as its weight."""
    scale = getattr(embedding, "embed_scale", None)
    return 1.0 if scale is None else float(scale.to(embedding.weight.dtype))


def _why_not_the_weights(model: Any) -> str | None:
    """Why what was loaded is not what the bank takes apart; None if it is."""
    attention = model.model.layers[0].self_attn
    description = describe(model.config.to_dict(), attention.head_dim)
    scale = description.scale
    if not math.isclose(attention.scaling, scale):
        return f"the base scales its attention by {attention.scaling:g}, not by {scale:g}"
    plain = [model.get_input_embeddings().weight, model.lm_head.weight]
    for layer in model.model.layers:
        modules = linear_modules(layer, description.family.groups)
        weights = [module.weight for module in modules.values()]
        plain += [weight for weight in weights if not hasattr(weight, "quant_state")]
    if strange := {weight.dtype for weight in plain} - {*FLOATS}:
        return f"the base has weights of {strange.pop()}, which the bank cannot read"
    return None


def _take_layer(
    layer: Any,
    shape: DecoderShape,
    description: Description,
    dtype: torch.dtype,
    scratch: Tensor | None,
) -> Layer:
    modules = linear_modules(layer, shape.groups)
    groups = []
    for names in shape.groups:
        groups.append(_take_group([modules[name] for name in names], dtype, scratch))
        for name in names:
            del modules[name].weight  # its memory is needed for the next
    attention, head_norms, joint_norms = layer.self_attn, None, None
    if hasattr(attention, "q_norm"):
        query, key = (
            _norm(norm, description, dtype) for norm in (attention.q_norm, attention.k_norm)
        )
        if len(query) == shape.head_dim:
            head_norms = torch.cat([query.expand(shape.heads, -1), key.expand(shape.kv_heads, -1)])
        else:
            joint_norms = query, key
    found = {
        place: name and _norm(getattr(layer, name), description, dtype)
        for place, name in asdict(description.family.norms).items()
    }
    for place in ("after_attention", "after_mlp"):
        if (weight_D := found[place]) is not None:
            found[place] = _scaled(weight_D, description.residual)
    return Layer(groups, **found, head_norms=head_norms, joint_norms=joint_norms)


def _norm(module: Any, description: Description, dtype: torch.dtype) -> Tensor:
    """What a norm multiplies by."""
    weight: Tensor = module.weight.data
    family = description.family
    if family.one_plus:
        return 1.0 + weight.float()
    return weight.float() if family.exact_norms else weight.to(dtype)


def _take_group(modules: Sequence[Any], dtype: torch.dtype, scratch: Tensor | None) -> Group:
    widths, columns = tuple(module.out_features for module in modules), modules[0].in_features
    weights, size = [module.weight for module in modules], sum(widths) * columns
    bias = _bias(modules, widths, dtype)
    if scratch is None or not hasattr(weights[0], "quant_state"):
        dense = torch.empty(sum(widths), columns, dtype=dtype, device=weights[0].device)
        _fill(dense, weights, widths)
        if isinstance(modules[0], Fp8Linear):
            codes = Codes.of(dense)
            return Group(lambda: codes.decoded(dtype), bias, widths, codes)
        return Group(lambda: dense, bias, widths)
    return Group(lambda: _fill(scratch[:size].view(-1, columns), weights, widths), bias, widths)


def _fill(out: Tensor, weights: Sequence[Any], widths: Sequence[int]) -> Tensor:
    for part, weight in zip(torch.split(out, list(widths)), weights, strict=True):
        if hasattr(weight, "quant_state"):
            _dequantise(weight.data, weight.quant_state, part)
        else:
            part.copy_(weight.data)
    return out


def _dequantise(data: Tensor, state: Any, out: Tensor) -> None:
    from bitsandbytes.functional import dequantize_4bit

    if state.dtype == out.dtype and out.device.type == "cuda":  # a CPU cannot write in place
        dequantize_4bit(data, state, out=out)
    else:
        out.copy_(dequantize_4bit(data, state))


def _bias(modules: Sequence[Any], widths: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    if all(module.bias is None for module in modules):
        return None
    return torch.cat(
        [
            module.bias.data.to(dtype)
            if module.bias is not None
            else torch.zeros(width, dtype=dtype, device=module.weight.device)
            for module, width in zip(modules, widths, strict=True)
        ]
    )


def linear_modules(layer: Any, groups: Groups) -> dict[str, Any]:
    """A decoder layer's linear modules by name."""
    return {
        name: getattr(layer.self_attn, name, None) or getattr(layer.mlp, name)
        for names in groups
        for name in names
    }
