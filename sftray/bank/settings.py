"""What a bank is built for: how many slots, how many rows, what it keeps in memory.

Promise: arithmetic on the base's config.json and the sweep, without torch, so that `--plan` shows
what a run will do. The memory is that of the tensors, plus a share for what an allocator wastes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sftray.bank.support import PROJECTIONS, target_projections
from sftray.budget import field_values
from sftray.config import SweepConfig
from sftray.spaces import Uniform

TOKENS_ON_GPU = 8192
"""Tokens of a micro-step that keep a GPU busy: beyond it, more slots make nothing faster."""
TOKENS_ON_CPU = 2048
FREE = 0.92
"""Share of a GPU's memory that tensors may take."""
CONTEXT = 1.5e9
"""Bytes of CUDA itself and of the libraries' workspaces."""
LOGITS_AT_ONCE = 2**29
"""Elements of the largest logits tensor: 1 GiB in bfloat16."""
NF4_BYTES = 0.516
"""Bytes a parameter in NF4 with double quantisation (Dettmers et al. 2023)."""


@dataclass(frozen=True)
class BankSettings:
    """What a bank is built for."""

    slots: int
    """K, the trials it trains at once."""
    micro_batch_size: int
    """Packed rows a slot holds at once; divides every trial's effective batch size."""
    lora_r: int
    """The largest rank of a trial."""
    dropout: bool
    """Whether any trial has LoRA dropout."""
    resident: bool
    """A 4-bit base is dequantised once, not in every pass."""
    activation_checkpointing: bool
    """Only the input of each layer is kept, and run again in the backward pass."""
    memory_gb: float
    """GiB of GPU memory that this will take, estimated; 0 on a CPU."""


