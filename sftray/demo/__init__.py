"""The bundled base and chat data, and any sweep made small enough for two CPU cores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sftray.config import Space, SweepConfig, choice, loguniform, uniform

FOLDER = Path(__file__).parent
"""Holds the base (2.1M parameters), chats.jsonl and questions.jsonl, all made by
benchmarks/demo_base.py and benchmarks/demo_chats.py."""
CHATS, QUESTIONS = FOLDER / "chats.jsonl", FOLDER / "questions.jsonl"
"""What is trained on, and what is asked at the end: questions whose names, places and numbers are
in none of the chats."""

SPACES: dict[str, Space] = {
    # a base of 2.1M parameters wants rates 30 times those of a large one
    "learning_rate": loguniform(1e-4, 3e-2),
    "effective_batch_size": choice([2, 4]),
    "num_train_epochs": choice([0.2, 0.25]),
    "warmup_ratio": uniform(0.0, 0.2),
    "lora_r": choice([2, 4, 8]),
}
"""The demo's range of each field that a shipped sweep searches."""
FULL_RATES = loguniform(1e-4, 1e-2)
"""The demo's learning rates where all weights are trained."""


def demo(sweep: SweepConfig) -> SweepConfig:
    """The same sweep on the bundled base and data: 6 trials of at most 33,000 tokens each, and
    the best two three times more where the sweep confirms."""
    spaces, rate, rank = SPACES, 4e-3, 8
    if sweep.trial.finetune == "full":
        spaces, rate, rank = {**SPACES, "learning_rate": FULL_RATES}, 1e-3, sweep.trial.lora_r
    data = replace(
        sweep.data,
        source=str(CHATS),
        sources=(),
        split="train",
        revision=None,
        eval_split=None,
        test_split=None,
        test_fraction=0.0,  # its minutes go into training
    )
    trial = replace(sweep.trial, model=str(FOLDER), model_revision=None)
    trial = replace(trial, learning_rate=rate, lora_r=rank)
    return replace(
        sweep,
        name=f"demo-{sweep.name}",
        data=replace(data, max_length=256, eval_fraction=0.04, num_eval_conversations=96),
        trial=replace(trial, effective_batch_size=4, num_train_epochs=0.25),
        search_space={name: spaces[name] for name in sweep.search_space},
        num_trials=6,
        confirm_top=min(sweep.confirm_top, 2),
        confirm_seeds=3,
        rungs=(0.3, 0.65),
        grace_steps=5,  # its trials have 40 to 80 steps
        evals_per_trial=2,
    )
