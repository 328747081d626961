"""What a bank is built for: how many slots, how many rows, what it keeps in memory.

Promise: arithmetic on the base's config.json and the sweep, without torch, so that `--plan` shows
what a run will do. The memory is that of the tensors, plus a share for what an allocator wastes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sftray.config import SweepConfig
from sftray.config.points import field_values, largest_value
from sftray.plan.effective_batch import Execution, largest_divisor
from sftray.plan.layer_description import FAMILIES
from sftray.plan.memory import TRAINED_BYTES, Memory, base_bytes, element_bytes
from sftray.plan.model_shape import ModelShape, adapted, adapter_parameters
from sftray.plan.proof_memory import proof_bytes
from sftray.plan.trainer_choice import adapted_by_any
from sftray.plan.trial_plan import trials_at_once
from sftray.storage.model_files import BaseConfig

TOKENS_ON_GPU = 8192
"""Tokens of a micro-step that keep a GPU busy: beyond it, more slots make nothing faster."""
TOKENS_ON_CPU = 2048
LOGITS_AT_ONCE = 2**29
"""Elements of the largest logits tensor: 1 GiB in bfloat16."""


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
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    """All that any trial adapts; where one has no adapter, its rank is 0."""

    @property
    def execution(self) -> Execution:
        """How its trials run."""
        return Execution(self.micro_batch_size, self.activation_checkpointing, self.resident)


def choose_settings(
    sweep: SweepConfig, base: BaseConfig, *, memory: float | None, banks: int = 1
) -> BankSettings | None:
    """The fastest settings that fit `memory` bytes of GPU memory (None: a CPU); None if none do.

    `base` is the base's config.json, `banks` the number of GPUs that share the trials.
    """
    length = sweep.data.max_length
    tokens = TOKENS_ON_CPU if memory is None else TOKENS_ON_GPU
    share = math.ceil(trials_at_once(sweep) / banks)
    slots = sweep.bank_slots or max(1, min(share, max(2, tokens // length)))
    micro = _micro_batch_size(sweep, max(1, tokens // (slots * length)))
    wanted = BankSettings(
        slots=slots,
        micro_batch_size=micro,
        lora_r=int(largest_value(sweep, "lora_r")),
        dropout=largest_value(sweep, "lora_dropout") > 0,
        resident=True,
        activation_checkpointing=sweep.trial.activation_checkpointing or False,
        memory_gb=0.0,
        lora_target_modules=adapted_by_any(sweep),
    )
    if memory is None:
        return wanted
    while True:
        for candidate in _from_fastest(wanted, sweep):
            needed = bank_memory(candidate, sweep, base)
            if needed.fits(memory):
                return replace(candidate, memory_gb=needed.total / 2**30)
        if wanted.micro_batch_size > 1 and sweep.trial.micro_batch_size is None:
            smaller = _micro_batch_size(sweep, wanted.micro_batch_size // 2)
            wanted = replace(wanted, micro_batch_size=smaller)
        elif wanted.slots > 1 and sweep.bank_slots is None:
            wanted = replace(wanted, slots=wanted.slots // 2)
        else:
            return None


def _from_fastest(wanted: BankSettings, sweep: SweepConfig) -> list[BankSettings]:
    """Dequantising in every pass costs a few per cent, running layers again a third."""
    ways = []
    for checkpointing in dict.fromkeys([wanted.activation_checkpointing, True]):
        if checkpointing and sweep.trial.activation_checkpointing is False:
            continue
        for resident in (True, False) if sweep.trial.in_4_bits else (True,):
            ways.append(replace(wanted, activation_checkpointing=checkpointing, resident=resident))
    return ways


def _micro_batch_size(sweep: SweepConfig, most: int) -> int:
    """The largest number of rows, at most `most`, that divides every effective batch size."""
    if sweep.trial.micro_batch_size is not None:
        return sweep.trial.micro_batch_size
    batches = field_values(sweep, "effective_batch_size")
    assert batches is not None  # whole numbers are no continuous range
    common = math.gcd(*[int(batch) for batch in batches])
    return largest_divisor(common, most)


def bank_memory(settings: BankSettings, sweep: SweepConfig, base: BaseConfig) -> Memory:
    """The peak of a bank's micro-step on a GPU."""
    shape, trial = ModelShape.of(base), sweep.trial
    assert shape is not None  # the bank's families are dense
    size = element_bytes(trial.base_precision)
    rank = -(-settings.lora_r // 8) * 8
    names = adapted(settings.lora_target_modules)
    trained = settings.slots * adapter_parameters(shape, names, rank)
    tokens = settings.slots * settings.micro_batch_size * sweep.data.max_length
    heads = shape.queries + 2 * shape.keys
    kept = 4 * shape.hidden + heads + shape.queries + 2 * shape.inner + len(names) * rank
    kept += heads if shape.head_norms else 0
    norms = FAMILIES[base["model_type"]].norms  # what they were given is kept, too
    kept += shape.hidden * sum(map(bool, (norms.after_attention, norms.after_mlp)))
    layer = size * kept + 4 * (2 + shape.heads)
    passing = size * (3 * shape.inner + 3 * shape.hidden)
    if trial.base_precision == "fp8":
        passing += 2 * shape.inner  # the codes of a gradient
    if settings.activation_checkpointing:
        activations = tokens * (shape.layers * size * shape.hidden + layer + passing)
    else:
        activations = tokens * (shape.layers * layer + passing)
    logits = size * min(LOGITS_AT_ONCE, tokens * shape.vocabulary)
    logits += 4 * size * tokens * shape.hidden
    return Memory(
        base=base_bytes(shape, trial.base_precision, resident=settings.resident),
        adapters=float(trained * (TRAINED_BYTES + size)),
        activations=float(activations),
        logits=float(logits),
        proof=proof_bytes(shape, size, sweep.data.max_length),
    )
