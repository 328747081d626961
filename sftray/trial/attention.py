"""The attentions that a trial's model may compute with.

Promise: documents of one packed row never see each other, and no attention drops what a model
passes it: PyTorch's kernel raises. Whatever is taken is proved on the loaded model (`proof`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import bidirectional_mask_function, flash_attention_mask

from sftray.config import TrialConfig
from sftray.errors import ConfigError
from sftray.trial.collate import RowLayout

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
        "seq_idx",  # what cu_seq_lens says already
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
    layout: RowLayout
    reason: str = ""
    """Why a faster one was not taken, where the base is the reason."""


_FLASH_3 = Attention("flash_attention_3", "flash_attention_3", "flat")
_FLASH_2 = Attention("flash_attention_2", "flash_attention_2", "flat")
_VARLEN = Attention("varlen", "sftray_varlen", "flat")
_SDPA = Attention("sdpa", "sdpa", "stacked")
_EAGER = Attention("eager", "eager", "stacked")
_APART = Attention("apart", "sdpa", "apart")
_APART_EAGER = Attention("apart", "eager", "apart")


def possible_attentions(trial: TrialConfig, device: torch.device) -> list[Attention]:
    """What may compute a trial on `device`, the fastest first, or the one that it asks for:
    FlashAttention 3 or 2 where installed, PyTorch's variable-length kernel, SDPA and eager
    attention under a block-diagonal mask, and the documents of a row apart. Which of them computes
    the base is seen once that is loaded, by `proof.prove`.

    Raises ConfigError where the one asked for cannot run here.
    """
    possible = [*_variable_length(trial, device), _SDPA, _EAGER, _APART, _APART_EAGER]
    asked = [a for a in possible if trial.attention in (None, a.name)]
    if not asked:
        raise ConfigError(
            f"trial.attention: got {trial.attention!r} on {device.type} with "
            f"base_precision={trial.base_precision!r}, must be of "
            f"{', '.join(dict.fromkeys(a.name for a in possible))}: others "
            "need a GPU of compute capability 8.0 or newer (FlashAttention-3: 9.0), 16-bit compute "
            "and, but for varlen, their package; leave it None to take what works"
        )
    return asked


def use_attention(model: PreTrainedModel, attention: Attention) -> None:
    """Have a loaded model compute with `attention`. Raises NotComputedError where transformers does
    not have it for this model."""
    if attention == _VARLEN:
        AttentionInterface.register(_VARLEN.implementation, _varlen_forward)
        AttentionMaskInterface.register(_VARLEN.implementation, _varlen_mask)
    try:
        model.set_attn_implementation(attention.implementation)
    except (ValueError, ImportError) as error:
        raise NotComputedError(str(error).splitlines()[0]) from error
    if model.config._attn_implementation != attention.implementation:
        raise NotComputedError(
            f"transformers has no {attention.implementation} attention for {type(model).__name__}"
        )


def _variable_length(trial: TrialConfig, device: torch.device) -> list[Attention]:
    if device.type != "cuda" or trial.base_precision == "fp32":
        return []
    capability = torch.cuda.get_device_capability(device)
    return [
        attention
        for attention, module, needed in (
            (_FLASH_3, "flash_attn_interface", (9, 0)),
            (_FLASH_2, "flash_attn", (8, 0)),
            (_VARLEN, "torch.nn.attention.varlen", (8, 0)),
        )
        if capability >= needed and importlib.util.find_spec(module) is not None
    ]


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
    sliding_window: int | None = None,
    **rest: object,
) -> tuple[torch.Tensor, None]:
    """PyTorch's kernel over [1, heads, T, head_dim], in the form that transformers calls; a text
    that comes without boundaries, as in generation, goes to SDPA, its window in the mask.

    Raises NotComputedError for what would be dropped: a soft cap, sinks, dropout, …
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
    # transformers' window holds the token itself, the kernel's what lies before it
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    mixed = varlen_attn(query, key, value, *places, scale=scaling, window_size=window)
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

    A window comes to the attention itself. Raises NotComputedError for a mask that is not causal,
    or one with the model's own functions (`use_vmap`).
    """
    if rest.get("use_vmap") or mask_function is bidirectional_mask_function:
        raise NotComputedError("the base has a mask that is not the causal one")
    mask: torch.Tensor | None = flash_attention_mask(mask_function=mask_function, **rest)
    return mask
