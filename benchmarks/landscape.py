"""Landscapes to search on: points that were trained to their end, with what was measured on the
way. Ours (grid.json) and others' (a table with the columns of the Tinker cookbook's SFT sweep)."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Key = str
"""A point, as text."""

FEWEST_POINTS = 9
"""Completed points of a base that is searched on."""
BAR = 0.002
"""How far above the best a loss may be, or two standard deviations of the noise if that is more."""
ON_THE_WAY = "test_nll_at_"
STEPS, BATCH = 780, 128
"""Of the runs in the table."""
HIDDEN = {
    "Llama-3.2-1B": 2048,
    "Llama-3.2-3B": 3072,
    "Llama-3.1-8B": 4096,
    "Llama-3.1-70B": 8192,
    "Llama-3.3-70B": 8192,
    "Qwen3-4B": 2560,
    "Qwen3-8B": 4096,
    "Qwen3-32B": 5120,
    "Qwen3-30B-A3B": 2048,
    "Qwen3-235B-A22B": 4096,
    "Qwen3-VL-30B-A3B": 2048,
    "Qwen3-VL-235B-A22B": 4096,
    "Qwen3.5-4B": 2560,
    "Qwen3.5-9B": 4096,
    "Qwen3.5-27B": 5120,
    "Qwen3.6-27B": 5120,
    "Qwen3.5-35B-A3B": 2048,
    "Qwen3.6-35B-A3B": 2048,
    "DeepSeek-V3.1": 7168,
    "Kimi-K2": 7168,
    "Nemotron-3-Nano": 2688,
    "Nemotron-3-Ultra": 8192,
    "gemma-3-270m": 640,
    "gemma-3-1b": 1152,
    "gemma-3-4b": 2560,
    "gemma-3-12b": 3840,
    "gemma-3-27b": 5376,
    "gpt-oss-20b": 2880,
    "gpt-oss-120b": 2880,
}
"""Hidden sizes in the config.json of these bases, by how their name begins."""
FAMILIES = {
    "llama": "llama",
    "qwen3.": "qwen3_5",
    "qwen3": "qwen3",
    "deepseek": "deepseek_v3",
    "kimi": "deepseek_v3",
    "nemotron": "nemotron_h",
    "gpt-oss": "gpt_oss",
}
"""Model types by a part of the name, the first that is found."""


@dataclass(frozen=True)
class Recorded:
    """What is known of a point."""

    point: Mapping[str, Any]
    outcome: str
    losses: tuple[tuple[float, float], ...]
    """(share of the training, eval loss), ascending; the last is the end, or the divergence."""
    has_curve: bool
    exact: bool
    """Whether losses on the way are measured, or read off a plot and good for rungs only."""
    branches: tuple[tuple[float, float, float], ...] = ()
    """(share where an annealed branch left, share that it had seen at its end, its eval loss)."""

    @property
    def best(self) -> float:
        finite = [loss for _, loss in self.losses if math.isfinite(loss)]
        return min(finite, default=math.inf) if self.outcome == "completed" else math.inf

    @property
    def ends(self) -> float:
        """After which share of its training."""
        return self.losses[-1][0]

    def loss_at(self, share: float) -> float:
        shares, losses = zip(*self.losses, strict=True)
        return float(np.interp(share, shares, losses))


@dataclass(frozen=True)
class Landscape:
    name: str
    base: dict[str, Any]
    """Its config.json, as far as a prior wants it."""
    base_loss: float
    axes: Mapping[str, list[Any]]
    points: Mapping[Key, Recorded]
    trial: Mapping[str, Any]
    """Of the trials, what is no axis."""
    rows_per_epoch: int
    noise: float
    """Standard deviation of one run's last loss, relative."""
    least_bar: float = BAR

    @property
    def best(self) -> float:
        return min(one.best for one in self.points.values())

    @property
    def bar(self) -> float:
        return self.best * (1 + max(self.least_bar, 2 * self.noise))


def key(point: Mapping[str, Any]) -> Key:
    return json.dumps(dict(point), sort_keys=True)


