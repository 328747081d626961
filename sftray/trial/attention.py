"""Which attention a trial's model computes with, and the proof that it keeps documents apart.

Promise: documents of one packed row never see each other. Whatever is chosen is proved on the
loaded model by `prove_isolation`, and refused if it leaks. No attention drops what a model passes
it: PyTorch's kernel raises, and `settle_attention` takes the next.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import bidirectional_mask_function, flash_attention_mask

from sftray.config import TrialConfig
from sftray.config.trial_config import ATTENTIONS
from sftray.errors import ConfigError
from sftray.plan.base_config import refuse_varlen, special_attention
from sftray.trial.collate import collate

HARMLESS = frozenset(
    {
        "cache_position",
        "cu_seq_lens_k",  # the queries' own
        "logits_to_keep",
        "max_length_k",
        "num_items_in_batch",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)
"""Keywords that reach an attention with those of the forward pass and do not change its result."""


class NotComputedError(ValueError):
    """A model wants of an attention what it does not compute."""


@dataclass(frozen=True)
class Attention:
    """How documents are kept apart inside a packed row."""

    name: str
    """The name in TrialConfig.attention and in reports."""
    implementation: str
    """The name transformers knows it by."""
    flatten: bool
    """Rows are laid end to end, boundaries in cu_seq_lens, instead of stacked."""
    reason: str = ""
    """Why a faster one was not taken, where the base is the reason."""


_FLASH_3 = Attention("flash_attention_3", "flash_attention_3", flatten=True)
_FLASH_2 = Attention("flash_attention_2", "flash_attention_2", flatten=True)
_VARLEN = Attention("varlen", "sftray_varlen", flatten=True)
_SDPA = Attention("sdpa", "sdpa", flatten=False)


def choose_attention(trial: TrialConfig, device: torch.device) -> Attention:
    """The cheapest attention that works on `device`, or the one the trial asks for: FlashAttention
    3 or 2 where installed, PyTorch's variable-length kernel, or SDPA under a block-diagonal mask.
    Whether it computes what the base wants is seen once that is loaded, by `settle_attention`.

    Raises ConfigError where the one asked for cannot run here.
    """
    possible = {attention.name: attention for attention in _possible(trial, device)}
    wanted = trial.attention or next(iter(possible))
    if wanted not in possible:
        raise ConfigError(
            f"trial.attention: got {wanted!r} on {device.type} with "
            f"base_precision={trial.base_precision!r}, must be of {', '.join(possible)}: others "
            "need a GPU of compute capability 8.0 or newer (FlashAttention-3: 9.0), 16-bit compute "
            "and, but for varlen, their package; leave it None to take what works"
        )
    chosen = possible[wanted]
    if chosen is _VARLEN:
        AttentionInterface.register(_VARLEN.implementation, _varlen_forward)
        AttentionMaskInterface.register(_VARLEN.implementation, _varlen_mask)
    return chosen


def settle_attention(model: PreTrainedModel, attention: Attention, trial: TrialConfig) -> Attention:
    """The attention that computes a model loaded with `attention`: that one, or SDPA, which is set
    in the model, where the model wants what PyTorch's variable-length kernel does not compute.

    The model's configuration shows it, or what it passes in a forward pass. Raises ConfigError
    where the trial asks for varlen, or the model cannot have SDPA either.
    """
    if attention.name != _VARLEN.name:
        return attention
    special = special_attention(model.config.to_dict())
    reason = f"the base has {special}" if special else _not_computed(model, attention)
    if reason is None:
        return attention
    if trial.attention == attention.name:
        refuse_varlen(reason)
    try:
        model.set_attn_implementation(_SDPA.implementation)
    except ValueError as error:
        raise ConfigError(
            f"trial.model: got {trial.model}, of which varlen and sdpa attention do not compute "
            f"that {reason}, must be a base that one of {', '.join(ATTENTIONS)} computes here; "
            "install FlashAttention, or take another base"
        ) from error
    return replace(_SDPA, reason=f"varlen does not compute that {reason}")


def _not_computed(model: PreTrainedModel, attention: Attention) -> str | None:
    """What a model wants of its attention in a forward pass that this does not compute."""
    was_training = model.training
    try:
        row_logits(model.eval(), np.zeros(sum(PROBE_LENGTHS), dtype=np.int64), attention)
    except NotComputedError as error:
        return str(error)
    finally:
        model.train(was_training)
    return None


def _possible(trial: TrialConfig, device: torch.device) -> list[Attention]:
    """What works here, the fastest first."""
    works = []
    if device.type == "cuda" and trial.base_precision != "fp32":
        capability = torch.cuda.get_device_capability(device)
        for attention, module, needed in (
            (_FLASH_3, "flash_attn_interface", (9, 0)),
            (_FLASH_2, "flash_attn", (8, 0)),
            (_VARLEN, "torch.nn.attention.varlen", (8, 0)),
        ):
            if capability >= needed and importlib.util.find_spec(module) is not None:
                works.append(attention)
    return [*works, _SDPA]


def _varlen_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    is_causal: bool | None = None,
    **rest: object,
) -> tuple[torch.Tensor, None]:
    """PyTorch's kernel over [1, heads, T, head_dim], in the form that transformers calls; a text
    that comes without boundaries, as in generation, goes to SDPA.

    Raises NotComputedError for what would be dropped: a window, a soft cap, sinks, dropout, …
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causal:
        raise NotComputedError("the base has attention that is not causal")
    _refuse_dropped(rest)
    if cu_seq_lens_q is None or max_length_q is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
        return out, None
    from torch.nn.attention.varlen import varlen_attn

    # float32 norms and rotary make float32 of what autocast has computed in bfloat16
    query, key = query.to(value.dtype), key.to(value.dtype)
    share = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(share, dim=1) for part in (key, value))
    query, key, value = (
        part.transpose(1, 2).flatten(0, 1).contiguous() for part in (query, key, value)
    )
    places = (cu_seq_lens_q,) * 2 + (max_length_q,) * 2
    mixed = varlen_attn(query, key, value, *places, scale=scaling, window_size=(-1, 0))
    assert isinstance(mixed, torch.Tensor)  # it is a pair only where more is asked for
    return mixed.unsqueeze(0), None


