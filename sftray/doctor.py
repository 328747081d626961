"""What this machine can do, one line a finding, with what it means for a sweep."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile

LITTLE_SHARED_GB = 1.0
"""Containers have 64 MB if nobody asks for more; Ray falls back to a disk then, and is slow."""
SPILLED_UP_TO = 0.95
"""Ray's own limit (RAY_local_fs_capacity_threshold)."""


def findings() -> list[str]:
    """The lines of `sftray doctor`. Keys are reported as present or not, never their values."""
    return [
        f"python        {sys.version.split()[0]}",
        *_devices(),
        *_packages(),
        f"disk here     {shutil.disk_usage('.').free / 1e9:.0f} GB free",
        *object_store_room(),
        *_keys(),
    ]


def smallest_gpu() -> float | None:
    """Bytes of this machine's smallest GPU, as its driver says; None where it has none."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return min(float(line) for line in done.stdout.split()) * 2**20
    except (FileNotFoundError, subprocess.SubprocessError, ValueError):
        return None


def object_store_room(shared: str = "/dev/shm", spilled: str | None = None) -> list[str]:
    """Where Ray's object store lies, and where it spills to when that is full."""
    lines = []
    if os.path.isdir(shared):
        total = shutil.disk_usage(shared).total / 1e9
        small = "" if total >= LITTLE_SHARED_GB else "; little: docker run --shm-size=8g gives more"
        lines.append(f"object store  {total:.1f} GB in {shared}{small}")
    spilled = spilled or tempfile.gettempdir()
    usage = shutil.disk_usage(spilled)
    used = usage.used / usage.total
    full = "" if used < SPILLED_UP_TO else "; Ray spills to no disk that is 95 % full: make room"
    lines.append(f"spilled to    {spilled}, {usage.free / 1e9:.0f} GB free{full}")
    return lines


def _devices() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return [
            f"GPU           none seen by torch {torch.__version__}: sweeps run on "
            f"{os.cpu_count()} CPU cores in float32; enough for the demo and for small models"
        ]
    lines = []
    if importlib.util.find_spec("triton") is None:
        lines.append("triton        absent: the bank's small kernels are PyTorch's, and slower")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: use another GPU"
        lines.append(
            f"GPU {index}         {facts.name}, {facts.total_memory / 2**30:.0f} GiB, {bf16}"
        )
    return lines


def _packages() -> list[str]:
    flash = importlib.util.find_spec("flash_attn") is not None
    attention = "flash_attention_2" if flash else "varlen (install flash-attn for a faster one)"
    lines = [f"attention     {attention} on a GPU, sdpa on a CPU"]
    for name, why in (
        ("bitsandbytes", "4-bit bases"),
        ("ray", "the cluster"),
        ("trl", "the trainer"),
        ("wandb", "tracking"),
    ):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "MISSING: pip install sftray again"
        lines.append(f"{name:<13} {found} ({why})")
    if (
        importlib.util.find_spec("aiohttp") is None
        or importlib.util.find_spec("opencensus") is None
    ):
        lines.append(
            "ray[default]  incomplete: without its dashboard Ray frees stopped trials late"
        )
    return lines


def _keys() -> list[str]:
    present = {True: "present", False: "absent"}
    return [
        f"{name:<13} {present[bool(os.environ.get(name))]} in the environment ({why})"
        for name, why in (
            ("HF_TOKEN", "for gated models and private datasets"),
            ("WANDB_API_KEY", "for --wandb online"),
        )
    ]