def of_grid(path: Path, noise: float = 0.0) -> Landscape:
    """Ours: one base, each point's evaluations."""
    table = json.loads(path.read_text(encoding="utf-8"))
    points = {}
    for trial in table["trials"]:
        whole = table["num_train_epochs"] * table["rows_per_epoch"]
        losses = tuple((rows / whole, loss) for _, rows, _, _, loss in trial["evaluations"])
        recorded = Recorded(trial["point"], trial["outcome"], losses, True, True)
        points[key(trial["point"])] = recorded
    return Landscape(
        name=table["model"],
        base=table["config"],
        base_loss=table["base"],
        axes={name: axis["values"] for name, axis in table["grid"].items()},
        points=points,
        trial={"num_train_epochs": table["num_train_epochs"], "lora_alpha_ratio": 2.0},
        rows_per_epoch=table["rows_per_epoch"],
        noise=noise,
    )


def of_branches(path: Path) -> list[Landscape]:
    """A grid of branches.py, apart for alpha 32 and for twice the rank; the curves of seed 0, the
    noise of all seeds."""
    table = json.loads(path.read_text(encoding="utf-8"))
    runs: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for run in table["trials"]:
        runs[key(run["point"])].append(run)
    ends = [[{"test_nll": run["evaluations"][-1][4], **run} for run in one if run["evaluations"]]
            for one in runs.values()]  # fmt: skip
    noise = _noise(_near_the_best(ends))
    rules = {"alpha 32": {"lora_alpha": 32}, "alpha 2r": {"lora_alpha_ratio": 2.0}}
    return [
        Landscape(
            name=f"{table['model']}, {table['source']}, {name}",
            base=table["config"],
            base_loss=table["base"],
            axes={axis: space["values"] for axis, space in table["grid"].items()},
            points={key(one.point): one for one in _of_rule(runs.values(), rule, table)},
            trial={"num_train_epochs": 1.0, "warmup_ratio": 0.05, **rule},
            rows_per_epoch=table["rows_per_epoch"],
            noise=noise,
        )
        for name, rule in rules.items()
    ]


def _of_rule(
    points: Iterable[list[dict[str, Any]]], rule: Mapping[str, float], table: Mapping[str, Any]
) -> Iterator[Recorded]:
    for run in (one for runs in points for one in runs if not one["seed"]):
        point = dict(run["point"])
        alpha = point.pop("lora_alpha")
        if alpha != rule.get("lora_alpha", 2 * point["lora_r"]):
            continue
        steps = table["rows_per_epoch"] // point["effective_batch_size"]
        losses = [(step / steps, loss) for step, _, _, _, loss in run["evaluations"]]
        if run["outcome"] != "completed":
            losses = [*losses, (max([0.02, *(share for share, _ in losses)]), math.inf)]
        branches = tuple(
            (left / steps, seen / steps, math.inf if loss is None else loss)
            for left, seen, loss in run["branches"]
        )
        yield Recorded(point, run["outcome"], tuple(losses), True, True, branches)