def choose_settings(
    sweep: SweepConfig, base: Mapping[str, Any], *, memory: float | None, banks: int = 1
) -> BankSettings | None:
    """The fastest settings that fit `memory` bytes of GPU memory (None: a CPU); None if none do.

    `base` is the base's config.json, `banks` the number of GPUs that share the trials.
    """
    length = sweep.data.max_length
    tokens = TOKENS_ON_CPU if memory is None else TOKENS_ON_GPU
    share = math.ceil(sweep.total_trials / banks)
    slots = sweep.bank_slots or max(1, min(share, max(2, tokens // length)))
    micro = _micro_batch_size(sweep, max(1, tokens // (slots * length)))
    wanted = BankSettings(
        slots=slots,
        micro_batch_size=micro,
        lora_r=int(_largest(sweep, "lora_r")),
        dropout=_largest(sweep, "lora_dropout") > 0,
        resident=True,
        activation_checkpointing=sweep.trial.activation_checkpointing or False,
        memory_gb=0.0,
    )
    if memory is None:
        return wanted
    while True:
        for candidate in _from_fastest(wanted, sweep):
            needed = _bytes(candidate, sweep, base)
            if needed <= FREE * memory:
                return replace(candidate, memory_gb=needed / 2**30)
        if wanted.micro_batch_size > 1 and sweep.trial.micro_batch_size is None:
            smaller = _micro_batch_size(sweep, wanted.micro_batch_size // 2)
            wanted = replace(wanted, micro_batch_size=smaller)
        elif wanted.slots > 1 and sweep.bank_slots is None:
            wanted = replace(wanted, slots=wanted.slots // 2)
        else:
            return None


def cheaper(settings: BankSettings, sweep: SweepConfig) -> BankSettings | None:
    """The next settings to try after these have run out of memory; None if there are none.

    The micro-batch stays: the trials' plans rest on it.
    """
    may_choose = sweep.trial.activation_checkpointing is None
    if settings.resident and sweep.trial.base_precision == "nf4":
        return replace(settings, resident=False)
    if may_choose and not settings.activation_checkpointing:
        return replace(settings, activation_checkpointing=True)
    if settings.slots > 1:
        return replace(settings, slots=settings.slots // 2)
    return None


def _from_fastest(wanted: BankSettings, sweep: SweepConfig) -> list[BankSettings]:
    """Dequantising in every pass costs a few per cent, running layers again a third."""
    found = []
    for checkpointing in dict.fromkeys([wanted.activation_checkpointing, True]):
        if checkpointing and sweep.trial.activation_checkpointing is False:
            continue
        for resident in (True, False) if sweep.trial.base_precision == "nf4" else (True,):
            found.append(replace(wanted, activation_checkpointing=checkpointing, resident=resident))
    return found


def _micro_batch_size(sweep: SweepConfig, most: int) -> int:
    """The largest number of rows, at most `most`, that divides every effective batch size."""
    if sweep.trial.micro_batch_size is not None:
        return sweep.trial.micro_batch_size
    batches = field_values(sweep, "effective_batch_size")
    assert batches is not None  # whole numbers are no continuous range
    common = math.gcd(*[int(batch) for batch in batches])
    return max(rows for rows in range(1, min(most, common) + 1) if common % rows == 0)


def _largest(sweep: SweepConfig, name: str) -> float:
    values = field_values(sweep, name)
    if values is not None:
        return max(values)
    space = sweep.search_space[name]
    assert isinstance(space, Uniform)
    return space.high


def _bytes(settings: BankSettings, sweep: SweepConfig, base: Mapping[str, Any]) -> float:
    """GPU memory at the peak of a micro-step, in bytes."""
    size = 4 if sweep.trial.base_precision == "fp32" else 2
    hidden, layers = base["hidden_size"], base["num_hidden_layers"]
    inputs, outputs = _widths(base)
    weights = {name: inputs[name] * outputs[name] for name in PROJECTIONS}
    quantised = sweep.trial.base_precision == "nf4" and not settings.resident
    parameters = layers * sum(weights.values())
    held = parameters * (NF4_BYTES if quantised else size)
    if quantised:
        held += size * 2 * weights["gate_proj"]  # room to dequantise the largest group
    tied = base.get("tie_word_embeddings", False)
    held += base["vocab_size"] * hidden * size * (1 if tied else 2)

    targets = target_projections(sweep.trial.lora_target_modules) or PROJECTIONS
    rank = -(-settings.lora_r // 8) * 8
    adapter = layers * rank * sum(inputs[name] + outputs[name] for name in targets)
    adapters = settings.slots * adapter * (4 * 4 + size)

    tokens = settings.slots * settings.micro_batch_size * sweep.data.max_length
    heads = outputs["q_proj"] + 2 * outputs["k_proj"]
    normed_heads = heads if base["model_type"] == "qwen3" else 0
    inner = base["intermediate_size"]
    kept = 4 * hidden + heads + normed_heads + outputs["q_proj"] + 2 * inner + len(targets) * rank
    kept_bytes = size * kept + 4 * (2 + base["num_attention_heads"])
    passing = size * (3 * inner + 3 * hidden)
    if settings.activation_checkpointing:
        activations = tokens * (layers * size * hidden + kept_bytes + passing)
    else:
        activations = tokens * (layers * kept_bytes + passing)
    logits = size * min(LOGITS_AT_ONCE, tokens * base["vocab_size"]) + 4 * size * tokens * hidden
    return float(CONTEXT + held + adapters + activations + logits)


def _widths(base: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Input and output width of every projection."""
    hidden, inner = base["hidden_size"], base["intermediate_size"]
    head = base.get("head_dim") or hidden // base["num_attention_heads"]
    queries = head * base["num_attention_heads"]
    keys = head * (base.get("num_key_value_heads") or base["num_attention_heads"])
    inputs = dict.fromkeys(PROJECTIONS, hidden) | {"o_proj": queries, "down_proj": inner}
    outputs = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "o_proj": hidden}
    outputs |= {"gate_proj": inner, "up_proj": inner, "down_proj": hidden}
    return inputs, outputs
