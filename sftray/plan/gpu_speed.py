"""How fast a GPU trains a base, from what was measured on two GPUs.

Promise: the figures are those of docs/precision.md and docs/performance.md; another size lies
between its neighbours, another GPU between its ratios of peak bfloat16 rate and of memory
bandwidth, and both are called estimated. A GPU that is not in the table has no speed here.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from dataclasses import dataclass

from sftray.config import TrialConfig
from sftray.plan.effective_batch import Execution
from sftray.plan.model_shape import ModelShape


@dataclass(frozen=True)
class Speed:
    """Positions a second that one device trains, of all its trials together."""

    slowest: float
    fastest: float
    source: str
    """Where that is known from."""
    loading: float = 0.0
    """Seconds until it trains, as far as they were measured."""


@dataclass(frozen=True)
class Measured:
    """Positions a second of bases of some sizes, on one GPU."""

    gpu: str
    page: str
    at: tuple[tuple[str, float, float], ...]
    """(size, parameters that a position is multiplied with, positions a second), ascending."""

    def between(self, parameters: float) -> tuple[float, str]:
        """Positions a second, and of which size they are ("" of none that was measured)."""
        sizes = [size for _, size, _ in self.at]
        for name, size, rate in self.at:
            if abs(size / parameters - 1) <= SAME_SIZE:
                return rate, name
        place = bisect_left(sizes, parameters)
        if place == 0:  # launching kernels takes as long however small they are
            return self.at[0][2], ""
        if place == len(sizes):
            return self.at[-1][2] * sizes[-1] / parameters, ""
        (_, small, fast), (_, large, slow) = self.at[place - 1 : place + 1]
        share = math.log(parameters / small) / math.log(large / small)
        return math.exp((1 - share) * math.log(fast) + share * math.log(slow)), ""


SAME_SIZE = 0.1
"""Bases that differ by less are of one size."""
_05B, _1B, _8B = 0.494e9, 1.236e9, 7.505e9
BANK = Measured(
    "H200", "precision.md", (("0.5B", _05B, 164_926), ("1B", _1B, 94_554), ("8B", _8B, 18_215))
)
BANK_FP8 = Measured(
    "H200", "precision.md", (("0.5B", _05B, 173_662), ("1B", _1B, 117_023), ("8B", _8B, 25_926))
)
TRAIN = Measured(
    "H100", "performance.md", (("0.5B", _05B, 48_588), ("1B", _1B, 48_501), ("8B", _8B, 16_354))
)
GPUS = {
    "B200": (2250, 8.0), "H200": (989, 4.8), "GH200": (989, 4.0), "H100": (989, 3.35),
    "H100 NVL": (835, 3.9), "H100 PCIe": (756, 2.0), "A100": (312, 1.935),
    "A100-SXM4-40GB": (312, 1.555), "A100-PCIE-40GB": (312, 1.555), "L40S": (362, 0.864),
    "L4": (121, 0.3), "A10": (125, 0.6), "A10G": (70, 0.6), "A40": (150, 0.696),
    "RTX A6000": (155, 0.768), "RTX 6000 Ada": (364, 0.96), "RTX 5090": (210, 1.79),
    "RTX 4090": (165, 1.008), "RTX 3090": (71, 0.936),
}  # fmt: skip
"""(peak bfloat16 TFLOP/s without sparsity, memory bandwidth in TB/s), by NVIDIA's data sheets."""
SHORTFALL = 0.8
"""Of the measured rate, in a sweep whose micro-batches or graphs are smaller."""
RECOMPUTED, ALL_WEIGHTS, SPREAD_BASE = 3 / 4, 2 / 3, 0.9
"""What activation checkpointing, full fine-tuning and a base spread over GPUs leave of a rate."""


def gpu_speed(
    shape: ModelShape | None, trial: TrialConfig, execution: Execution, gpu: str, *, bank: bool
) -> Speed | None:
    """How fast a GPU of this name, or the GPUs of one trial, train the base; None where the GPU or
    the base is unknown."""
    name = known_gpu(gpu)
    if shape is None or name is None:
        return None
    table = TRAIN if not bank else BANK_FP8 if trial.base_precision == "fp8" else BANK
    rate, size = table.between(multiplied(shape))
    usual = trial.num_workers == 1 and trial.finetune == "lora"
    rate *= trial.num_workers * (SPREAD_BASE if trial.shard_base else 1)
    rate *= ALL_WEIGHTS if trial.finetune == "full" else 1
    rate *= RECOMPUTED if execution.activation_checkpointing else 1
    own, theirs = GPUS[name], GPUS[table.gpu]
    ratios = sorted(a / b for a, b in zip(own, theirs, strict=True))
    if name == table.gpu and size and usual and not execution.activation_checkpointing:
        source = f"measured of {size} on one {table.gpu} (docs/{table.page})"
    else:
        source = f"estimated from rates of one {table.gpu} (docs/{table.page})"
    return Speed(SHORTFALL * rate * ratios[0], rate * ratios[1], source)


def known_gpu(name: str) -> str | None:
    """The GPU of the table that the driver calls so."""
    if "Laptop" in name or "MIG" in name:
        return None
    keys = [key for key in GPUS if re.search(rf"\b{re.escape(key)}\b", name)]
    return max(keys, key=len, default=None)


def multiplied(shape: ModelShape) -> int:
    """Parameters that a position is multiplied with: the head's included, of experts those that are
    active."""
    experts = shape.layers * shape.active * 3 * shape.hidden * shape.expert_inner
    return shape.linear + experts + shape.vocabulary * shape.hidden
