"""Attention over packed rows, forward and backward, on one [T, heads, head_dim] tensor that holds
queries, keys and values.

Promise: a position sees the positions before it in its own document and nothing else. Documents
are given by their boundaries, int32 [documents + 1]; entries beyond the last document repeat the
end, so that a buffer of fixed capacity serves any batch.

Names of tensors end in their shape: T tokens of all packed rows, N packed rows of L tokens, H heads
(Q of queries, C of keys, C of values), E features of a head.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sftray.trainers.bank.frozen_base import DecoderShape


@dataclass
class Documents:
    """Where the documents of a batch lie."""

    boundaries: Tensor
    """int32 [capacity + 1]."""
    longest: int
    """No document is longer, in tokens."""
    rows: int
    """Packed rows in the batch; a document lies within one."""
    masks: dict[int | None, Tensor] = field(default_factory=dict)
    """What `Sdpa` made of the boundaries for each window, for the layers of one pass."""

    @property
    def places(self) -> tuple[Tensor, Tensor, int, int]:
        """As variable-length kernels take them, for queries and for keys."""
        return self.boundaries, self.boundaries, self.longest, self.longest


class BankAttention(Protocol):
    """One way to compute it."""

    name: str

    def forward(
        self, qkv_THE: Tensor, documents: Documents, window: int | None
    ) -> tuple[Tensor, Any]:
        """The output, [T, Q, E], and what `backward` needs besides. A token sees as many as
        `window` says, itself included; None: all before it."""
        ...

    def backward(
        self,
        dout_TQE: Tensor,
        qkv_THE: Tensor,
        saved: Any,
        documents: Documents,
        window: int | None,
        dqkv_THE: Tensor,
    ) -> None:
        """Write the gradient of qkv into dqkv."""
        ...


def possible(
    shape: DecoderShape, dtype: torch.dtype, device: torch.device, wanted: str | None = None
) -> list[BankAttention]:
    """What may run here, the fastest first: FlashAttention-2, PyTorch's variable-length attention,
    SDPA, which do not cap scores, but for the first; or the one that is `wanted`, where it may."""
    found: list[BankAttention] = []
    if device.type == "cuda" and dtype == torch.bfloat16:
        if importlib.util.find_spec("flash_attn") is not None:
            found.append(Flash(shape))
        if shape.cap is None and importlib.util.find_spec("torch.nn.attention.varlen") is not None:
            found.append(Varlen(shape))
    found.append(Sdpa(shape) if shape.cap is None else Capped(shape))
    return [one for one in found if one.name == wanted] or found


def _sides(window: int | None) -> tuple[int, int]:
    """A window as kernels take it: tokens before and behind; −1: all."""
    return (-1 if window is None else window - 1), 0


class Flash:
    """FlashAttention-2 (Dao 2023, arXiv:2307.08691), whose gradients go where they are needed."""

    name = "flash_attention_2"

    def __init__(self, shape: DecoderShape) -> None:
        from flash_attn.flash_attn_interface import (
            _wrapped_flash_attn_varlen_backward,
            _wrapped_flash_attn_varlen_forward,
        )

        self._forward, self._backward = (
            _wrapped_flash_attn_varlen_forward,
            _wrapped_flash_attn_varlen_backward,
        )
        self._split, self._scale, self._cap = shape.split, shape.scale, shape.cap or 0.0

    def forward(
        self, qkv_THE: Tensor, documents: Documents, window: int | None
    ) -> tuple[Tensor, Any]:
        query_TQE, key_TCE, value_TCE = torch.split(qkv_THE, self._split, dim=1)
        how = (0.0, self._scale, True, *_sides(window), self._cap)
        out_TQE, log_sum_QT, _, _ = self._forward(
            query_TQE, key_TCE, value_TCE, *documents.places, *how
        )
        return out_TQE, (out_TQE, log_sum_QT)

    def backward(
        self,
        dout_TQE: Tensor,
        qkv_THE: Tensor,
        saved: Any,
        documents: Documents,
        window: int | None,
        dqkv_THE: Tensor,
    ) -> None:
        parts, slopes = (
            torch.split(all_heads, self._split, dim=1) for all_heads in (qkv_THE, dqkv_THE)
        )
        self._backward(
            dout_TQE, *parts, *saved, *slopes, *documents.places, 0.0, self._scale, True,
            *_sides(window), self._cap, None, torch.are_deterministic_algorithms_enabled(),
        )  # fmt: skip


class _ByAutograd:
    """Attention whose backward pass PyTorch derives."""

    name: str

    def __init__(self, shape: DecoderShape) -> None:
        self._split, self._scale, self._cap = shape.split, shape.scale, shape.cap

    def forward(
        self, qkv_THE: Tensor, documents: Documents, window: int | None
    ) -> tuple[Tensor, Any]:
        if torch.is_inference_mode_enabled():
            return self._attend(qkv_THE, documents, window), None
        with torch.enable_grad():
            leaf_THE = qkv_THE.detach().requires_grad_()
            out_TQE = self._attend(leaf_THE, documents, window)
        return out_TQE.detach(), (out_TQE, leaf_THE)

    def backward(
        self,
        dout_TQE: Tensor,
        qkv_THE: Tensor,
        saved: Any,
        documents: Documents,
        window: int | None,
        dqkv_THE: Tensor,
    ) -> None:
        out_TQE, leaf_THE = saved
        dqkv_THE.copy_(torch.autograd.grad(out_TQE, leaf_THE, dout_TQE.view_as(out_TQE))[0])

    def _attend(self, qkv_THE: Tensor, documents: Documents, window: int | None) -> Tensor:
        raise NotImplementedError


class Varlen(_ByAutograd):
    """PyTorch's own variable-length attention."""

    name = "varlen"

    def _attend(self, qkv_THE: Tensor, documents: Documents, window: int | None) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        query_TQE, key_TCE, value_TCE = torch.split(qkv_THE, self._split, dim=1)
        share = query_TQE.shape[1] // key_TCE.shape[1]
        key_TQE, value_TQE = (part.repeat_interleave(share, dim=1) for part in (key_TCE, value_TCE))
        out_TQE = varlen_attn(
            query_TQE,
            key_TQE,
            value_TQE,
            *documents.places,
            scale=self._scale,
            window_size=_sides(window),
        )
        assert isinstance(out_TQE, Tensor)  # it is a pair only where more is asked for
        return out_TQE


