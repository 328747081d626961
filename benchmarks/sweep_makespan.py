"""Whole sweeps against the clock, from the start of the process to the best adapter: sftray with
its bank, sftray with Ray Train, and stock_sweep.py. A case takes under 9 minutes on one GPU.

    python benchmarks/sweep_makespan.py CASE --data alpaca.jsonl

    a   16 trials × 100k tokens: bank, stock at ¼ GPU each
    b   4 trials × 100k tokens: stock one by one, Ray Train
    c   4 trials × 1M tokens: bank, stock at ¼ GPU each
    d   4 trials × 200k tokens on the 8B: as c
    e   64 trials × 50k tokens: the bank alone, and the share of its time in training steps

All sides train the same conversations, packed into the same number of rows, in the same optimizer
steps, and evaluate the same 64 conversations at the end of a trial; nobody samples answers. Two
things only sftray does, and its seconds have them: it measures the untrained base, and it loads the
winner again with plain PEFT and measures it. "decided" is when the winner was known, before that.

Of sides that run trials one by one, a trial's cost is the time between the ends of trials, the
fixed cost what is left of the whole; from them comes the figure for 16 trials, which is
extrapolated. The base has random weights: seconds mean something, losses do not.

To try it on a CPU:

    python benchmarks/sweep_makespan.py b --shape tiny --trials 2 --tokens 6000 --max-length 128 \\
        --effective-batch 4
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from console import argument_parser, say
from shapes import SHAPES

from sftray.data.packs.packing import pack
from sftray.storage.journal import read_events
from sftray.storage.paths import SweepPaths
from sftray.trainers.bank.bank_runner import usage_text

HERE = Path(__file__).parent
EVALUATED = 64
"""Conversations."""
LIMIT_SECONDS = 520
"""A side that takes longer is stopped."""
MANY = 16
"""Trials of the extrapolated figure."""
SIDES = {
    "bank": "sftray, bank",
    "train": "sftray, Ray Train",
    "stock": "stock, one by one",
    "stock4": "stock, ¼ GPU each",
}


@dataclass(frozen=True)
class Case:
    """One comparison."""

    shape: str
    trials: int
    tokens: int
    """A trial's, padding included."""
    sides: tuple[str, ...]
    max_length: int = 512
    effective_batch: int = 8
    """Rows; also stock's micro-batch, so that it does not accumulate."""
    activation_checkpointing: bool = False
    """Stock's."""

    @property
    def rows(self) -> int:
        return self.tokens // self.max_length


CASES = {
    "a": Case("0.5B", 16, 100_000, ("bank", "stock4")),
    "b": Case("0.5B", 4, 100_000, ("stock", "train")),
    "c": Case("0.5B", 4, 1_000_000, ("bank", "stock4")),
    "d": Case("8B", 4, 200_000, ("bank", "stock4"), activation_checkpointing=True),
    "e": Case("0.5B", 64, 50_000, ("bank",), effective_batch=4),
}


@dataclass(frozen=True)
class Measured:
    """One side of a case."""

    side: str
    seconds: float
    """From the start of the process to the best adapter."""
    decided: float
    """To the moment the winner was known."""
    ended: tuple[float, ...]
    """When each trial ended."""
    rows: int
    """That each trial trained on."""
    banks: tuple[dict[str, float], ...] = ()
    """What banks spent their time on: `sftray.trainers.bank.engine.Usage`."""

    @property
    def per_trial(self) -> float | None:
        """Seconds between the ends of trials, where they run one by one."""
        if self.side not in ("stock", "train") or len(self.ended) < 2:
            return None
        return (self.ended[-1] - self.ended[0]) / (len(self.ended) - 1)

    @property
    def fixed(self) -> float | None:
        return None if self.per_trial is None else self.seconds - len(self.ended) * self.per_trial


@dataclass(frozen=True)
class Inputs:
    """What all sides of a case start from."""

    model: Path
    train: Path
    evals: Path
    points: Path
    epochs: float
    """Share of the packed training conversations that make up the case's rows."""


def main() -> None:
    options = _options()
    case = _case(options)
    inputs = _prepare(case, options.work, options.data)
    say(f"{case.trials} trials × {case.tokens:,} tokens on {case.shape}, {_device()}")
    found = []
    for side in case.sides:
        run = _stock if side.startswith("stock") else _sftray
        found.append(run(side, case, inputs, options.work))
        say(_line(found[-1]))
    if len({side.rows for side in found}) > 1:
        sys.exit(
            f"rows a trial: got {[side.rows for side in found]}, must be the same on all sides"
        )
    for other in found[1:]:
        ratio = other.seconds / found[0].seconds
        say(f"{SIDES[other.side]} / {SIDES[found[0].side]}: {ratio:.1f}")
    if options.out:
        sides = [
            {**asdict(side), "per_trial": side.per_trial, "fixed": side.fixed} for side in found
        ]
        record = {"case": options.case, **asdict(case), "device": _device(), "sides": sides}
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _prepare(case: Case, work: Path, data: str) -> Inputs:
    """Write the base, the conversations and the points, unless they are there."""
    from transformers import AutoTokenizer

    model = work / "models" / case.shape
    subprocess.run([sys.executable, HERE / "shapes.py", case.shape, model], check=True)
    folder = work / f"{case.rows}x{case.max_length}"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    kept, lengths, tokens = [], [], 0
    for line in Path(data).read_text(encoding="utf-8").splitlines():
        text = tokenizer.apply_chat_template(json.loads(line)["messages"], return_dict=True)
        length = len(text["input_ids"])
        if length > case.max_length:
            continue
        kept.append(line)
        lengths.append(length)
        tokens += length if len(kept) > EVALUATED else 0
        if tokens >= case.rows * case.max_length:
            break
    else:
        sys.exit(f"{data}: got {tokens:,} tokens to train on, must have {case.tokens:,}")
    inputs = Inputs(
        model,
        folder / "train.jsonl",
        folder / "eval.jsonl",
        folder / f"{case.trials}-points.jsonl",
        case.rows / len(pack(np.array(lengths[EVALUATED:]), case.max_length)),
    )
    _write_lines(inputs.train, kept[EVALUATED:])
    _write_lines(inputs.evals, kept[:EVALUATED])
    rates = np.geomspace(1e-5, 1e-3, case.trials).tolist()
    _write_lines(inputs.points, [json.dumps({"learning_rate": rate}) for rate in rates])
    return inputs


