"""The GPUs of this machine, without torch."""

from __future__ import annotations

import subprocess


def gpu_memories() -> list[float]:
    """Bytes of each of this machine's GPUs, as its driver says."""
    return [size * 2**20 for size in _asked("memory.total")]


def smallest_gpu() -> float | None:
    """Bytes of the smallest of them; None where there is none."""
    return min(gpu_memories(), default=None)


def compute_capability() -> float | None:
    """The lowest of theirs, as 9.0; None where there is none."""
    return min(_asked("compute_cap"), default=None)


def _asked(what: str) -> list[float]:
    """What the driver says of each GPU."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return [float(line) for line in done.stdout.split()]
    except (FileNotFoundError, subprocess.SubprocessError, ValueError):
        return []
