"""How often the findings name the axis that decides, and how often one that does not: simulated
sweeps of the real search (TPE + ASHA, four trials at once) and of random points, whose loss is a
formula of one axis plus noise, or noise alone.

    python benchmarks/importance.py            # the table of docs/findings.md, two minutes
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from console import argument_parser, say

from sftray.config import SweepConfig, TrialConfig, choice, loguniform, uniform
from sftray.config.config_json import to_json
from sftray.results import Results
from sftray.results.findings.comparisons import read
from sftray.results.findings.importance import importances
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.search.search import Search
from sftray.storage.journal import Journal

sys.path.append(str(Path(__file__).parent.parent / "tests" / "fakes"))

from fake_trials import ROWS, make_search, make_sweep  # noqa: E402

FEW: dict[str, Any] = {
    "learning_rate": loguniform(1e-5, 1e-2),
    "effective_batch_size": choice([2, 4, 8, 16]),
    "warmup_ratio": uniform(0.0, 0.2),
}
MANY: dict[str, Any] = FEW | {
    "lora_r": choice([4, 8, 16, 32]),
    "weight_decay": uniform(0.0, 0.1),
    "lora_dropout": uniform(0.0, 0.2),
    "lora_alpha_ratio": choice([1.0, 2.0, 4.0]),
    "max_grad_norm": uniform(0.5, 2.0),
    "min_lr_ratio": uniform(0.0, 0.2),
    "adam_beta1": uniform(0.85, 0.95),
    "adam_beta2": uniform(0.95, 0.999),
    "lora_target_modules": choice(["all-linear", ["q_proj", "v_proj"]]),
}
NOISE = 0.03
"""Of a final loss, by another seed."""
Effect = Callable[[TrialConfig], float]


def by_rate(trial: TrialConfig) -> float:
    return 0.2 * abs(math.log10(trial.learning_rate / 3e-4)) ** 1.5


def by_batch(trial: TrialConfig) -> float:
    return 0.07 * abs(math.log2(trial.effective_batch_size / 4))


def by_nothing(trial: TrialConfig) -> float:
    return 0.0


CASES: dict[str, tuple[dict[str, Any], Effect, str]] = {
    "learning rate, of 3 axes": (FEW, by_rate, "learning_rate"),
    "batch of 4 choices, of 3 axes": (FEW, by_batch, "effective_batch_size"),
    "learning rate, of 12 axes": (MANY, by_rate, "learning_rate"),
    "nothing, of 3 axes": (FEW, by_nothing, ""),
    "nothing, of 12 axes": (MANY, by_nothing, ""),
}


def simulated(
    space: dict[str, Any], effect: Effect, *, trials: int, seed: int, asha: bool
) -> Results:
    """A sweep's results; without `asha` its points are random and nothing is stopped."""
    draw = random.Random(seed)
    changes: dict[str, Any] = {"search_space": space, "num_trials": trials, "seed": seed}
    if not asha:
        points = [{name: axis.at(draw.random()) for name, axis in space.items()}
                  for _ in range(trials)]  # fmt: skip
        changes |= {"points": tuple(points), "search_space": {}, "scheduler": "none"}
    sweep = make_sweep(**changes, rungs=(0.27, 0.6), grace_steps=1)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a journal waits for its disk
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        Journal(f"{folder}/journal.jsonl") as journal,
    ):
        run(sweep, make_search(sweep, journal), effect, draw)
        records = Records(journal.events())
    config = json.loads(json.dumps(to_json(sweep)))
    record: Any = {"config": config, "search_space": config["search_space"]}
    record["data"] = {"train": {"rows": ROWS}}
    return Results("nowhere", record, records.trials, leaderboard(sweep, records))


def run(sweep: SweepConfig, search: Search, effect: Effect, draw: random.Random) -> None:
    """Four trials at once, whose reports come in random order."""
    running: list[tuple[str, list[dict[str, Any]]]] = []
    while True:
        while len(running) < 4 and (suggestion := search.suggest()):
            trial = sweep.trial.at(suggestion.point)
            luck = draw.gauss(0, NOISE)
            plan = search._plan(trial)
            reports = []
            for step in (0, *plan.eval_steps):
                rows = step * trial.effective_batch_size
                share = rows / plan.rows
                loss = 2 + effect(trial) + luck + 1.5 * math.exp(-4 * share) + draw.gauss(0, 0.005)
                reports.append({"step": step, "rows": rows, "eval_loss": loss, "tokens": rows,
                                "supervised_tokens": rows, "seconds": float(rows)})  # fmt: skip
            running.append((suggestion.trial, reports))
        if not running:
            return
        place = draw.randrange(len(running))
        trial_name, reports = running[place]
        goes_on = search.record(trial_name, reports.pop(0)) == "continue"  # type: ignore[arg-type]
        if not goes_on or not reports:
            search.returned(trial_name)
            running.pop(place)


def named(case: str, *, trials: int, sweeps: int, asha: bool) -> tuple[int, int]:
    """In how many sweeps the axis that decides is named, and in how many another is."""
    space, effect, true = CASES[case]
    found = wrong = 0
    for seed in range(sweeps):
        results = simulated(space, effect, trials=trials, seed=seed, asha=asha)
        deciding = {axis.name for axis in importances(read(results)).axes if axis.decides}
        found += true in deciding
        wrong += bool(deciding - {true})
    return found, wrong


def main(trials: int, sweeps: int) -> None:
    say(f"{trials} trials, {sweeps} sweeps each: the true axis is named, another is named")
    say("| what decides | TPE + ASHA | random points |\n|---|---|---|")
    for case in CASES:
        cells = []
        for asha in (True, False):
            found, wrong = named(case, trials=trials, sweeps=sweeps, asha=asha)
            cells.append(f"{found}, {wrong}" if CASES[case][2] else f"–, {wrong}")
        say(f"| {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--sweeps", type=int, default=20)
    given = parser.parse_args()
    main(given.trials, given.sweeps)
