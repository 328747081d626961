"""A grid in a bank with annealed branches: what a rung would have shown, in the middle of the
schedule and after a short decay of its own.

    python benchmarks/branches.py --model MODEL --data FILE --chat-template FILE --out OUT.json
    python benchmarks/branches.py --demo --out OUT.json      # the bundled base, minutes on a CPU

Learning rate × batch × rank and alpha, every point trained to its end for one epoch; three seeds on
a third of the points. At each rung of at least eight steps a trial is evaluated; then weights and
moments are copied, trained on the rows that come next for a quarter of the steps seen while the
rate falls linearly to 0, evaluated, and thrown away; the trial continues from the copy, and is
evaluated again where it has seen as many rows as the branch. With --seconds the bank takes no new
points after that time, and ends those it has. OUT.json is read by search.py and rungs.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from console import argument_parser, say
from grid import SHAPE
from shapes import grid_data, grid_settings, packs_of
from timing import device_name, quiet

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.demo import FOLDER
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import learning_rate, plan_trial
from sftray.storage.model_files import model_config
from sftray.trainers.bank.adapters import AdapterState
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.bank.slot import Slot, rung_of
from sftray.trial.eval_loss import default_device
from sftray.trial.progress import Progress
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec

RUNGS = (1 / 20, 1 / 9, 1 / 3, 5 / 12)
LEAST_STEPS = 8
"""A rung before so many steps is left out."""
ANNEALED = 1 / 4
"""Steps of a branch, of those seen."""
SEEDS = 3
"""Of every third point."""
EVALUATIONS = 2
"""Besides those of rungs and branches."""


@dataclass(eq=False)
class Trained:
    """One training of a point, and what was measured of it."""

    point: dict[str, Any]
    seed: int
    outcome: str = ""
    evaluations: list[list[float]] = field(default_factory=list)
    """[step, rows, tokens, supervised tokens, eval loss]."""
    branches: list[list[float]] = field(default_factory=list)
    """[step it left at, step it ended at, eval loss]; a loss is null where it diverged."""

    def take(self, report: Report) -> None:
        if report.metrics is not None and report.outcome is None and report.metrics["step"]:
            seen = report.metrics
            loss = round(seen["eval_loss"], 6)
            self.evaluations.append(
                [seen["step"], seen["rows"], seen["tokens"], seen["supervised_tokens"], loss]
            )


@dataclass
class Branch:
    """A slot that anneals, and the trial it has left."""

    trunk: Slot
    kept: AdapterState


class Grid(Engine):
    """A bank whose slots branch off at their rungs, and write nothing."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.branches: dict[Slot, Branch] = {}
        self.runs: dict[Slot, Trained] = {}

    def begin(self, run: Trained, spec: TrialSpec) -> None:
        slot = self.prepare(spec, run.take)
        self.runs[slot] = run
        self.admit(slot)

    def _evaluate(self, slots: Sequence[Slot]) -> None:
        places = [self._slots.index(slot) for slot in slots]
        losses = self._evaluation.losses([self._adapters.work[place] for place in places])
        for slot, place, loss in zip(slots, places, losses, strict=True):
            if slot in self.branches:
                self._rejoin(slot, place, loss.mean)
                continue
            slot.report(slot.progress.evaluated(slot.step, loss, 0.0))
            if slot.step == slot.spec.plan.steps:
                self._end(slot, "completed")
            elif rung_of(slot):
                self._branch_off(slot, place)

    def _end(self, slot: Slot, outcome: str, message: str = "") -> None:
        if slot in self.branches:  # it diverged
            self._rejoin(slot, self._slots.index(slot), math.nan)
            return
        self._slots[self._slots.index(slot)] = None
        self.runs[slot].outcome = str(outcome)

    def _branch_off(self, trunk: Slot, place: int) -> None:
        config, plan, step = trunk.spec.config, trunk.spec.plan, trunk.step
        steps = step + _branch_steps(step)
        annealed = replace(
            config,
            learning_rate=learning_rate(config, plan, step),
            lr_scheduler="linear",
            warmup_ratio=step / steps,
            min_lr_ratio=0.0,
        )
        # the warm-up ends where the branch begins, whatever ceil(ratio × steps) makes of it
        short = replace(plan, steps=steps, warmup_steps=step, rungs=(), eval_steps=(steps,))
        tokens = self._row_tokens[trunk.order]
        branch = Slot(
            replace(trunk.spec, config=annealed, plan=short),
            trunk.order,
            Progress(annealed, short, tokens),
            None,
            lambda report: None,
            trunk.targets,
            step=step,
        )
        rows = self._adapters
        moments = (rows.moments[0][place].clone(), rows.moments[1][place].clone())
        self.branches[branch] = Branch(trunk, AdapterState(rows.param[place].clone(), moments))
        self._slots[place] = branch

    def _rejoin(self, slot: Slot, place: int, loss: float) -> None:
        branch = self.branches.pop(slot)
        trunk = branch.trunk
        seen = round(loss, 6) if math.isfinite(loss) else None
        self.runs[trunk].branches.append([trunk.step, slot.spec.plan.steps, seen])
        self._adapters.admit(place, branch.kept, trunk.spec.config.lora_scale)
        self._slots[place] = trunk


