"""Products in FP8 beside bf16 at the shapes of a base, with and without fast accumulation, and what
rounding costs: in kernels of its own, and in those that write what is rounded.

    python benchmarks/fp8_products.py
    python benchmarks/fp8_products.py --shape tiny --tokens 64    # on a CPU: errors, by the twins

An error is that of a row, of its size, against a float32 product of the same codes, the largest of
all rows. Rows are normal numbers. Times are the median of 20, one part after the other; short ones
hold their launch.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from console import argument_parser, say
from shapes import model_config
from timing import WARM_UP, Clock, device_name
from torch import Tensor

from sftray.trainers.bank import torch_ops
from sftray.trainers.bank.backend import fastest
from sftray.trainers.bank.frozen_base import Codes
from sftray.trial.eval_loss import default_device

REPEATS = 20


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--shape", default="8B")
    parser.add_argument("--tokens", type=int, default=8192)
    options = parser.parse_args()
    device = default_device()
    config = model_config(options.shape)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    hidden, inner = config.hidden_size, config.intermediate_size
    say(f"{options.shape}, {options.tokens} tokens ({device_name(device)})")
    sides = {
        "qkv": (hidden, queries + 2 * keys),
        "out": (queries, hidden),
        "gate_up": (hidden, 2 * inner),
        "down": (inner, hidden),
    }
    for name, (inputs, outputs) in sides.items():
        _products(name, inputs, outputs, options.tokens, device)
    _rounding(hidden, inner, options.tokens, device)


def _products(name: str, inputs: int, outputs: int, tokens: int, device: torch.device) -> None:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    ops: Any = fastest(device)
    weight = _normal(outputs, inputs, dtype, device) * 0.02
    codes = Codes.of(weight)
    for direction, width in (("forward", inputs), ("backward", outputs)):
        x = _normal(tokens, width, dtype, device)
        dense = weight.T if direction == "forward" else weight
        if direction == "forward":
            left, right = ops.quantise(x), (codes.forward_OI, codes.scale_1O)
        else:
            left = ops.quantise(x, codes.factor_1O)
            right = codes.backward_IO, codes.ones_1I
        exact = torch_ops.scaled_product(left, right, None, torch.float32)
        ways: dict[str, Callable[[], Tensor]] = {
            "bf16": lambda x=x, dense=dense: x @ dense,
            "fp8": lambda left=left, right=right: ops.scaled_product(left, right, None, dtype),
        }
        for fast in (True, False) if device.type == "cuda" else ():
            ways[f"fp8, {'fast' if fast else 'exact'} sums"] = functools.partial(
                torch._scaled_mm,
                left[0],
                right[0].T,
                scale_a=left[1],
                scale_b=right[1],
                out_dtype=dtype,
                use_fast_accum=fast,
            )
        for way, product in ways.items():
            seconds = _seconds(product, device)
            rate = 2 * tokens * inputs * outputs / seconds / 1e12
            off = (product().float() - exact).norm(dim=1) / exact.norm(dim=1)
            say(
                f"  {name:8}{direction:9}{way:17}{seconds * 1e3:8.3f} ms {rate:7.0f} TFLOP/s  "
                f"error {float(off.max()):.1e}"
            )


def _rounding(hidden: int, inner: int, tokens: int, device: torch.device) -> None:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    ops: Any = fastest(device)
    x, weight = _normal(tokens, hidden, dtype, device), torch.ones(hidden, device=device)
    gate_up, da = (_normal(tokens, n, dtype, device) for n in (2 * inner, inner))
    factor = torch.ones(1, 2 * inner, dtype=torch.bfloat16, device=device)
    size = dtype.itemsize
    parts: dict[str, tuple[Callable[[], object], float]] = {
        "quantise": (lambda: ops.quantise(x), (size + 1) * hidden),
        "norm": (lambda: ops.rms_norm(x, weight, 1e-6), 2 * size * hidden),
        "norm, rounded": (
            lambda: ops.rms_norm_rounded(x, weight, 1e-6),
            (2 * size + 1) * hidden,
        ),
        "glu": (lambda: ops.glu(gate_up, gelu=False), 3 * size * inner),
        "glu, rounded": (
            lambda: ops.glu_rounded(gate_up, gelu=False),
            (3 * size + 1) * inner,
        ),
        "glu backward": (lambda: ops.glu_backward_(gate_up, da, gelu=False), 6 * size * inner),
        "glu backward, rounded": (
            lambda: ops.glu_backward_rounded_(gate_up, da, factor, gelu=False),
            (6 * size + 2) * inner,
        ),
    }
    for name, (work, moved) in parts.items():
        seconds = _seconds(work, device)
        rate = moved * tokens / seconds / 1e12
        say(f"  {name:24}{seconds * 1e3:8.3f} ms {rate:6.2f} TB/s")


def _normal(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(rows, width, device=device).to(dtype)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    clock = Clock(device)
    for _ in range(REPEATS + WARM_UP):
        work()
        clock.tick()
    return statistics.median(clock.seconds()[WARM_UP - 1 :])


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
