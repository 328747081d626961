"""Conversations to packed rows, on the same cores: sftray and TRL's own preparation; and how much
memory sftray takes for many more of them.

    python benchmarks/data.py --data alpaca.jsonl
    python benchmarks/data.py --data alpaca.jsonl --memory 50000 1000000

Both sides read the same conversations, render them with the same chat template, tokenise, mask all
but the assistant's tokens and pack into rows of --max-length by best fit decreasing; each in a
process of its own, in turns, nothing cached. TRL's side is `load_dataset` and the construction of
an `SFTTrainer` with packing and `assistant_only_loss`, as it comes and with `dataset_num_proc` of a
process a core. Before the clock runs, each side's process has imported its libraries and loaded the
tokenizer once, which imports more of them; TRL has its model, sftray a Ray cluster. What Ray's
workers and Ray Data's two actors import, TRL's processes have by being forked: sftray's clock runs
meanwhile. Times are medians of --repeats.

Memory is the largest sum, over the driver and all of Ray's processes, of their proportional set
sizes, which counts what they share once. A file of so many conversations is made by repeating the
given one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from console import argument_parser, say

from sftray.demo import FOLDER

SAMPLE_SECONDS = 0.5
SIDES = {"sftray": "sftray", "trl": "TRL", "trl-all": "TRL, a process a core"}


def main() -> None:
    options = _options()
    if options.side:
        say(json.dumps((_sftray if options.side == "sftray" else _trl)(options)))
        return
    if options.memory:
        _memory(options)
        return
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _, side in itertools.product(range(options.repeats), SIDES):
        found[side].append(_measured(side, options, options.data)[0])
    say(f"{options.data}, rows of {options.max_length}, {os.cpu_count()} cores")
    say(f"{'':22}{'seconds':>9}{'(fastest … slowest)':>23}{'conversations/s':>17}{'rows':>9}"
         f"{'tokens':>13}{'padding':>9}")  # fmt: skip
    median = {}
    for side, runs in found.items():
        times, facts = [run["seconds"] for run in runs], runs[0]
        median[side] = statistics.median(times)
        capacity = facts["rows"] * options.max_length
        spread = f"({min(times):.1f} … {max(times):.1f})"
        say(
            f"{SIDES[side]:22}{median[side]:9.1f}{spread:>23}"
            f"{facts['conversations'] / median[side]:17,.0f}{facts['rows']:9,.0f}"
            f"{facts['tokens']:13,.0f}{1 - facts['tokens'] / capacity:9.2%}"
        )
    for side in list(SIDES)[1:]:
        say(f"{SIDES[side]} / sftray: {median[side] / median['sftray']:.1f}")


def _memory(options: argparse.Namespace) -> None:
    say(f"{'conversations':>14}{'seconds':>9}{'peak GiB':>10}")
    for number in options.memory:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "conversations.jsonl")
            _repeat(options.data, file, number)
            facts, peak = _measured("sftray", options, str(file))
        say(f"{number:14,}{facts['seconds']:9.1f}{peak / 2**30:10.2f}")


def _repeat(data: str, file: Path, number: int) -> None:
    lines = Path(data).read_text(encoding="utf-8").splitlines(keepends=True)
    with file.open("w", encoding="utf-8") as out:
        out.writelines(itertools.islice(itertools.cycle(lines), number))


def _measured(side: str, options: argparse.Namespace, data: str) -> tuple[dict[str, float], float]:
    """What a side's process prints, and the most memory, in bytes, that it took."""
    command = [sys.executable, __file__, "--side", side, "--data", data]
    command += ["--model", options.model, "--max-length", str(options.max_length)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks = [0.0]

    def watch() -> None:
        while process.poll() is None:
            peaks.append(_proportional_set_size(process.pid))
            time.sleep(SAMPLE_SECONDS)

    watcher = threading.Thread(target=watch, daemon=True)
    if options.memory:  # it costs time to ask
        watcher.start()
    output, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{SIDES[side]}: ended with status {process.returncode}\n{errors[-3000:]}")
    facts: dict[str, float] = json.loads(output.splitlines()[-1])
    return facts, max(peaks)


def _proportional_set_size(pid: int) -> float:
    """Of a process and its descendants, in bytes."""
    total = 0.0
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue  # it has ended meanwhile
    return total


def _sftray(options: argparse.Namespace) -> dict[str, float]:
    import ray.data  # noqa: F401

    from sftray.cluster.connect import connect
    from sftray.config import DataConfig
    from sftray.data.chat.tokenizer import load_tokenizer
    from sftray.data.packs.manifest import counts_of
    from sftray.data.pipeline import packs_from
    from sftray.data.recipe import make_recipe

    load_tokenizer(options.model)
    connect(lambda line: None, dashboard=False)
    with tempfile.TemporaryDirectory() as storage:
        began = time.perf_counter()
        data = DataConfig(
            options.data, max_length=options.max_length, eval_fraction=0.001, max_bad_fraction=1.0
        )
        packs = packs_from(make_recipe(data, options.model), storage=storage)
        seconds = time.perf_counter() - began
    counts = counts_of(packs.manifest)
    each = counts.values()
    return {
        "seconds": seconds,
        "conversations": sum(split["conversations"] for split in each),
        "rows": counts["train"]["rows"],
        "tokens": counts["train"]["tokens"],
    }


def _trl(options: argparse.Namespace) -> dict[str, float]:
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    model = AutoModelForCausalLM.from_pretrained(FOLDER)  # any will do: it is not run
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        data: Any = datasets.load_dataset(
            "json", data_files=options.data, split="train", cache_dir=folder
        )
        trainer = SFTTrainer(
            model,
            args=SFTConfig(
                output_dir=folder,
                max_length=options.max_length,
                packing=True,
                packing_strategy="bfd",
                assistant_only_loss=True,
                dataset_num_proc=os.cpu_count() if options.side == "trl-all" else None,
                report_to="none",
                use_cpu=True,
                bf16=False,
            ),
            train_dataset=data,
            processing_class=tokenizer,
        )
        seconds = time.perf_counter() - began
        rows = trainer.train_dataset
        lengths = [sum(row) for row in rows["seq_lengths"]]
    return {
        "seconds": seconds,
        "conversations": len(data),
        "rows": len(rows),
        "tokens": sum(lengths),
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--data", required=True, help="conversations, a .jsonl file with a `messages` column")
    add("--model", default=str(FOLDER), help="whose tokenizer and chat template are taken")
    add("--max-length", type=int, default=1024, help="tokens a packed row")
    add("--repeats", type=int, default=3)
    add("--memory", type=int, nargs="+", help="measure memory for so many conversations instead")
    add("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
