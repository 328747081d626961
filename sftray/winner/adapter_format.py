"""Whether PEFT and vLLM load an adapter's folder, from its two files without loading them.

Rests on the format that PEFT 0.21 saves (`adapter_config.json`, and in `adapter_model.safetensors`
`base_model.model.<module>.lora_A.weight` [r, in] and `lora_B` [out, r]), and on what vLLM's loader
refuses (its lora/peft_helper.py, lora/lora_model.py and config/lora.py; vLLM itself is not run).

Promise: neither torch nor PEFT is imported, and no weight is read.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sftray.errors import SftrayError
from sftray.plan.model_shape import PROJECTIONS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `vllm serve --max-lora-rank` takes."""
NOT_PLAIN = ("use_dora", "modules_to_save", "lora_bias", "trainable_token_indices", "rank_pattern",
             "layer_replication", "target_parameters", "alora_invocation_tokens")  # fmt: skip
"""Settings of PEFT that make an adapter more than a pair of matrices of one rank a module."""

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True)
class Stored:
    """A tensor as the safetensors file describes it."""

    shape: tuple[int, ...]
    dtype: str
    """F32, BF16, …"""


def read_adapter(folder: Path) -> tuple[dict[str, object], dict[str, Stored]]:
    """adapter_config.json and the description of every tensor. Raises SftrayError."""
    try:
        config: dict[str, object] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {
                name: Stored(tuple(part.get_shape()), part.get_dtype())
                for name, part in slices.items()
            }
    except (OSError, ValueError, SafetensorError) as error:
        raise SftrayError(
            f"{folder}: got no adapter that can be read ({error}), must hold {CONFIG} and {WEIGHTS}"
        ) from error
    return config, tensors


def peft_problems(config: Mapping[str, object], tensors: Mapping[str, Stored]) -> list[str]:
    """What PEFT would not load, or would not load as what it is."""
    problems = []
    for name, must in (("peft_type", "LORA"), ("task_type", "CAUSAL_LM")):
        if config.get(name) != must:
            problems.append(f"{name} is {config.get(name)!r}, not {must!r}")
    rank, targets = config.get("r"), config.get("target_modules")
    if not isinstance(rank, int) or rank < 1:
        return [*problems, f"r is {rank!r}, not a whole number of at least 1"]
    if not tensors:
        return [*problems, f"{WEIGHTS} holds no tensor"]
    sides: dict[str, dict[str, Stored]] = {}
    in_parameters = bool(config.get("target_parameters"))  # experts have their ranks end to end
    for name, stored in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            problems.append(
                f"{name} is not named base_model.model.<module>.lora_A.weight or lora_B"
            )
            continue
        sides.setdefault(match["module"], {})[match["side"]] = stored
        along = stored.shape[0 if match["side"] == "A" else -1] if stored.shape else 0
        fits = along % rank == 0 < along if in_parameters else along == rank
        if len(stored.shape) != 2 or not fits:
            problems.append(f"{name} has shape {list(stored.shape)}, not rank {rank}")
        if stored.dtype not in ("F32", "BF16", "F16"):
            problems.append(f"{name} is {stored.dtype}, not a float")
    for module, pair in sides.items():
        if len(pair) != 2:
            problems.append(f"{module} has lora_{next(iter(pair))} alone")
        names = targets if isinstance(targets, list) and not in_parameters else [module]
        if not any(f".{module}".endswith(f".{name}") for name in names):
            problems.append(f"{module} is not among target_modules {sorted(names)}")
    return problems


def vllm_problems(config: Mapping[str, object], tensors: Mapping[str, Stored]) -> list[str]:
    """What vLLM's LoRA loader refuses; only modules of a decoder's layers are known to it here."""
    problems = peft_problems(config, tensors)
    for name in NOT_PLAIN:
        if config.get(name):
            problems.append(f"{name} is set, which vLLM does not load")
    if config.get("bias", "none") != "none":
        problems.append(f"bias is {config['bias']!r}, and vLLM loads adapters without one")
    rank = config.get("r")
    if isinstance(rank, int) and rank > MAX_LORA_RANKS[-1]:
        problems.append(f"rank {rank} is above vLLM's largest, {MAX_LORA_RANKS[-1]}")
    modules = {match["module"] for name in tensors if (match := _NAME.fullmatch(name))}
    other = sorted({module.rpartition(".")[2] for module in modules} - set(PROJECTIONS))
    if other:
        problems.append(f"{', '.join(other)} are not {', '.join(PROJECTIONS)}")
    return problems


def max_lora_rank(rank: int) -> int:
    """The smallest --max-lora-rank that takes a rank, since it is memory that vLLM sets aside; the
    rank itself where none does."""
    return min((most for most in MAX_LORA_RANKS if most >= rank), default=rank)


def vllm_command(folder: str, model: str, rank: int, name: str) -> str:
    """How vLLM serves the adapter of `model` in `folder` as `name`."""
    words = [
        "vllm", "serve", model, "--enable-lora",
        "--max-lora-rank", str(max_lora_rank(rank)), "--lora-modules", f"{name}={folder}",
        "--chat-template", f"{folder}/chat_template.jinja",
    ]  # fmt: skip
    return shlex.join(words)