def _refuse_dropped(passed: Mapping[str, object]) -> None:
    """Raise NotComputedError for a keyword that changes the result of an attention and that
    PyTorch's kernel is not given."""
    for name, value in passed.items():
        off = value is None or (isinstance(value, int | float) and value == 0)
        if not (off or name in HARMLESS):
            shown = value if isinstance(value, int | float | str) else "…"
            raise NotComputedError(f"the base passes {name}={shown} to its attention")


def _varlen_mask(*, mask_function: Callable[..., object], **rest: object) -> torch.Tensor | None:
    """FlashAttention's mask for PyTorch's kernel, which is given none but that of a causal model.

    Raises NotComputedError for any other: a window or a chunk (`local_size`), a mask that is not
    causal, or one with the model's own functions (`use_vmap`).
    """
    size = rest.get("local_size")
    if size is not None:
        raise NotComputedError(f"the base masks all but {size} positions")
    if rest.get("use_vmap") or mask_function is bidirectional_mask_function:
        raise NotComputedError("the base has a mask that is not the causal one")
    mask: torch.Tensor | None = flash_attention_mask(mask_function=mask_function, **rest)
    return mask


PROBE_LENGTHS = (7, 11, 6)
"""Tokens of the documents with which an attention is proved to keep them apart."""


def row_logits(model: PreTrainedModel, tokens: np.ndarray, attention: Attention) -> torch.Tensor:
    row = {
        "input_ids": tokens,
        "labels": np.full(tokens.shape, -100),
        "seq_lengths": np.array(PROBE_LENGTHS),
    }
    batch = collate([row], flatten=attention.flatten)
    batch.pop("labels")
    device = model.get_input_embeddings().weight.device
    inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=attention.flatten):
        logits = model(**inputs, use_cache=False).logits
    return torch.as_tensor(logits[0].float().cpu())
