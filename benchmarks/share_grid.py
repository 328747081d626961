"""Learning rate × share of a source, every point of a grid and by a search.

    python benchmarks/share_grid.py --model MODEL --data A.jsonl B.jsonl --out OUT.json
    python benchmarks/share_grid.py --out OUT.json --show      # its tables again

Two sweeps on the same packs, both with the mean of the two sources' eval losses as their objective
and the share of the second as an axis: five rates × five shares to their end, then a search with
ASHA over the same ranges without steps. OUT.json has of every trial its point, its losses and the
tokens it took; the tables of docs/landscapes.md are printed from it. The same command continues
where it was cut off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from console import argument_parser, say
from timing import device_name

from sftray.config import DataConfig, SweepConfig, TrialConfig, loguniform, uniform
from sftray.results import Results
from sftray.results.findings import learn, text
from sftray.results.records import TrialRecord, by_source
from sftray.sweep.run import run_sweep
from sftray.trial.eval_loss import default_device

SHARES = (0.0, 0.125, 0.25, 0.5, 0.75)


def main() -> None:
    options = _options()
    if not options.show:
        options.out.write_text(json.dumps(_measured(options)) + "\n", encoding="utf-8")
    table = json.loads(options.out.read_text(encoding="utf-8"))
    for line in (*grid_lines(table), *search_lines(table)):
        say(line)


def grid_lines(table: dict[str, Any]) -> list[str]:
    """Of each share the best rate, and the losses there; then what every rate comes to."""
    names, axis = table["sources"], table["axis"]
    shares = sorted({trial["point"][axis] for trial in table["grid"]})
    rates = sorted({trial["point"]["learning_rate"] for trial in table["grid"]})
    losses = {(t["point"]["learning_rate"], t["point"][axis]): t for t in table["grid"]}
    lines = [_row("share", *names, "mean", "best rate", *(f"{rate:g}" for rate in rates))]
    lines += ["|" + "---|" * (len(names) + 3 + len(rates))]
    base = [table["base"][name] for name in names]
    mean = sum(w * loss for w, loss in zip(table["weights"], base, strict=True))
    cells = (f"{loss:.4f}" for loss in (*base, mean))
    lines += [_row("base", *cells, *[""] * (1 + len(rates)))]
    for share in shares:
        of = [losses[rate, share] for rate in rates]
        best = min(of, key=_loss)
        own = [f"{best['by_source'][name]:.4f}" for name in names]
        means = [f"{one['eval_loss']:.4f}" for one in of]
        rate = f"{best['point']['learning_rate']:g}"
        lines.append(_row(f"{share:g}", *own, f"{_loss(best):.4f}", rate, *means))
    return lines


def search_lines(table: dict[str, Any]) -> list[str]:
    """What the search found, and what it cost beside the grid."""
    grid, searched = table["grid"], table["search"]
    best = [min(trials, key=_loss) for trials in (grid, searched)]
    tokens = [sum(trial["tokens"] for trial in trials) for trials in (grid, searched)]
    until = sum(trial["tokens"] for trial in searched[: searched.index(best[1]) + 1])
    return [
        *(
            f"{name}: {_loss(one):.4f} at rate {one['point']['learning_rate']:.3g}, share "
            f"{one['point'][table['axis']]:.3g}; {len(trials)} trials, {spent:,} tokens"
            for name, trials, one, spent in zip(
                ("grid", "search"), (grid, searched), best, tokens, strict=True
            )
        ),
        f"search: its best after {until / tokens[0]:.0%} of the grid's tokens",
    ]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _loss(trial: dict[str, Any]) -> float:
    return float(trial["eval_loss"])


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    sweep = _sweep(options)
    second = sweep.data.mixture[1].name
    axis, rates = f"mixture.{second}", options.rates
    points = tuple(
        {"learning_rate": rate, axis: share}
        for rate, share in itertools.product(rates, options.shares)
    )
    grid = run_sweep(
        replace(sweep, points=points, search_space={}, scheduler="none", rungs=()), log=say
    )
    space = {
        "learning_rate": loguniform(min(rates), max(rates)),
        axis: uniform(min(options.shares), max(options.shares)),
    }
    searched = replace(
        sweep, name="search", search_space=space, num_trials=options.trials, rungs=(1 / 3,)
    )
    found = run_sweep(searched, log=say)
    say(text(learn(found)))
    return {
        "device": device_name(default_device()),
        "model": Path(sweep.trial.model).name,
        "data": found.record["data"],
        "sources": [one.name for one in sweep.data.mixture],
        "weights": [one.weight for one in sweep.data.mixture],
        "axis": axis,
        "base": grid.leaderboard["base"]["by_source"],
        "num_train_epochs": sweep.trial.num_train_epochs,
        "effective_batch_size": sweep.trial.effective_batch_size,
        "grid": _trials(grid),
        "search": _trials(found),
    }


def _trials(found: Results) -> list[dict[str, Any]]:
    return [_trial(trial) for trial in found.records if trial.trained]


def _trial(trial: TrialRecord) -> dict[str, Any]:
    last = trial.trained[-1]
    return {
        "point": trial.point,
        "outcome": trial.outcome,
        "rows": last["rows"],
        "tokens": last["tokens"],
        "eval_loss": round(last["eval_loss"], 6),
        "by_source": {name: round(loss, 6) for name, loss in by_source(last).items()},
    }


def _sweep(options: argparse.Namespace) -> SweepConfig:
    weights: Sequence[tuple[str, float]] = [(path, 1.0) for path in options.data]
    return SweepConfig(
        name="grid",
        data=DataConfig(
            sources=weights,
            max_length=options.length,
            max_conversations=options.conversations,
            num_eval_conversations=options.evals,
            eval_fraction=0.1,
            test_fraction=0.0,
            max_bad_fraction=1.0,  # what is longer than a row is left out
        ),
        trial=TrialConfig(
            options.model,
            base_precision=options.base_precision,
            effective_batch_size=options.batch,
            num_train_epochs=options.epochs,
            lora_r=8,
        ),
        search_space={"learning_rate": loguniform(min(options.rates), max(options.rates))},
        trainer="bank",
        bank_slots=options.slots,
        evals_per_trial=1,
        grace_steps=2,
        num_samples_generated=0,
        storage=options.storage,
        wandb="disabled",
    )


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--model", default="", help="folder or Hub id of the base")
    add("--data", nargs=2, default=[], help="two sources of equal weights")
    add("--rates", nargs="+", type=float, default=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
    add("--shares", nargs="+", type=float, default=list(SHARES), help="of the second source")
    add("--trials", type=int, default=12, help="of the search")
    add("--length", type=int, default=512, help="tokens a row")
    add("--conversations", type=int, help="of each source")
    add("--evals", type=int, default=100, help="conversations of each source to evaluate on")
    add("--epochs", type=float, default=1.0)
    add("--batch", type=int, default=8)
    add("--base-precision", default="bf16")
    add("--slots", type=int, help="trials that a bank trains at once")
    add("--out", type=Path, required=True, help="the table, a JSON file")
    add("--show", action="store_true", help="print the tables of OUT.json, and train nothing")
    add("--storage", default=f"{tempfile.gettempdir()}/sftray-shares")
    options = parser.parse_args()
    if not (options.show or (options.model and options.data)):
        parser.error("--model and --data: got nothing, must be given unless with --show")
    return options


if __name__ == "__main__":
    main()
