"""A bundle of a random tiny base, as a sweep leaves it, without a sweep."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import get_peft_model

from sftray.config import DataConfig, TrialConfig
from sftray.config.config_json import to_json
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.demo import FOLDER
from sftray.results.confirmation import Confirmed
from sftray.sweep.sweep_json import RECORDED_PACKAGES
from sftray.trial.lora_adapter import lora_config
from sftray.winner.bundle import CARD, REPEAT, BundleFacts, ShownTrial, seal
from sftray.winner.model_card import model_card, repeat_file

END_OF_TURN = 2
DEMO_FORMAT = choose_format(
    read_tokenizer(str(FOLDER)), template=None, date="2025-01-01", samples=[]
).to_json()
CONFIRMED: Confirmed = {
    "trial": "t0001", "point": {"learning_rate": 5e-3}, "runs": ["t0002", "t0003"],
    "eval_losses": [3.4, 3.6], "left_out": {}, "mean": 3.5, "interval": [3.25, 3.75], "tokens": 100,
}  # fmt: skip


def facts_of(config: TrialConfig, **changes: Any) -> BundleFacts:
    """The facts of a bundle."""
    counts = {"conversations": 90, "rows": 20, "tokens": 5000, "supervised_tokens": 2000}
    point = {"learning_rate": 5e-3}
    facts = BundleFacts(
        sweep="fake", trial="t0001", step=12, point=point, eval_loss=3.5, base_eval_loss=5.5,
        by_kind=[], confirmed=None,
        says="t0001: eval loss 3.5000 at step 12, 2.0000 below the base",
        tokens=4000, config=config, data=DataConfig(str(FOLDER / "chats.jsonl")),
        packs="/home/somebody/results/packs/0123", packs_key="0123",
        data_counts={"train": counts, "eval": counts}, rungs=(0.37,), grace_steps=5,
        evals_per_trial=3, end_of_turn=END_OF_TURN, chat_format=DEMO_FORMAT, trials=2,
        versions=dict.fromkeys(RECORDED_PACKAGES, "1"),
        git_revision=None, reloaded_eval_loss=3.5, verified=True,
        leaderboard=[
            ShownTrial("t0001", point, 3.5, 4000, "completed"),
            ShownTrial("t0000", point, None, 4000, "failed"),
        ],
    )  # fmt: skip
    return replace(facts, **changes)


def save_bundle(folder: Path, trial: TrialConfig, **changes: Any) -> Path:
    """Write an adapter with random weights, and its texts."""
    model = transformers.AutoModelForCausalLM.from_pretrained(trial.model)
    adapted = get_peft_model(model, lora_config(trial))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    adapted.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(trial.model).save_pretrained(folder)
    facts = facts_of(trial, **changes)
    for name, text in ((CARD, model_card(facts)), (REPEAT, repeat_file(facts))):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "sweep.json").write_text(json.dumps(to_json(facts)), encoding="utf-8")
    seal(folder)
    return folder
