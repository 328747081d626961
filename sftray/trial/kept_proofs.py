"""Proofs that this machine has made before: a second sweep on a base pays nothing.

Promise: a proof counts again only for the same weights, configuration, precision and row length,
the same libraries and code of ours, on the same kind of device. Price: 48 numbers of each tensor
are read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sftray.config import TrialConfig
from sftray.storage.paths import node_cache
from sftray.trial.attention import Attention, NotComputedError, use_attention
from sftray.trial.equality import Equality
from sftray.trial.proof import Proof, prove

SAMPLED = 16
"""Numbers of a tensor that are read at its beginning, in its middle and at its end."""
PACKAGES = ("torch", "transformers", "bitsandbytes", "flash_attn", "flash_attn_3", "kernels")
PROVED_CODE = ("trial", "trainers/bank")
"""Folders of sftray whose code a proof is of."""


def prove_once(model: PreTrainedModel, trial: TrialConfig, max_length: int) -> Proof:
    """`proof.prove`, or what it found on this machine before."""
    key = proof_key(model, trial, max_length)
    if (kept := read(key)) is not None:
        try:
            attention: Any = kept["attention"]
            equality, isolation = found_in(kept)
            proof = Proof(Attention(**attention), equality, isolation)
            use_attention(model, proof.attention)
            return proof
        except (KeyError, TypeError, NotComputedError):
            pass  # of another version
    proof = prove(model, trial, max_length)
    write(key, asdict(proof))
    return proof


def proof_key(model: PreTrainedModel, trial: TrialConfig, max_length: int, of: str = "") -> str:
    """What a proof is of; `of`: what else computes the model."""
    device = model.device
    name = platform.processor() + torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    parts = [of, name, str(max_length), str(trial.attention), trial.base_precision, trial.finetune]
    parts += [model.config.to_json_string(), _weights(model), _code()]
    parts += [f"{package} {_version(package)}" for package in PACKAGES]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def read(key: str) -> dict[str, object] | None:
    """A kept proof; None where there is none."""
    try:
        found = json.loads(_path(key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def found_in(kept: dict[str, object]) -> tuple[Equality, float]:
    """What a kept proof found: equality and isolation. Raises KeyError or TypeError where it is of
    another version."""
    equality: Any = kept["equality"]
    isolation: Any = kept["isolation"]
    return Equality(**equality), isolation


def write(key: str, proof: dict[str, object]) -> None:
    """Keep a proof; where that cannot be, it is made again."""
    path = _path(key)
    new = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(proof), encoding="utf-8")
        new.replace(path)
    except OSError:
        pass


def _path(key: str) -> Path:
    return node_cache() / "proofs" / f"{key}.json"


@torch.no_grad()
def _weights(model: PreTrainedModel) -> str:
    """A digest of every tensor's name, type and shape, and of some of its numbers."""
    digest = hashlib.sha256()
    parts: dict[torch.device, list[torch.Tensor]] = defaultdict(list)  # some of 4 bits' on the CPU
    for name, tensor in model.state_dict(keep_vars=True).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat, middle = tensor.detach().flatten(), tensor.numel() // 2
        for part in (flat[:SAMPLED], flat[middle : middle + SAMPLED], flat[-SAMPLED:]):
            parts[part.device].append(part.double())
    for of_device in parts.values():
        digest.update(torch.cat(of_device).cpu().numpy().tobytes())
    return digest.hexdigest()


def _code() -> str:
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for folder in PROVED_CODE:
        for path in sorted((root / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
