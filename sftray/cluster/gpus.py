"""The GPUs of this machine and their memory, without torch."""

from __future__ import annotations

import subprocess


def gpu_memories() -> list[float]:
    """Bytes of each of this machine's GPUs, as its driver says."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return [float(line) * 2**20 for line in done.stdout.split()]
    except (FileNotFoundError, subprocess.SubprocessError, ValueError):
        return []


def smallest_gpu() -> float | None:
    """Bytes of the smallest of them; None where there is none."""
    return min(gpu_memories(), default=None)
