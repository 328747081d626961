"""A sweep whose trials do nothing, for benchmarks of everything around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice, loguniform

ROWS = 2400


def sweep_of(trials: int, scheduler: str) -> SweepConfig:
    return SweepConfig(
        name="many",
        data=DataConfig("none.jsonl"),
        trial=TrialConfig("none"),
        search_space={
            "learning_rate": loguniform(1e-5, 1e-1),
            "effective_batch_size": choice([8, 16, 32]),
            "warmup_ratio": choice([0.0, 0.03, 0.1]),
        },
        num_trials=trials,
        scheduler=scheduler,
    )


def reports(trial: TrialConfig, plan: Any) -> Iterator[dict[str, Any]]:
    """What a real trial reports, every optimizer step's curve with it."""
    last = 0
    for step in (0, *plan.eval_steps):
        away = abs(trial.learning_rate - 1e-3) ** 0.3
        loss = 2 + away + 1 / (1 + step)
        rows = step * trial.effective_batch_size
        yield {
            "step": step, "rows": rows, "tokens": 500 * rows, "supervised_tokens": 200 * rows,
            "epoch": rows / ROWS, "train_loss": loss, "eval_loss": loss, "grad_norm": 1.0,
            "learning_rate": trial.learning_rate, "tokens_per_second": 1e4, "gpu_memory_gb": 1.0,
            "seconds": step / 10, "micro_batch_size": 1, "device": "cpu", "attention": "sdpa",
            "curve": [[s, loss, trial.learning_rate, 1.0] for s in range(last + 1, step + 1)],
        }  # fmt: skip
        last = step