def of_table(path: Path, curves: Path | None, fewest: int = FEWEST_POINTS) -> list[Landscape]:
    """Others': the bases of a table that have enough points, each point's runs averaged."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    read_off = _curves(curves) if curves else {}
    bases: dict[str, dict[tuple[float, int], list[dict[str, str]]]] = {}
    for row in rows:
        point = (float(row["learning_rate"]), int(row["lora_rank"]))
        bases.setdefault(row["model"], defaultdict(list))[point].append(row)
    near = [_near_the_best(points.values()) for points in bases.values()]
    pooled = _noise(runs for points in near for runs in points)
    found = []
    for name, points in bases.items():
        own = _noise(_near_the_best(points.values()))
        landscape = _landscape(name, points, read_off, pooled if math.isnan(own) else own)
        completed = sum(one.outcome == "completed" for one in landscape.points.values())
        if completed >= fewest:
            found.append(landscape)
    return found


def _landscape(
    name: str,
    points: Mapping[tuple[float, int], list[dict[str, str]]],
    read_off: Mapping[tuple[str, float, int], list[tuple[float, float]]],
    noise: float,
) -> Landscape:
    recorded = {}
    for (rate, rank), runs in points.items():
        point = {"learning_rate": rate, "lora_r": rank}
        ends = [float(run["test_nll"]) for run in runs if run["outcome"] == "completed"]
        measured = _on_the_way(runs)
        curve = (measured or read_off.get((name, rate, rank), [])) if ends else []
        losses = [*curve, (1.0, statistics.fmean(ends) if ends else math.inf)]
        outcome = "completed" if ends else "diverged"
        exact = bool(measured)
        recorded[key(point)] = Recorded(point, outcome, tuple(losses), bool(curve), exact)
    return Landscape(
        name=name,
        base=config_of(name),
        base_loss=2 * max(one.losses[0][1] for one in recorded.values() if one.outcome[0] == "c"),
        axes={
            "learning_rate": sorted({rate for rate, _ in points}),
            "lora_r": sorted({rank for _, rank in points}),
        },
        points=recorded,
        trial={"effective_batch_size": BATCH, "lr_scheduler": "linear", "warmup_ratio": 0.0},
        rows_per_epoch=STEPS * BATCH,
        noise=noise,
    )


def _on_the_way(runs: list[dict[str, str]]) -> list[tuple[float, float]]:
    """(share, loss) of the columns test_nll_at_SHARE, of the first run that has them."""
    for run in runs:
        at = {name: loss for name, loss in run.items() if name.startswith(ON_THE_WAY) and loss}
        if at:
            return sorted((float(n.removeprefix(ON_THE_WAY)), float(at[n])) for n in at)
    return []


def config_of(name: str) -> dict[str, Any]:
    """What a prior reads of the base's config.json: its family, and the hidden size. That of a base
    that is not in HIDDEN is estimated from its (active) parameters, as 12 · layers · hidden² with
    hidden / layers = 128."""
    plain = name.split("/")[-1]
    found = [family for part, family in FAMILIES.items() if part in plain.lower()]
    known = [size for begins, size in HIDDEN.items() if begins in plain]
    config: dict[str, Any] = {"model_type": found[0] if found else "unknown"}
    billions = re.search(r"-A(\d+(?:\.\d+)?)B", plain) or re.search(r"(\d+(?:\.\d+)?)B", plain)
    if known:
        config["hidden_size"] = known[-1]
    elif billions:
        config["hidden_size"] = int((float(billions[1]) * 1e9 * 128 / 12) ** (1 / 3))
    return config


def _curves(path: Path) -> dict[tuple[str, float, int], list[tuple[float, float]]]:
    """(base, rate, rank) → (share, loss) of each point read off."""
    found: dict[tuple[str, float, int], list[tuple[float, float]]] = defaultdict(list)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            point = (row["model"], float(row["learning_rate"]), int(row["lora_rank"]))
            share = int(row["step"]) / STEPS
            if share < 1:
                found[point].append((share, float(row["test_nll_read_off"])))
    return {point: sorted(losses) for point, losses in found.items()}


def _near_the_best(points: Iterable[list[dict[str, str]]]) -> list[list[dict[str, str]]]:
    """The completed runs of each point that ends within 5 % of the best: their noise matters."""
    completed = [[run for run in runs if run["outcome"] == "completed"] for runs in points]
    ends = {id(runs): min(float(run["test_nll"]) for run in runs) for runs in completed if runs}
    best = min(ends.values(), default=math.inf)
    return [runs for runs in completed if runs and ends[id(runs)] <= 1.05 * best]


def _noise(points: Iterable[list[dict[str, str]]]) -> float:
    """Relative standard deviation of one run, of all points that were run twice; NaN without."""
    squares, freedom = 0.0, 0
    for runs in points:
        ends = [float(run["test_nll"]) for run in runs if run["outcome"] == "completed"]
        if len(ends) > 1:
            mean = statistics.fmean(ends)
            squares += sum((end / mean - 1) ** 2 for end in ends)
            freedom += len(ends) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan
