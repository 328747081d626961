"""Training steps a second on one GPU: the adapter bank against TRL's SFTTrainer, in one process.

    python benchmarks/bank.py --data alpaca.jsonl
    python benchmarks/bank.py --data alpaca.jsonl --settings 0.5B:16:512 --only bank --profile
    python benchmarks/bank.py --data alpaca.jsonl --settings 8B:4:2048 --precision bf16,fp8
    python benchmarks/bank.py --data gsm8k.jsonl --settings FOLDER:16:512 --precision bf16 \\
        --chat-template template.jinja

A setting is shape:K:length, or a saved model's folder in the shape's place. On its rows, packed
from real conversations, are measured:

- TRL as tutorials have it, at the bank's micro-batch: one row, activation checkpointing;
- TRL at its best: the fastest of a few micro-batches with Liger kernels, without activation
  checkpointing where that fits;
- the bank: K slots of one row each, CUDA graphs.

On all sides: the same weights in NF4, bf16 or (a bank alone) FP8, r = 16 on all linear layers,
float32 adapters, bfloat16 compute, no dropout, clipping at 1.0, an optimizer step after every
micro-batch, logits only where a token is trained on, and the fastest attention that is proved to
compute the base. Of several precisions TRL has the first; the bank is measured in each.
Times are the median of --repeats steps after three others.
`tiny:3:128` runs on a CPU, to try it: without graphs, Liger and FlashAttention it says nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from console import add_rows, argument_parser, say
from kernel_times import kernel_table
from shapes import data_of, packs_of, parse_setting, tokenizer_of
from steps_bank import Bank
from steps_trl import Trl
from timing import Speed, device_name, free_memory, quiet

from sftray.data.packs.packs import Packs
from sftray.trial.eval_loss import default_device

SETTINGS = "8B:8:512,8B:4:2048,1B:8:1024,0.5B:16:512,0.5B:16:2048"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "flash_attn", "liger_kernel")


@dataclass(frozen=True)
class Setting:
    shape: str
    slots: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Setting:
        return cls(*parse_setting(text))

    def __str__(self) -> str:
        return f"{self.shape}, K={self.slots} × {self.length}"


def main() -> None:
    options = _options()
    quiet()
    device = default_device()
    packs = {setting: _packs(setting, options) for setting in options.settings}
    facts = {"device": device_name(device), "versions": _versions()}
    for setting in options.settings:
        say(f"\n{setting}  ({facts['device']})")
        if options.profile:
            for precision in options.precision:
                say(precision)
                _profile(setting, packs[setting], device, precision)
            continue
        found = _measure(setting, packs[setting], device, options)
        _table(found)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_record(setting, found) | facts) + "\n")


def _packs(setting: Setting, options: argparse.Namespace) -> Packs:
    data = data_of(options.data, setting.length, options.chat_template)
    return packs_of(data, tokenizer_of(setting.shape), options.storage)


@dataclass
class Found:
    """What was measured of a setting."""

    taught: Speed | None = None
    best: Speed | None = None
    banks: dict[str, Speed] = field(default_factory=dict)
    """By precision."""
    planned: dict[str, float] = field(default_factory=dict)
    """GiB that sftray's plan has for each, beside the peak that is measured."""
    tried: tuple[Speed, ...] = ()
    attention: tuple[str, ...] = ()

    def ratios(self, side: str) -> dict[str, float]:
        """Each bank's positions a second over those of TRL `taught` or at its `best`, or of the
        `first` bank."""
        other = next(iter(self.banks.values()), None) if side == "first" else getattr(self, side)
        if other is None:
            return {}
        return {
            precision: bank.positions_per_second / other.positions_per_second
            for precision, bank in self.banks.items()
            if bank is not other
        }


