"""Where the time of a bank's step goes, by kind of kernel: `bank.py --profile`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

GROUPS = {
    "attention": ("flash", "fmha", "attention", "softmax_warp"),
    "norms": ("rms_norm", "head_norm"),
    "SwiGLU": ("_glu",),
    "rope": ("rope",),
    "cross-entropy": ("cross_entropy",),
    "optimizer": ("adamw", "square_sums"),
    "dequantise": ("dequantize",),
    "GEMM": ("nvjet", "gemm", "cutlass", "xmma", "splitk", "cublas"),
    "additions": ("add",),
    "copies": ("memcpy", "memset", "copy", "fill", "cat"),
}
"""Parts of kernels' names, lower case; the first group that has one counts."""
LORA = "LoRA bmm"
BATCHED = ("aten::bmm", "aten::baddbmm", "aten::baddbmm_")
"""The operations that only LoRA uses: they tell its products from the base's."""
LONGEST = 8
"""Kernels shown by themselves."""


def kernel_table(eager: Callable[[], Any], replay: Callable[[], Any]) -> list[str]:
    """Lines with the milliseconds of each group in an eager step and in a replayed one.

    Both have been warmed up. In a replay no operation is known, so a kernel counts for that which
    it served most in the eager step.
    """
    events = _profile(eager, [ProfilerActivity.CPU, ProfilerActivity.CUDA])
    batched, others = Counter[str](), Counter[str]()
    for event in events:
        for kernel in getattr(event, "kernels", ()):
            side = batched if event.name in BATCHED else others
            side[kernel.name] += kernel.duration
    lora = {name for name in batched if batched[name] > others[name]}
    before = _kernels(events)
    after = _kernels(_profile(replay, [ProfilerActivity.CUDA]))
    lines = [f"{'kernels':14}{'eager ms':>10}{'launches':>10}{'replay ms':>11}{'launches':>10}"]
    for group in [*GROUPS, LORA, "other", "all"]:
        lines.append(f"{group:14}{_sum(before, group, lora, 10)}{_sum(after, group, lora, 11)}")
    lines.append("longest in the replay:")
    for name, (micros, launches) in sorted(after.items(), key=lambda k: -k[1][0])[:LONGEST]:
        lines.append(f"{micros / 1e3:10.2f} ms ×{launches:5d}  {_group(name, lora):14} {name[:80]}")
    return lines


def _profile(step: Callable[[], Any], activities: list[ProfilerActivity]) -> Any:
    torch.cuda.synchronize()
    with profile(activities=activities) as found:
        step()
        torch.cuda.synchronize()
    return found.events()


def _kernels(events: Any) -> dict[str, tuple[float, int]]:
    """Microseconds and launches of each kernel."""
    found: dict[str, tuple[float, int]] = {}
    for event in events:
        if str(event.device_type).endswith("CUDA"):
            micros, launches = found.get(event.name, (0.0, 0))
            found[event.name] = (micros + event.time_range.elapsed_us(), launches + 1)
    return found


def _sum(kernels: dict[str, tuple[float, int]], group: str, lora: set[str], width: int) -> str:
    mine = [times for name, times in kernels.items() if group in ("all", _group(name, lora))]
    micros, launches = sum(t[0] for t in mine), sum(t[1] for t in mine)
    return f"{micros / 1e3:{width}.2f}{launches:10d}"


def _group(kernel: str, lora: set[str]) -> str:
    if kernel in lora:
        return LORA
    name = kernel.lower()
    return next((g for g, parts in GROUPS.items() if any(part in name for part in parts)), "other")
