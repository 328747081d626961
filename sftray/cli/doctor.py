"""What this machine can do, a line a finding: what is here, what it means for a sweep, the fix.

Promise: a key is reported as present or absent, never its value. Price: 6 s, most of it torch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sftray.cluster.gpus import smallest_gpu
from sftray.storage.paths import nearest_there

FREE_DISK_GB = 20.0
"""Less than this fills up with the base's download and packs."""
OBJECT_STORE_GB = 2.0
"""Less shared memory than this and Ray's object store spills to the disk, or refuses to start."""
SPILLED_UP_TO = 0.95
"""Of a disk; Ray spills to none that is fuller (RAY_local_fs_capacity_threshold)."""
HUB_SECONDS = 3.0
MARKS = {"ok": " ", "note": "·", "problem": "!"}
WHAT_FOR = {
    "bitsandbytes": "4-bit bases",
    "ray": "the cluster",
    "trl": "the trainer",
    "peft": "adapters",
    "optuna": "the search",
    "wandb": "tracking",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    found: str
    means: str = ""
    """For a sweep."""
    fix: str = ""
    level: str = "ok"
    """ok; note: works, could be better; problem: sweeps fail or are wrong."""


def findings(storage: str = ".") -> list[Finding]:
    """All of them, for sweeps that are kept in the folder `storage`."""
    from huggingface_hub import constants

    return [
        Finding("python", sys.version.split()[0]),
        *_devices(),
        *_packages(),
        _four_bits(),
        *_ray(),
        _disk("disk here", storage),
        _disk("Hub's cache", os.environ.get("HF_HOME", "~/.cache/huggingface")),
        *_shared_memory(),
        spilled(tempfile.gettempdir()),
        _hub(constants.ENDPOINT, constants.is_offline_mode()),
        *_keys(),
    ]


def as_text(found: list[Finding]) -> str:
    """For a person: `!` marks problems, `·` what could be better."""
    lines = []
    for one in found:
        means = f": {one.means}" if one.means else ""
        lines.append(f"{MARKS[one.level]} {one.name:<14} {one.found}{means}")
        if one.fix:
            lines.append(f"{'':17}→ {one.fix}")
    bad = sum(one.level == "problem" for one in found)
    lines.append(f"\n{bad} problem{'s' * (bad != 1)}" if bad else "\nready")
    return "\n".join(lines)


def _devices() -> Iterator[Finding]:
    import torch

    cores, version = f"{os.cpu_count()} CPU cores", torch.__version__
    if not torch.cuda.is_available() and smallest_gpu() is None:
        means = f"sweeps run on {cores} in float32: enough for the demo and small models"
        yield Finding("GPU", f"none seen by torch {version}", means)
        return
    if not torch.cuda.is_available():
        found = f"the driver has one, torch {version} does not see it"
        fix = "install a torch with CUDA as new as the driver allows (pytorch.org), or look at "
        fix += "CUDA_VISIBLE_DEVICES"
        yield Finding("GPU", found, f"sweeps would run on {cores}", fix, "problem")
        return
    yield Finding("driver", _driver(), f"torch {version}, CUDA {torch.version.cuda}")
    if importlib.util.find_spec("triton") is None:
        means = "the bank's small kernels are PyTorch's, and slower"
        yield Finding("triton", "absent", means, "pip install triton", "note")
    no_bf16 = (
        "no bfloat16, in which bases are computed",
        "use a GPU of compute capability 8.0 or newer (A100, L4, RTX 30 and on)",
        "problem",
    )
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Finding(f"GPU {index}", found, *(("bfloat16",) if able else no_bf16))


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.splitlines()[0].strip()
    except (FileNotFoundError, subprocess.SubprocessError, IndexError):
        return "unknown to nvidia-smi"


def _packages() -> Iterator[Finding]:
    if importlib.util.find_spec("flash_attn") is not None:
        yield Finding("attention", "flash_attention_2 on a GPU, sdpa on a CPU")
    else:
        fix = "on a GPU pip install 'sftray[gpu]' for FlashAttention, which is faster"
        means = "exact as well; bases with sliding windows take sdpa on a GPU, too"
        yield Finding("attention", "varlen on a GPU, sdpa on a CPU", means, fix, "note")
    try:
        requirements = importlib.metadata.requires("sftray") or []
    except importlib.metadata.PackageNotFoundError:
        found, means = "not installed, run from its folder", "its pins are not known here"
        yield Finding("sftray", found, means, "pip install -e .", "note")
        return
    pins = [requirement.partition(";") for requirement in requirements]
    yield from (_package(pin.strip()) for pin, _, condition in pins if "extra" not in condition)


def _package(pin: str) -> Finding:
    """Whether a package is as new as the pin says, as in "peft>=0.21,<1"."""
    from packaging.requirements import Requirement

    wanted, fix = Requirement(pin), f"pip install '{pin}'"
    what_for = WHAT_FOR.get(wanted.name, "")
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(wanted.name, "absent", what_for, fix, "problem")
    if wanted.specifier.contains(version, prereleases=True):
        return Finding(wanted.name, version, what_for)
    return Finding(wanted.name, version, f"sftray was made with {wanted.specifier}", fix, "problem")


def _four_bits() -> Finding:
    """Whether bitsandbytes quantises here: its library is made for CUDA versions and processors."""
    import torch

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # notes to developers
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        from bitsandbytes.functional import quantize_4bit

        quantize_4bit(torch.ones(64, device=device), quant_type="nf4")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        means = "no base can be held in 4 bits"
        fix = "pip install -U bitsandbytes, or set trial.base_precision=bf16"
        return Finding("4 bits", f"fail on {device} ({error})", means, fix, "problem")
    means = "" if device == "cuda" else "slowly: for a small base take trial.base_precision=fp32"
    return Finding("4 bits", f"work on {device}", means)


def _ray() -> Iterator[Finding]:
    absent = [name for name in ("aiohttp", "opencensus") if importlib.util.find_spec(name) is None]
    if absent:
        means = "without its dashboard Ray frees stopped trials late"
        found = f"incomplete ({', '.join(absent)})"
        yield Finding("ray[default]", found, means, "pip install 'ray[default]'", "problem")
    if address := os.environ.get("RAY_ADDRESS"):
        yield Finding("RAY_ADDRESS", address, "sweeps join this cluster; `ray status` shows it")
    if os.environ.get("RAY_AUTH_MODE") not in (None, "token"):
        means = "who reaches the cluster's ports runs code on it"
        fix = "unset it, or set it to token"
        yield Finding("RAY_AUTH_MODE", os.environ["RAY_AUTH_MODE"], means, fix, "note")


def _disk(name: str, folder: str) -> Finding:
    """Free room where a folder is, or will be."""
    there = nearest_there(folder)
    free = shutil.disk_usage(there).free / 1e9
    if not os.access(there, os.W_OK):
        return Finding(name, f"{there} cannot be written", "", "name another folder", "problem")
    if free >= FREE_DISK_GB:
        return Finding(name, f"{free:.0f} GB free")
    means = "bases and packs may not fit; --plan shows how much a sweep takes"
    return Finding(name, f"{free:.0f} GB free", means, f"free some on the disk of {there}", "note")


def _shared_memory() -> Iterator[Finding]:
    if not Path("/dev/shm").is_dir():
        return
    size = shutil.disk_usage("/dev/shm").total / 1e9
    if size >= OBJECT_STORE_GB:
        yield Finding("/dev/shm", f"{size:.0f} GB")
        return
    means = "Ray's object store goes to the disk, and building packs is slow"
    fix = "in a container: docker run --shm-size=8g, or an emptyDir of medium Memory"
    yield Finding("/dev/shm", f"{size:.2f} GB", means, fix, "note")


def spilled(folder: str) -> Finding:
    """Where Ray's object store goes when it is full."""
    usage = shutil.disk_usage(folder)
    found = f"{folder}, {usage.free / 1e9:.0f} GB free"
    if usage.used / usage.total < SPILLED_UP_TO:
        return Finding("spilled to", found)
    means = "a full object store has nowhere to go: Ray spills to no disk that is 95 % full"
    return Finding("spilled to", found, means, "make room there, or set TMPDIR", "problem")


def _hub(endpoint: str, offline: bool) -> Finding:
    from huggingface_hub import get_session

    from sftray.storage.hub_errors import HUB_ERRORS, refusal

    address = re.sub(r"//[^/@]*@", "//", endpoint)
    if offline:
        means = "bases and data come from local folders and the cache alone"
        return Finding("Hub", "offline, as HF_HUB_OFFLINE says", means)
    try:
        get_session().head(endpoint, timeout=HUB_SECONDS)
    except HUB_ERRORS as error:
        means = "fine, if base and data are local or in the cache"
        found = f"{address}: {refusal(error).partition(';')[0]}"
        return Finding("Hub", found, means, level="note")
    return Finding("Hub", f"{address} answers")


def _keys() -> list[Finding]:
    from huggingface_hub import get_token

    from sftray.views.tracking.mirror_processes import key_present

    said = {True: "present", False: "absent"}
    hub = "for gated models, private datasets and `sftray push`"
    return [
        Finding("HF_TOKEN", said[bool(get_token())], hub),
        Finding("WANDB_API_KEY", said[key_present()], "for --wandb online"),
    ]
