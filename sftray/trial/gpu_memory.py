"""Out of memory recognised, memory freed, its peak measured."""

from __future__ import annotations

import gc

import torch


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch, cuBLAS or a Triton kernel has found no more GPU memory."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in text for sign in ("out of memory", "ALLOC_FAILED", "cudaErrorMemoryAllocation")
    )


def free_memory() -> None:
    """Give the GPU back what is not referred to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_gb(device: torch.device) -> float:
    """The most GPU memory this process has held, in GiB; 0 on the CPU."""
    if device.type != "cuda":
        return 0.0
    return torch.cuda.max_memory_allocated(device) / 2**30
