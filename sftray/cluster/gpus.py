"""The GPUs of this machine, without torch."""

from __future__ import annotations

import subprocess


def gpu_memories() -> list[float]:
    """Bytes of each of this machine's GPUs, as its driver says."""
    return [size * 2**20 for size in _asked("memory.total")]


def smallest_gpu() -> float | None:
    """Bytes of the smallest of them; None where there is none."""
    return min(gpu_memories(), default=None)


def gpu_name() -> str:
    """As the driver calls them; empty where there is none, or where they differ."""
    names = set(_lines("name"))
    return names.pop() if len(names) == 1 else ""


def compute_capability() -> float | None:
    """The lowest of theirs, as 9.0; None where there is none."""
    return min(_asked("compute_cap"), default=None)


def _asked(what: str) -> list[float]:
    """What the driver says of each GPU."""
    try:
        return [float(line) for line in _lines(what)]
    except ValueError:
        return []


def _lines(what: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (FileNotFoundError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
