"""What W&B and TensorBoard show of a trial: its answers, and its numbers in rows. Each has step,
rows and, where they are known, tokens, so that any of the three can be an axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from sftray.config import SweepConfig
from sftray.config.points import Point
from sftray.results.records import by_source, points_of
from sftray.storage.journal.event_types import Metrics
from sftray.storage.paths import SweepPaths
from sftray.trial.samples import question, read_samples
from sftray.views.tracking.journal_follower import say

METRICS = (
    "rows", "tokens", "supervised_tokens", "epoch", "train_loss", "eval_loss", "learning_rate",
    "grad_norm", "tokens_per_second", "gpu_memory_gb", "seconds", "gpu_seconds", "energy_wh",
    "data_wait",
)  # fmt: skip
"""What each evaluation has."""
BY_KIND = "eval_loss"
"""Before the name of a kind of token, of which an evaluation has a loss, too."""
CURVE = ("train/loss", "train/learning_rate", "train/grad_norm")
"""What each optimizer step has."""


@dataclass(frozen=True)
class MetricRow:
    """A trial's numbers at an optimizer step."""

    step: int
    rows: int
    tokens: int | None
    """None in a trial that diverged before its first evaluation."""
    values: Mapping[str, float]
    """By the names of METRICS and CURVE, and eval_loss/source/<name> of several sources."""

    def flat(self) -> dict[str, float]:
        """All by name."""
        tokens = {} if self.tokens is None else {"tokens": self.tokens}
        return {"step": self.step, "rows": self.rows, **tokens, **self.values}


class Answer(TypedDict):
    """A trial's answer beside the reference and the untrained base's."""

    prompt: str
    step: int
    reference: str | None
    base: str
    answer: str
    flags: str


class TrackedTrial:
    """What is known of a trial between two of its events."""

    def __init__(self, sweep: SweepConfig, name: str, point: Point) -> None:
        self.name, self.point = name, point
        self._batch = sweep.trial.at(point).effective_batch_size
        self.step = self._tokens = 0
        """Of its newest evaluation."""
        self.base_eval_loss: float | None = None
        self.best_eval_loss = math.inf

    def evaluated(self, metrics: Metrics) -> list[MetricRow]:
        """A row a step since the evaluation before, the last of them with this one's metrics;
        tokens of steps between are interpolated."""
        loss, step, tokens = metrics.get("eval_loss"), metrics["step"], metrics["tokens"]
        if step == 0:
            self.base_eval_loss = loss
        elif loss is not None and loss < self.best_eval_loss:
            self.best_eval_loss = loss
        rows, newest = [], dict[str, float]()
        for at, *numbers in points_of(metrics.get("curve")).tolist() if step > self.step else ():
            newest = dict(zip(CURVE, numbers, strict=True))
            if at != step:
                share = (at - self.step) / (step - self.step)
                between = round(self._tokens + (tokens - self._tokens) * share)
                rows.append(MetricRow(int(at), metrics["rows"] * int(at) // step, between, newest))
                newest = {}
        for name, value in metrics.items():
            if name in METRICS and isinstance(value, int | float):
                newest[name] = value
        for kind, value, _ in metrics.get("eval_loss_by_kind") or ():
            newest[f"{BY_KIND}/{kind}"] = value
        for name, loss in by_source(metrics).items():
            newest[f"{BY_KIND}/source/{name}"] = loss
        self.step, self._tokens = step, tokens
        return [*rows, MetricRow(step, metrics["rows"], tokens, newest)]

    def lost(self, curve: Sequence[Sequence[float]]) -> Iterator[MetricRow]:
        """Of the steps after the last evaluation, of a trial that diverged there."""
        for at, *numbers in points_of(curve).tolist():
            tokens = round(self._tokens * at / self.step) if self.step else None
            yield MetricRow(
                int(at), int(at) * self._batch, tokens, dict(zip(CURVE, numbers, strict=True))
            )


def answers_of(paths: SweepPaths, trial: str) -> list[Answer]:
    """A trial's answers, by prompt, then step; none where they cannot be read."""
    try:
        samples = read_samples(paths.trial(trial).samples)
        base = read_samples(paths.base_samples)
    except OSError as error:
        say(f"samples of {trial}: {error}")
        return []
    of_base = {question(sample["messages"]): sample["answer"] for sample in base}
    pairs = [(question(sample["messages"]), sample) for sample in samples]
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    return [
        {
            "prompt": prompt,
            "step": sample["step"],
            "reference": sample["reference"],
            "base": of_base.get(prompt, ""),
            "answer": sample["answer"],
            "flags": ", ".join(sample["flags"]),
        }
        for prompt, sample in sorted(pairs, key=lambda p: (prompts.index(p[0]), p[1]["step"]))
    ]