def _measure(
    setting: Setting, packs: Packs, device: torch.device, options: argparse.Namespace
) -> Found:
    found = Found()
    if options.only != "bank":
        trl = Trl(setting.shape, packs, device, options.precision[0])
        found.taught = trl.as_taught(options.repeats)
        found.best, tried = trl.fastest(options.repeats)
        found.tried, found.attention = tuple(tried), (f"TRL {trl.attention}",)
        del trl
        free_memory()
    for precision in options.precision if options.only != "trl" else ():
        bank = Bank(setting.shape, setting.slots, packs, device, precision)
        found.banks[precision] = bank.measure(options.repeats)
        found.planned[precision] = bank.memory().total / 2**30
        found.attention += (f"bank in {precision} {bank.attention} ({bank.proof})",)
        del bank
        free_memory()
    return found


def _profile(setting: Setting, packs: Packs, device: torch.device, precision: str) -> None:
    bank = Bank(setting.shape, setting.slots, packs, device, precision)
    eager, replay = bank.stepper(graphs=False), bank.stepper(graphs=True)
    for _ in range(2):
        eager()
        replay()
    for line in kernel_table(eager, replay):
        say(line)
    del bank, eager, replay
    free_memory()


def _table(found: Found) -> None:
    say(
        f"{'':8}{'flags':38}{'step ms':>9}{'(fastest … slowest)':>22}{'positions/s':>13}"
        f"{'supervised/s':>14}{'peak GiB':>10}"
    )
    sides = {"TRL": found.taught, "TRL best": found.best}
    sides |= {f"bank {precision}": bank for precision, bank in found.banks.items()}
    for name, side in sides.items():
        if side is not None:
            spread = f"({side.fastest * 1e3:.1f} … {side.slowest * 1e3:.1f})"
            say(
                f"{name:10}{side.name:36}{side.seconds * 1e3:9.1f}{spread:>22}"
                f"{side.positions_per_second:13,.0f}{side.supervised_per_second:14,.0f}"
                f"{side.peak_gib:10.1f}"
            )
    others = {"best": "TRL at its best", "taught": "TRL at the same micro-batch"}
    for side, words in (others | {"first": f"in {next(iter(found.banks), '')}"}).items():
        for precision, ratio in found.ratios(side).items():
            say(f"bank in {precision} / {words}: {ratio:.2f}")
    for precision, gib in found.planned.items():
        say(f"bank in {precision}: {gib:.1f} GiB planned")
    say(f"attention: {', '.join(found.attention)}")
    for side in found.tried:
        say(f"  tried: TRL {side.name}: {side.positions_per_second:,.0f} positions/s")


def _record(setting: Setting, found: Found) -> dict[str, Any]:
    sides = {"trl": found.taught, "trl_best": found.best}
    return {
        "shape": setting.shape,
        "slots": setting.slots,
        "length": setting.length,
        **{name: side.to_json() for name, side in sides.items() if side is not None},
        "banks": {precision: bank.to_json() for precision, bank in found.banks.items()},
        "planned_gib": found.planned,
        "trl_tried": [side.to_json() for side in found.tried],
        "ratios_to_trl": found.ratios("taught"),
        "ratios_to_trl_best": found.ratios("best"),
        "attention": found.attention,
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add(
        "--settings",
        type=lambda text: [Setting.parse(part) for part in text.split(",")],
        default=SETTINGS,
        help=f"shape:K:length, …; by default {SETTINGS}",
    )
    add_rows(parser)
    add(
        "--precision",
        type=lambda text: text.split(","),
        default="nf4",
        help="what the base is held in: nf4, bf16, fp8, or several",
    )
    add("--chat-template", help="a file, for a saved model without one")
    add("--repeats", type=int, default=20, help="steps timed")
    add("--only", choices=("bank", "trl"))
    add("--profile", action="store_true", help="the kernels of a step of the bank; needs a GPU")
    add("--out", type=Path, help="append a JSON line a setting to this file")
    options = parser.parse_args()
    if options.precision[0] == "fp8" and options.only != "bank":
        parser.error("--precision: got 'fp8' first, must be 'bf16,fp8': TRL has none in FP8")
    if options.profile and not torch.cuda.is_available():
        parser.error("--profile: got a machine without a GPU, must have one: it times kernels")
    return options


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
