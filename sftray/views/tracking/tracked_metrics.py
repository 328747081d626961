"""What W&B and TensorBoard are told of a trial: rows of numbers, each with its step, its rows and,
where they are known, its tokens, so that every metric can be drawn against any of the three."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftray.trial.samples import question

METRICS = (
    "rows",
    "tokens",
    "supervised_tokens",
    "epoch",
    "train_loss",
    "eval_loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "gpu_memory_gb",
    "seconds",
    "gpu_seconds",
    "data_wait",
)
"""What each evaluation has."""
CURVE = ("train/loss", "train/learning_rate", "train/grad_norm")
"""What each optimizer step has."""

MetricRow = dict[str, Any]


def rows_of(metrics: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[MetricRow]:
    """Of an evaluation: a row a step of its curve, the last of them with the evaluation's own.
    before: the evaluation before it, or nothing; tokens of steps between are interpolated."""
    step, rows, tokens = metrics["step"], metrics["rows"], metrics["tokens"]
    since, had = before.get("step", 0), before.get("tokens", 0)
    row: MetricRow = {}
    for at, *values in metrics.get("curve", []):
        row = dict(zip(CURVE, values, strict=False))
        if at != step:
            spent = _between(had, tokens, (at - since) / (step - since))
            yield {**row, "step": at, "rows": rows * at // step, "tokens": spent}
            row = {}
    yield {**row, "step": step, **{name: metrics[name] for name in METRICS if name in metrics}}


def last_rows(
    curve: Sequence[Sequence[float]], batch: int, before: Mapping[str, Any]
) -> Iterator[MetricRow]:
    """Of the steps after the last evaluation `before`, of a trial that diverged there."""
    for at, *values in curve:
        row = {**dict(zip(CURVE, values, strict=False)), "step": at, "rows": int(at) * batch}
        if before.get("step"):
            row["tokens"] = _between(0, before["tokens"], at / before["step"])
        yield row


def answers_of(
    samples: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A trial's answers beside the reference and the untrained base's, by prompt, then step."""
    theirs = {question(sample["messages"]): sample["answer"] for sample in base}
    pairs = [(question(sample["messages"]), sample) for sample in samples]
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    for prompt, sample in sorted(pairs, key=lambda p: (prompts.index(p[0]), p[1]["step"])):
        yield {
            "prompt": prompt,
            "step": sample["step"],
            "reference": sample["reference"],
            "base": theirs.get(prompt, ""),
            "answer": sample["answer"],
            "flags": ", ".join(sample["flags"]),
        }


def _between(low: float, high: float, share: float) -> int:
    return round(low + (high - low) * share)
