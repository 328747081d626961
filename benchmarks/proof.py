"""What the proof of a base costs, and what it is worth.

python benchmarks/proof.py --shapes 8B 1B 0.5B          seconds and memory, random weights
python benchmarks/proof.py --model DIR --data FILE      the base's eval loss on every attention,
                                                        beside plain transformers, one
                                                        conversation at a time
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import replace
from typing import Any

import torch
from console import argument_parser, say
from shapes import SHAPES, packs_of, random_model
from torch.nn.functional import cross_entropy

from sftray.config import DataConfig, TrialConfig
from sftray.trial.attention import possible_attentions
from sftray.trial.base_model import compute_dtype, computing_as, load_base
from sftray.trial.equality import Reference
from sftray.trial.eval_loss import packed_eval_loss
from sftray.trial.gpu_memory import free_memory
from sftray.trial.kept_proofs import prove_once
from sftray.trial.proof import first_that_passes

GIB = 2**30


def cost(shape: str, device: torch.device) -> str:
    """Seconds and memory of the proof on a base of a shape in NF4, the first and the second time in
    a process, and where a sweep before has kept it."""
    trial = TrialConfig(shape)
    candidates = possible_attentions(trial, device)
    model = random_model(shape, device, candidates[-1]).eval()
    computing = functools.partial(computing_as, trial, device)
    times, memory, proof = [], 0.0, None
    for _ in range(2):
        free_memory()
        before = _reset(device)
        started = time.perf_counter()
        reference = Reference(model, 2048, computing)
        proof, refused = first_that_passes(model, candidates, reference, computing)
        _wait(device)
        times.append(time.perf_counter() - started)
        memory = (torch.cuda.max_memory_allocated() - before) / GIB if before else math.nan
    assert proof is not None, refused
    prove_once(model, trial, 2048)
    started = time.perf_counter()
    prove_once(model, trial, 2048)
    kept = time.perf_counter() - started
    return (
        f"{shape:5} {times[0]:6.2f} s, again {times[1]:6.2f} s, kept {kept:6.2f} s  "
        f"{memory:5.2f} GiB  "
        f"{proof.attention.name}: {proof.equality.text()}"
        + "".join(f"\n      not {reason}" for reason in refused)
    )


def losses(trial: TrialConfig, data: DataConfig, folder: str, device: torch.device) -> list[str]:
    """The base's eval loss by plain transformers, and on each attention that passes."""
    packs = packs_of(data, trial.model, folder)
    rows = packs.dataset("eval")
    model = load_base(trial, device).eval()
    computing = functools.partial(computing_as, trial, device)
    lines = [f"{'plain transformers':20} {one_at_a_time(model, rows, computing):.4f}"]
    reference = Reference(model, packs.max_length, computing)
    for attention in possible_attentions(trial, device):
        proof, refused = first_that_passes(model, [attention], reference, computing)
        loss = packed_eval_loss(model, rows, attention, trial)
        verdict = refused[0] if proof is None else proof.equality.text()
        lines.append(f"{attention.name:20} {loss:.4f}  {'refused: ' * (proof is None)}{verdict}")
    return lines


@torch.no_grad()
def one_at_a_time(model: Any, rows: Any, computing: Any) -> float:
    """Sum of token losses over the number of supervised tokens, by transformers' eager attention,
    each conversation a batch of its own."""
    total, count = 0.0, 0
    for row in rows:
        start = 0
        for length in row["seq_lengths"]:
            part = slice(start, start + length)
            ids, labels = (torch.tensor(row[name][part]) for name in ("input_ids", "labels"))
            start += length
            kept = labels[1:] != -100
            if not kept.any():
                continue
            with computing():
                logits = model(input_ids=ids[None].to(model.device), use_cache=False).logits[0, :-1]
            picked = logits[kept.to(model.device)].float()
            targets = labels[1:][kept].to(model.device)
            total += float(cross_entropy(picked, targets, reduction="sum"))
            count += int(kept.sum())
    return total / count


def _reset(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--shapes", nargs="*", default=[], choices=list(SHAPES))
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--chat-template")
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--storage", default="results")
    parser.add_argument("--precisions", nargs="*", default=["nf4", "bf16"])
    options = parser.parse_args()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    for shape in options.shapes:
        say(cost(shape, device))
        free_memory()
    if options.model:
        data = DataConfig(
            options.data, max_length=options.max_length, chat_template=options.chat_template
        )
        for precision in options.precisions:
            trial = replace(TrialConfig(options.model), base_precision=precision)
            dtype = str(compute_dtype(trial, device)).removeprefix("torch.")
            say(f"{precision}, computed in {dtype}")
            say("\n".join(losses(trial, data, options.storage, device)))
            free_memory()


if __name__ == "__main__":
    main()
