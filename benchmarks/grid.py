"""Every point of a grid, trained to its end: the curves that search.py replays.

    python benchmarks/grid.py --model MODEL --data 'FOLDER/*.jsonl' --out benchmarks/grid.json

Learning rate × batch size × rank, one sweep without a scheduler, so that every trial is evaluated
at the rungs that ASHA would have judged it at. Kept are the points and their evaluations, not the
data. `--demo` takes the bundled base and chats and a grid that two CPU cores train in minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from console import argument_parser, say
from timing import device_name

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice
from sftray.config.config_json import to_json
from sftray.demo import demo
from sftray.results import Results
from sftray.storage.model_files import model_config
from sftray.sweep.run import run_sweep
from sftray.trial.eval_loss import default_device

GRID = {
    "learning_rate": choice([3e-4, 1e-3, 3e-3, 1e-2, 3e-2]),
    "effective_batch_size": choice([8, 16, 64]),
    "lora_r": choice([8, 32]),
}
SMALL_GRID = {
    "learning_rate": choice([1e-3, 4e-3, 1.6e-2]),
    "effective_batch_size": choice([2, 4]),
}

SHAPE = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "vocab_size",
    "num_attention_heads",
    "num_key_value_heads",
)
"""What published learning rates depend on, of a config.json."""


def main() -> None:
    options = _options()
    sweep = _sweep(options)
    found = run_sweep(sweep, log=say)
    table = _table(sweep, found)
    options.out.write_text(json.dumps(table) + "\n", encoding="utf-8")
    say(f"{options.out}: {len(table['trials'])} trials, {table['rows_per_epoch']} rows an epoch")


def _sweep(options: argparse.Namespace) -> SweepConfig:
    grid = SMALL_GRID if options.demo else GRID
    axes = [space.values for space in grid.values()]
    sweep = SweepConfig(
        name="grid",
        data=DataConfig(options.data, max_length=512, test_fraction=0.0),
        trial=TrialConfig(options.model),
        search_space=grid,
        scheduler="none",
        bank_slots=options.slots,
        storage=options.storage,
        num_samples_generated=0,
        wandb="disabled",
    )
    if options.demo:
        sweep = replace(demo(sweep), name="grid", search_space=grid)
    points = tuple(dict(zip(grid, values, strict=True)) for values in itertools.product(*axes))
    return replace(sweep, points=points)


def _table(sweep: SweepConfig, found: Results) -> dict[str, Any]:
    data, base = found.record["data"], model_config(sweep.trial.model)
    rows = data["train"]["rows"]
    return {
        "device": device_name(default_device()),
        "model": Path(sweep.trial.model).name,
        "config": {name: base[name] for name in SHAPE if name in base},
        "data": data,
        "rows_per_epoch": rows,
        "num_train_epochs": sweep.trial.num_train_epochs,
        "evals_per_trial": sweep.evals_per_trial,
        "grid": to_json(sweep)["search_space"],
        "base": found.leaderboard["base"]["eval_loss"],
        "trials": [
            {
                "point": trial.point,
                "outcome": trial.outcome,
                "seconds": trial.last["seconds"],
                "evaluations": [
                    [
                        result["step"],
                        result["rows"],
                        result["tokens"],
                        result["supervised_tokens"],
                        round(result["eval_loss"], 6),
                    ]
                    for result in trial.results
                ],
            }
            for trial in found.records
        ],
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--model", default="", help="folder or Hub id of the base")
    add("--data", default="", help="conversations: a path or glob of .jsonl files")
    add("--demo", action="store_true", help="the bundled base and chats, six points")
    add("--slots", type=int, help="trials that a bank trains at once")
    add("--out", type=Path, required=True, help="the table, a JSON file")
    add("--storage", default=f"{tempfile.gettempdir()}/sftray-grid")
    options = parser.parse_args()
    if not options.demo and not (options.model and options.data):
        parser.error("--model and --data: got nothing, must be given unless with --demo")
    if options.demo:
        options.model, options.data = "demo", "demo.jsonl"
    return options


if __name__ == "__main__":
    main()
