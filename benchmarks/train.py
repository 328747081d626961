"""Training steps a second of one trial on one GPU: sftray's `train` trainer against SFTTrainer.

    python benchmarks/train.py --data alpaca.jsonl
    python benchmarks/train.py --data alpaca.jsonl --settings 8B:4:2048 --workers 2

A setting is shape:rows:length. On its rows, packed from real conversations, are measured:

- TRL as a good tutorial sets it: FlashAttention-2, packing, activation checkpointing;
- sftray's trainer with nothing of what makes it faster, and then with one thing more at a time;
- sftray's trainer as a sweep would run it on this GPU.

With --workers, the last alone: on one GPU, and on so many with as many rows each; with --spread
also with the base in parts, one on each GPU.

On both sides: QLoRA on the same random weights, r = 16 on all linear layers, float32 adapters,
bfloat16 compute, no dropout, clipping at 1.0, an optimizer step after every micro-batch. Times are
the median of --repeats steps after three others. `tiny:2:128` runs on a CPU, to try it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from console import add_rows, argument_parser, say
from shapes import make_packs, model_config, parse_setting
from steps_train import FUSED, LIGER, WAITLESS, Setting, Train, measure_workers
from steps_trl import Flags, Trl
from timing import Speed, device_name, free_memory, quiet

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.plan.device_fit import choose_execution
from sftray.plan.effective_batch import Execution
from sftray.trial.eval_loss import default_device

SETTINGS = "8B:4:2048,1B:4:2048,0.5B:4:2048"


@dataclass(frozen=True)
class Case:
    shape: str
    rows: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Case:
        return cls(*parse_setting(text))

    def __str__(self) -> str:
        return f"{self.shape}, {self.rows} × {self.length}"


def main() -> None:
    options = _options()
    quiet()
    device = default_device()
    packs = make_packs(options.data, [case.length for case in options.settings], options.storage)
    for case in options.settings:
        say(f"\n{case}  ({device_name(device)})")
        if options.workers > 1:
            found = _scaling(case, packs[case.length], device, options)
        else:
            found = _measure(case, packs[case.length], device, options.repeats)
        _table(found)
        if options.out:
            sides = {name: side.to_json() for name, side in found.items()}
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"case": str(case), "device": device_name(device)} | sides))
                file.write("\n")


def _measure(case: Case, packs: Packs, device: torch.device, repeats: int) -> dict[str, Speed]:
    trl = Trl(case.shape, packs, device)
    flags = Flags(case.rows, liger=False, activation_checkpointing=True)
    found = {"TRL": trl.measure(flags, repeats)}
    del trl
    free_memory()
    train = Train(case.shape, packs, device)
    for label, setting in _ladder(case, device).items():
        found[label] = train.measure(setting, repeats)
    del train
    free_memory()
    return found


def _scaling(
    case: Case, packs: Packs, device: torch.device, options: argparse.Namespace
) -> dict[str, Speed]:
    """As a sweep runs it, on one GPU and on several."""
    setting, count = Setting(_chosen(case, device)), options.workers
    sides = {"1 worker": (setting, 1), f"{count} workers": (setting, count)}
    if options.spread:
        spread = Setting(replace(setting.execution, resident=False), spread=True)
        sides[f"{count} workers, base spread"] = (spread, count)
    return {
        label: measure_workers(case.shape, packs, side, options.repeats, workers)
        for label, (side, workers) in sides.items()
    }


def _ladder(case: Case, device: torch.device) -> dict[str, Setting]:
    """From nothing to all: each setting has one thing more than the one before."""
    chosen = _chosen(case, device)
    slow = Execution(case.rows, activation_checkpointing=True)
    ladder = {
        "no part": Setting(slow, ()),
        f"+ {WAITLESS}": Setting(slow, (WAITLESS,)),
        f"+ {FUSED}": Setting(slow, (WAITLESS, FUSED)),
        f"+ {LIGER}": Setting(slow),
    }
    if not chosen.activation_checkpointing:
        ladder["+ no checkpointing"] = Setting(Execution(case.rows))
    ladder["as a sweep runs it"] = Setting(chosen)
    return ladder


def _chosen(case: Case, device: torch.device) -> Execution:
    """What a sweep would take for such a trial on this device."""
    trial = TrialConfig(
        case.shape,
        learning_rate=1e-4,
        effective_batch_size=case.rows,
        micro_batch_size=case.rows,
        lora_r=16,
    )
    data = DataConfig("rows.jsonl", max_length=case.length)
    sweep = SweepConfig("train", data, trial, points=({},))
    memory = None
    if device.type == "cuda":
        memory = float(torch.cuda.get_device_properties(device).total_memory)
    chosen = choose_execution(sweep, model_config(case.shape).to_dict(), memory=memory)
    if chosen is None:
        raise SystemExit(f"{case}: does not fit this GPU")
    return chosen


def _table(found: dict[str, Speed]) -> None:
    say(
        f"{'':26}{'step ms':>9}{'(fastest … slowest)':>22}{'positions/s':>13}"
        f"{'supervised/s':>14}{'peak GiB':>10}{'× before':>10}{'× first':>9}"
    )
    first = before = next(iter(found.values())).positions_per_second
    for label, side in found.items():
        spread = f"({side.fastest * 1e3:.1f} … {side.slowest * 1e3:.1f})"
        speed = side.positions_per_second
        say(
            f"{label:26}{side.seconds * 1e3:9.1f}{spread:>22}{speed:13,.0f}"
            f"{side.supervised_per_second:14,.0f}{side.peak_gib:10.1f}"
            f"{speed / before:10.2f}{speed / first:9.2f}"
        )
        before = speed


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add(
        "--settings",
        type=lambda text: [Case.parse(part) for part in text.split(",")],
        default=SETTINGS,
        help=f"shape:rows:length, …; by default {SETTINGS}",
    )
    add_rows(parser)
    add("--workers", type=int, default=1, help="GPUs: the product alone, on one and on so many")
    add("--spread", action="store_true", help="with --workers: also the base spread over them")
    add("--repeats", type=int, default=20, help="steps timed")
    add("--out", type=Path, help="append a JSON line a setting to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
