"""Which precision of the base finds which point: the same grid trained in each, its order compared,
and every adapter measured on the base in every precision.

    python benchmarks/precision.py --model MODEL --data FILE --out precision.json
    python benchmarks/precision.py --demo --out precision.json   # bundled base, minutes on a CPU

Learning rate × batch × rank, each point trained to its end in a bank, with --seeds seeds, of which
a precision's own disagreement is seen. Of two precisions: Kendall's τ of the final losses, and the
regret, what the best point of the first loses against the best of the second when it is trained
there (nats). Of an adapter: its loss on the base in another precision than it was trained on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from console import argument_parser, say
from shapes import grid_data, grid_settings, packs_of
from timing import device_name, free_memory, quiet
from torch import Tensor

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.demo import FOLDER
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.bank.slot import Slot
from sftray.trainers.bank.torch_ops import copy_work
from sftray.trial.eval_loss import default_device
from sftray.trial.trial_spec import TrialSpec

Point = dict[str, Any]


@dataclass(eq=False)
class Trained:
    """A point, trained in one precision."""

    config: TrialConfig
    number: int
    """Of the point."""
    loss: float = math.nan
    adapter: Tensor | None = None
    """On the CPU; None where it diverged."""
    on: dict[str, float] = field(default_factory=dict)
    """Its loss on the base in each precision."""


class Grid(Engine):
    """A bank that keeps final losses and adapters, and writes nothing."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.runs: dict[Slot, Trained] = {}

    def loss_of(self, run: Trained | None) -> float:
        """The loss of an adapter that may be another bank's, or of the base."""
        work = torch.zeros_like(self._adapters.work[0])
        if run is not None:
            if run.adapter is None:
                return math.nan
            param, split = run.adapter.to(work.device), self._adapters.layout.split
            copy_work(param, work, run.config.lora_scale, split)
        return self._evaluation.losses([work])[0].mean

    def _evaluate(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            place, run = self._slots.index(slot), self.runs[slot]
            run.adapter = self._adapters.param[place].cpu()
            run.loss = self.loss_of(run)
            self._slots[place] = None

    def _end(self, slot: Slot, outcome: str, message: str = "") -> None:
        self._slots[self._slots.index(slot)] = None


def main() -> None:
    options = _options()
    quiet()
    points = [
        {"learning_rate": rate, "effective_batch_size": batch, "lora_r": rank}
        for batch, rank, rate in itertools.product(options.batches, options.ranks, options.rates)
    ]
    packs = packs_of(grid_data(options), options.model, options.storage)
    runs: dict[str, list[Trained]] = {}
    bases: dict[str, float] = {}
    for precision in options.precisions:
        engine = _engine(precision, packs, options)
        runs[precision] = _train(engine, precision, points, packs, options)
        del engine
        free_memory()
    for precision in options.precisions:
        engine = _engine(precision, packs, options)
        bases[precision] = engine.loss_of(None)
        for run in itertools.chain(*runs.values()):
            run.on[precision] = engine.loss_of(run)
        del engine
        free_memory()
    table = _table(options, points, runs, bases)
    _say(table)
    options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _engine(precision: str, packs: Packs, options: argparse.Namespace) -> Grid:
    trial = TrialConfig(options.model, base_precision=precision)
    device = default_device()
    return Grid(load_model(trial, device), trial, packs, grid_settings(options), device)


def _train(
    engine: Grid, precision: str, points: Sequence[Point], packs: Packs, options: argparse.Namespace
) -> list[Trained]:
    base = TrialConfig(options.model, base_precision=precision, num_train_epochs=options.epochs)
    runs = [
        Trained(replace(base, seed=seed, **point), number)
        for seed in range(options.seeds)
        for number, point in enumerate(points)
    ]
    folder = str(Path(tempfile.gettempdir(), "no-such-folder", "trial"))
    waiting = iter(runs)
    while True:
        while engine.free and (run := next(waiting, None)):
            rows = packs.rows("train")
            plan = plan_trial(
                run.config, rows, ladder=(), evals_per_trial=1, execution=Execution(1)
            )
            spec = TrialSpec("trial", run.config, plan, packs.root, folder, None, 0)
            slot = engine.prepare(spec, lambda report: None)
            engine.runs[slot] = run
            engine.admit(slot)
        if not engine.advance():
            return runs


def _table(
    options: argparse.Namespace,
    points: list[Point],
    runs: dict[str, list[Trained]],
    bases: dict[str, float],
) -> dict[str, Any]:
    """Losses as [seed][point]."""
    losses = {p: _by_seed([run.loss for run in of], options.seeds) for p, of in runs.items()}
    agreement = []
    for one, other in itertools.product(runs, repeat=2):
        for a, b in itertools.product(range(options.seeds), repeat=2):
            if (one, a) != (other, b):
                left, right = losses[one][a], losses[other][b]
                agreement.append(
                    {"picked in": one, "seed": a, "trained in": other, "other seed": b}
                    | {"tau": _kendall(left, right), "regret": _regret(left, right)}
                )
    return {
        "model": Path(options.model).name,
        "device": device_name(default_device()),
        "torch": torch.__version__,
        "points": points,
        "epochs": options.epochs,
        "base": bases,
        "losses": {precision: of.tolist() for precision, of in losses.items()},
        "on": {
            precision: {
                place: _by_seed([run.on[place] for run in of], options.seeds).tolist()
                for place in bases
            }
            for precision, of in runs.items()
        },
        "agreement": agreement,
    }


def _by_seed(values: list[float], seeds: int) -> np.ndarray:
    return np.array(values).reshape(seeds, -1)


def _kendall(left: np.ndarray, right: np.ndarray) -> float:
    """τ of the points that diverged in neither."""
    known = np.isfinite(left) & np.isfinite(right)
    one, other = (np.sign(v[known][:, None] - v[known]) for v in (left, right))
    above = np.triu_indices(int(known.sum()), 1)
    return float((one * other)[above].mean())


def _regret(left: np.ndarray, right: np.ndarray) -> float:
    """NaN where the point that is best in the one diverged in the other."""
    return float(right[np.nanargmin(left)] - np.nanmin(right))


def _say(table: dict[str, Any]) -> None:
    say(f"{table['model']}, {len(table['points'])} points ({table['device']})")
    for precision, base in table["base"].items():
        best = np.nanmin(np.array(table["losses"][precision]))
        say(f"  {precision:5} base {base:.4f}  best {best:.4f}")
    for one, other in itertools.product(table["base"], repeat=2):
        same = one == other
        pairs = [
            pair
            for pair in table["agreement"]
            if (pair["picked in"], pair["trained in"]) == (one, other)
            and (same or pair["seed"] == pair["other seed"])
        ]
        if pairs:
            tau, regret = (np.mean([pair[name] for pair in pairs]) for name in ("tau", "regret"))
            what = "other seed" if same else "same seed"
            picked = f"picked in {one:5} trained in {other:5} ({what})"
            say(f"  {picked}: τ {tau:.3f} regret {regret:.4f}")
    for trained, places in table["on"].items():
        own = np.array(places[trained])
        for place, of in places.items():
            if place != trained:
                off = np.nanmedian(np.array(of) - own)
                say(f"  trained on {trained:5} measured on {place:5}: {off:+.4f} (median)")


def _numbers(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--model", default=str(FOLDER))
    add("--data", default=str(FOLDER / "chats.jsonl"))
    add("--chat-template", help="a file, for a base without one")
    add("--precisions", type=_numbers(str), default=["bf16", "fp8", "nf4"])
    add("--seeds", type=int, default=2)
    add("--length", type=int, default=512, help="tokens a row")
    add("--conversations", type=int, default=2400, help="evaluation's among them")
    add("--evals", type=int, default=160, help="conversations to evaluate on")
    add("--epochs", type=float, default=1.0)
    add("--rates", type=_numbers(float), default=[1e-4, 3e-4, 1e-3, 3e-3, 6e-3])
    add("--batches", type=_numbers(int), default=[4, 8, 16])
    add("--ranks", type=_numbers(int), default=[8, 64])
    add("--slots", type=int, default=32)
    add("--demo", action="store_true", help="four points of the bundled base")
    add("--storage", default=f"{tempfile.gettempdir()}/sftray-precision")
    add("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.demo:
        options.length, options.conversations, options.evals, options.slots = 256, 240, 8, 4
        options.rates, options.batches, options.ranks = [1e-3, 3e-3], [2, 4], [8]
    return options


if __name__ == "__main__":
    main()