def _sftray(side: str, case: Case, inputs: Inputs, work: Path) -> Measured:
    storage = work / f"sftray-{side}"
    shutil.rmtree(storage, ignore_errors=True)  # the packs are made again, too
    changes = {
        "data.eval_source": inputs.evals,
        "data.max_length": case.max_length,
        "trial.effective_batch_size": case.effective_batch,
        "trial.num_train_epochs": inputs.epochs,
    }
    arguments = ["--trainer", side, "--model", inputs.model, "--data", inputs.train]
    arguments += ["--points", inputs.points, "--storage", storage]
    if side == "train":
        changes["max_concurrent_trials"] = 1  # as there is one GPU
    for name, value in changes.items():
        arguments += ["--set", f"{name}={value}"]
    began, seconds, _ = _run("makespan_sweep.py", arguments, work / f"{side}.log")
    events = read_events(SweepPaths.of(str(storage), "makespan").journal)
    ended = [event for event in events if event["event"] == "trial_ended"]
    failed = [event for event in ended if event["outcome"] != "completed"]
    if failed or len(ended) != case.trials:
        sys.exit(f"{side}: not all of {case.trials} trials completed: {failed or ended}")
    decided = next(event["time"] for event in events if event["event"] == "sweep_ended")
    rows = max(event["metrics"]["rows"] for event in events if event["event"] == "result")
    times = sorted(event["time"] - began for event in ended)
    folder = SweepPaths.of(str(storage), "makespan")
    banks = json.loads(Path(folder.banks).read_text(encoding="utf-8")) if side == "bank" else ()
    return Measured(side, seconds, decided - began, tuple(times), rows, tuple(banks))


def _stock(side: str, case: Case, inputs: Inputs, work: Path) -> Measured:
    arguments = ["--model", inputs.model, "--data", inputs.train, "--eval-data", inputs.evals]
    for name, value in {
        "trials": case.trials,
        "tokens": case.tokens,
        "gpu-fraction": 0.25 if side == "stock4" else 1.0,
        "max-length": case.max_length,
        "micro-batch": case.effective_batch,
        "effective-batch": case.effective_batch,
    }.items():
        arguments += [f"--{name}", value]
    if case.activation_checkpointing:
        arguments += ["--activation-checkpointing"]
    _, _, output = _run("stock_sweep.py", arguments, work / f"{side}.log")
    line = json.loads(output.splitlines()[-1])
    ended = sorted(trial["ended"] for trial in line["per_trial"])
    return Measured(side, line["wall_seconds"], line["wall_seconds"], tuple(ended), line["rows"])


def _run(script: str, arguments: list[Any], log: Path) -> tuple[float, float, str]:
    """When it began, the seconds it took, and what it printed; stderr goes to the log."""
    began = time.time()
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(
            [sys.executable, HERE / script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    seconds = time.time() - began
    with log.open("a", encoding="utf-8") as file:
        file.write(done.stdout)
    if done.returncode:
        tail = log.read_text(encoding="utf-8")[-3000:]
        sys.exit(f"{script}: ended with status {done.returncode}; {log} ends\n{tail}")
    return began, seconds, done.stdout


def _line(found: Measured) -> str:
    text = f"{SIDES[found.side]:20}{found.seconds:8.1f} s  (decided {found.decided:.1f} s, "
    text += f"trials ended {found.ended[0]:.1f} … {found.ended[-1]:.1f} s)"
    if found.per_trial is not None and found.fixed is not None:
        many = found.fixed + MANY * found.per_trial
        text += f"\n{'':20}fixed {found.fixed:.1f} s + {found.per_trial:.1f} s a trial; "
        text += f"{MANY} trials: {many:.0f} s (extrapolated)"
    for bank in found.banks:
        text += f"\n{'':20}{usage_text(bank)}"
    return text


def _case(options: argparse.Namespace) -> Case:
    names = ("shape", "trials", "tokens", "max_length", "effective_batch", "sides")
    changes = {name: getattr(options, name) for name in names if getattr(options, name)}
    return replace(CASES[options.case], **changes)


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("case", choices=CASES)
    add("--data", required=True, help="conversations, a .jsonl file")
    add("--out", type=Path, help="append a JSON line to this file")
    add(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "sftray-makespan",
        help="folder for the model, the data, the sweeps and the logs",
    )
    add("--shape", choices=SHAPES)
    add("--trials", type=int)
    add("--tokens", type=int)
    add("--max-length", type=int)
    add("--effective-batch", type=int)
    add("--sides", nargs="+", choices=SIDES)
    return parser.parse_args()


def _device() -> str:
    """The GPU's name, without taking any of its memory."""
    if shutil.which("nvidia-smi") is None:
        return "CPU"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
