"""GPU memory of a training step: what sftray's plan says beside what PyTorch measures.

    python benchmarks/memory.py --data alpaca.jsonl

For each shape, the `train` trainer at four settings, the bank at four, and full fine-tuning at
five, where it fits (`--only full`: nothing else), a few steps each on rows
packed from real conversations; printed are the estimate of `sftray/plan/memory.py`, the peak of
PyTorch's allocator, and how far the one is from the other. `--shapes tiny` on a CPU only tries it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from console import add_rows, argument_parser, say
from shapes import make_packs, model_config
from steps_bank import Bank
from steps_train import Setting, Train
from timing import device_name, free_memory, quiet

from sftray.config import TrialConfig
from sftray.plan.effective_batch import Execution
from sftray.plan.memory import Memory, train_memory
from sftray.plan.model_shape import ModelShape
from sftray.trial.eval_loss import default_device

STEPS = 2
"""Steps timed, after the usual others; the peak is reached in the first."""
TRAIN = (
    (512, Execution(8)),
    (2048, Execution(1)),
    (2048, Execution(4, activation_checkpointing=True)),
    (2048, Execution(4, resident=True)),
)
"""Row length and execution; a dequantised base stays, so it comes last."""
FULL = (
    (512, Execution(8)),
    (2048, Execution(1)),
    (2048, Execution(4, activation_checkpointing=True)),
    (2048, Execution(1, activation_checkpointing=True)),
    (2048, Execution(4)),
)
"""Row length and execution, all weights trained."""
BANK = ((512, 8), (512, 16), (2048, 2), (2048, 4))
"""Row length and slots."""


def main() -> None:
    options = _options()
    quiet()
    device = default_device()
    lengths = {length for length, _ in (*TRAIN, *BANK)}
    packs = make_packs(options.data, sorted(lengths), options.storage)
    say(f"{device_name(device)}\n{'':34}{'estimate GiB':>14}{'peak GiB':>10}{'error':>8}")
    found: list[dict[str, Any]] = []
    for shape in options.shapes:
        base = model_config(shape).to_dict()
        facts, trial = ModelShape.of(base), TrialConfig(shape, learning_rate=1e-4, lora_r=16)
        assert facts is not None
        models: dict[int, Train] = {}
        for length, execution in TRAIN if "train" in options.only else ():
            # a model serves the settings of one length that follow each other
            models = {length: models[length]} if length in models else {}
            free_memory()
            if length not in models:
                models[length] = Train(shape, packs[length], device)
            setting = Setting(execution)
            peak = models[length].measure(setting, STEPS).peak_gib
            estimate = train_memory(facts, trial, length, execution)
            _say(found, f"{shape} train {_words(execution, length)}", estimate, peak)
        del models
        for length, execution in FULL if "full" in options.only and shape != "8B" else ():
            free_memory()
            whole = Train(shape, packs[length], device, full=True)
            peak = whole.measure(Setting(execution), STEPS).peak_gib
            trial = replace(trial, finetune="full", base_precision="bf16")
            estimate = train_memory(facts, trial, length, execution)
            _say(found, f"{shape} full {_words(execution, length)}", estimate, peak)
            del whole
        for length, slots in BANK if "bank" in options.only else ():
            free_memory()
            bank = Bank(shape, slots, packs[length], device)
            peak = bank.measure(STEPS).peak_gib
            how = "" if bank.settings.resident else ", NF4"
            how += ", checkpointing" if bank.settings.activation_checkpointing else ""
            _say(found, f"{shape} bank {slots} × {length}{how}", bank.memory(), peak)
            del bank
    if options.out:
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _words(execution: Execution, length: int) -> str:
    how = ", checkpointing" if execution.activation_checkpointing else ""
    how += ", dequantised" if execution.resident else ""
    return f"{execution.micro_batch_size} × {length}{how}"


def _say(found: list[dict[str, Any]], label: str, estimate: Memory, peak: float) -> None:
    expected = estimate.total / 2**30
    error = expected / peak - 1 if peak else 0.0
    say(f"{label:34}{expected:14.2f}{peak:10.2f}{error:+8.1%}  {estimate}")
    found.append({"setting": label, "estimate_gib": expected, "peak_gib": peak})


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--shapes", type=lambda text: text.split(","), default="0.5B,1B,8B")
    add("--only", type=lambda text: text.split(","), default="train,bank,full")
    add_rows(parser)
    add("--out", type=Path, help="write what was found to this JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
