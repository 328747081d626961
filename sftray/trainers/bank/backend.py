"""Triton kernels on a GPU, their plain PyTorch twins elsewhere."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import torch

from sftray.trainers.bank import torch_ops


def fastest(device: torch.device) -> ModuleType:
    """The plain operations, or on a GPU with Triton their twins."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from sftray.trainers.bank import triton_kernels

        return triton_kernels
    return torch_ops