class Sdpa(_ByAutograd):
    """PyTorch's scaled-dot-product attention under a block-diagonal mask: any device and dtype."""

    name = "sdpa"

    def _attend(self, qkv_THE: Tensor, documents: Documents, window: int | None) -> Tensor:
        if window not in documents.masks:
            documents.masks[window] = _block_diagonal(documents, qkv_THE.shape[0], window)
        qkv_NHLE = qkv_THE.view(documents.rows, -1, *qkv_THE.shape[1:]).transpose(1, 2)
        query_NQLE, key_NCLE, value_NCLE = torch.split(qkv_NHLE, self._split, dim=1)
        out_NQLE = self._rows(query_NQLE, key_NCLE, value_NCLE, documents.masks[window])
        return out_NQLE.transpose(1, 2).flatten(0, 1)

    def _rows(self, query: Tensor, key: Tensor, value: Tensor, seen_N1LL: Tensor) -> Tensor:
        return attend(query, key, value, seen_N1LL, self._scale)


class Capped(Sdpa):
    """Scores squashed by tanh (Gemma 2, arXiv:2408.00118), in plain PyTorch: any device and dtype.
    A row and a key head at a time, which is run again backwards, so that few scores exist."""

    name = "eager"

    def _rows(self, query: Tensor, key: Tensor, value: Tensor, seen_N1LL: Tensor) -> Tensor:
        heads = (part.chunk(key.shape[1], dim=1) for part in (query, key, value))
        parts = [
            [
                checkpoint(
                    *(attend, *row, seen, self._scale, self._cap),
                    use_reentrant=False,
                    preserve_rng_state=False,  # which a CUDA graph cannot hold
                )
                for *row, seen in zip(*(one.split(1) for one in head), seen_N1LL, strict=True)
            ]
            for head in zip(*heads, strict=True)
        ]
        return torch.cat([torch.cat(rows) for rows in parts], dim=1)


def attend(
    query_NQLE: Tensor,
    key_NCME: Tensor,
    value_NCME: Tensor,
    seen: Tensor,
    scale: float,
    cap: float | None = None,
) -> Tensor:
    """Attention of rows to what a mask lets them see, [N, Q, L, E]; scores squashed to ± cap."""
    share = query_NQLE.shape[1] // key_NCME.shape[1]
    if cap is None:
        return functional.scaled_dot_product_attention(
            *(query_NQLE, key_NCME, value_NCME), seen, scale=scale, enable_gqa=share > 1
        )
    key, value = (part.repeat_interleave(share, dim=1) for part in (key_NCME, value_NCME))
    scores = torch.tanh(query_NQLE @ key.mT * (scale / cap)) * cap
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value


def _block_diagonal(documents: Documents, tokens: int, window: int | None) -> Tensor:
    """bool [N, 1, L, L]: whether a position sees another of its row."""
    places_T = torch.arange(tokens, device=documents.boundaries.device, dtype=torch.int32)
    document_T = torch.searchsorted(documents.boundaries, places_T, right=True)
    document_NL = document_T.view(documents.rows, -1)
    length = document_NL.shape[1]
    seen_LL = torch.ones(length, length, dtype=torch.bool, device=document_NL.device).tril()
    if window is not None:
        seen_LL = seen_LL.triu(1 - window)
    return ((document_NL[:, :, None] == document_NL[:, None, :]) & seen_LL)[:, None]