def main() -> None:
    options = _options()
    quiet()
    trial = TrialConfig(options.model, base_precision=options.base_precision, warmup_ratio=0.05)
    packs = packs_of(grid_data(options), options.model, options.storage)
    device = default_device()
    engine = Grid(load_model(trial, device), trial, packs, grid_settings(options), device)
    runs = _train(engine, trial, packs, options)
    table = _table(options, packs, runs, engine)
    options.out.write_text(json.dumps(table) + "\n", encoding="utf-8")
    ended = [run for run in runs if run.outcome]
    say(f"{options.out}: {len(ended)} of {len(runs)} trainings")


def _train(
    engine: Grid, trial: TrialConfig, packs: Packs, options: argparse.Namespace
) -> list[Trained]:
    runs = list(_runs(options))
    rows = packs.rows("train")
    began, last, waiting = time.perf_counter(), 0.0, iter(runs)
    while True:
        since = time.perf_counter() - began
        while engine.free and since < options.seconds and (run := next(waiting, None)):
            engine.begin(run, _spec(run, trial, packs, rows))
        if not engine.advance():
            break
        if since - last > 20:
            last = since
            done = sum(bool(run.outcome) for run in runs)
            rate = engine.usage.slot_steps * packs.max_length / since
            say(f"{since:6.0f} s  {done} of {len(runs)} ended, {rate:,.0f} positions/s")
    return runs


def _branch_steps(step: int) -> int:
    """Of a branch that leaves after `step` steps."""
    return math.ceil(ANNEALED * step)


def _runs(options: argparse.Namespace) -> Iterator[Trained]:
    """Every point, the costly ones spread; then the other seeds of every third."""
    points = [
        {"learning_rate": rate, "effective_batch_size": batch, "lora_r": rank, "lora_alpha": alpha}
        for batch, (rank, alpha), rate in itertools.product(
            options.batches, _scales(options.ranks), options.rates
        )
    ]
    for seed in range(SEEDS):
        repeated = points[1::3] if seed else points
        yield from (Trained(point, seed) for point in repeated)


def _scales(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """Rank and alpha: 32, and twice the rank."""
    return [(rank, alpha) for rank in ranks for alpha in dict.fromkeys((32, 2 * rank))]


def _spec(run: Trained, trial: TrialConfig, packs: Packs, rows: int) -> TrialSpec:
    config = replace(trial, seed=run.seed, **run.point)
    ladder = [math.ceil(share * rows) for share in RUNGS]
    plan = plan_trial(
        config, rows, ladder=ladder, evals_per_trial=EVALUATIONS, execution=Execution(1)
    )
    rungs = tuple(rung for rung in plan.rungs if rung.step >= LEAST_STEPS)
    as_branches = {rung.step + _branch_steps(rung.step) for rung in rungs}
    plan = replace(plan, rungs=rungs, eval_steps=tuple(sorted({*plan.eval_steps, *as_branches})))
    folder = Path(tempfile.gettempdir(), "no-such-folder", "trial")
    return TrialSpec("trial", config, plan, packs.root, str(folder), None, 0)


def _table(
    options: argparse.Namespace, packs: Packs, runs: Sequence[Trained], engine: Grid
) -> dict[str, Any]:
    base = model_config(options.model)
    return {
        "device": device_name(default_device()),
        "torch": torch.__version__,
        "attention": engine._decoder.attention.name,
        "model": options.name or Path(options.model).name,
        "config": {name: base[name] for name in SHAPE if name in base},
        "data": {split: packs.manifest["splits"][split]["rows"] for split in ("train", "eval")},
        "source": Path(options.data).name,
        "rows_per_epoch": packs.rows("train"),
        "max_length": packs.max_length,
        "num_train_epochs": 1.0,
        "rungs": RUNGS,
        "grid": {
            "learning_rate": {"kind": "choice", "values": options.rates},
            "effective_batch_size": {"kind": "choice", "values": options.batches},
            "lora_r": {"kind": "choice", "values": options.ranks},
        },
        "base": engine._base_loss and engine._base_loss.mean,
        "trials": [
            {
                "point": run.point,
                "seed": run.seed,
                "outcome": run.outcome,
                "evaluations": run.evaluations,
                "branches": run.branches,
            }
            for run in runs
            if run.outcome
        ],
    }


def _numbers(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--model", default=str(FOLDER))
    add("--name", default="", help="of the model, in the table")
    add("--data", default=str(FOLDER / "chats.jsonl"))
    add("--chat-template")
    add("--length", type=int, default=512, help="tokens a row")
    add("--conversations", type=int, default=2400, help="evaluation's among them")
    add("--evals", type=int, default=160, help="conversations to evaluate on")
    add("--base-precision", default="bf16")
    add("--rates", type=_numbers(float), default=[2e-4, 4e-4, 8e-4, 1.6e-3, 2.8e-3, 5e-3])
    add("--batches", type=_numbers(int), default=[4, 8, 16])
    add("--ranks", type=_numbers(int), default=[8, 16, 64])
    add("--slots", type=int, default=32)
    add("--seconds", type=float, default=math.inf, help="after which no point begins")
    add("--demo", action="store_true", help="four points of the bundled base")
    add("--storage", default=f"{tempfile.gettempdir()}/sftray-branches")
    add("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.demo:
        options.length, options.conversations, options.evals, options.slots = 256, 80, 8, 3
        options.rates, options.batches, options.ranks = [1e-3, 3e-3], [2], [8, 16]
    return options


if __name__ == "__main__":
    main()
