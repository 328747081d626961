"""The model card says what the Hub and a reader want to know, and the way to repeat it works."""

from __future__ import annotations

import dataclasses
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_bundle import CONFIRMED, facts_of

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.demo import FOLDER
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.winner.bundle import BundleFacts
from sftray.winner.model_card import merged_card, model_card, repeat_file

TRIAL = TrialConfig("Qwen/Qwen3-8B-Base", learning_rate=5e-3, lora_r=12, seed=3)
HUB = DataConfig("HuggingFaceH4/ultrachat_200k", split="train_sft")


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(matter)
    return values


def repeated(facts: BundleFacts, folder: Path) -> SweepConfig:
    (folder / "repeat.py").write_text(repeat_file(facts), encoding="utf-8")
    sweep: SweepConfig = runpy.run_path(str(folder / "repeat.py"))["sweep"]
    return sweep


def test_the_hub_is_told_of_base_and_dataset_where_they_are_its_own() -> None:
    matter = front_matter(model_card(facts_of(TRIAL, data=HUB)))
    assert matter["base_model"] == "Qwen/Qwen3-8B-Base"
    assert matter["datasets"] == ["HuggingFaceH4/ultrachat_200k"]
    assert matter["library_name"] == "peft"
    assert "license" not in matter
    local = front_matter(model_card(facts_of(TrialConfig(str(FOLDER)))))
    assert local.keys() == {"library_name", "pipeline_tag", "tags"}
    assert front_matter(merged_card(facts_of(TRIAL), "bf16", ""))["library_name"] == "transformers"


def test_the_card_tells_losses_point_data_versions_and_leaderboard() -> None:
    card = model_card(facts_of(TRIAL, data=HUB))
    for told in (
        "| untrained base | 5.5000 |",
        "| this adapter | 3.5000 (-2.0000) |",
        "| learning_rate | 0.005 |",
        "Data fingerprint `0123`",
        "| train | 90 | 20 | 5,000 | 2,000 |",
        "peft 1, trl 1",
        "## The best of 2 trials",
        "| t0001 | 0.005 | 3.5000 | 4,000 | completed |",
        "| t0000 | 0.005 |  | 4,000 | failed |",
        "vllm serve Qwen/Qwen3-8B-Base",
        "--max-lora-rank 16",
        '"stop_token_ids": [2]',
    ):
        assert told in card
    assert "other seeds" not in card
    sure = model_card(facts_of(TRIAL, confirmed=CONFIRMED))
    assert "| its point, mean of 2 other seeds (95 %) | 3.5000 ± 0.2500 |" in sure


@pytest.mark.parametrize("data", [HUB, DataConfig("s3://bucket/chats.jsonl", seed=4)])
def test_what_repeats_the_winner_is_its_trial_on_its_data(data: DataConfig, tmp_path: Path) -> None:
    facts = facts_of(TRIAL, data=data)
    sweep = repeated(facts, tmp_path)
    assert sweep.trial.at(sweep.points[0]) == TRIAL
    assert sweep.total_trials == 1
    assert sweep.data == data
    plan = planner(sweep, 300, execution=ONE_ROW)(sweep.trial)
    assert 7 in plan.eval_steps  # at the first rung, as in the sweep
    assert plan.rungs == ()  # and nothing stops it


def test_what_repeats_the_winner_finds_its_data_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    facts = facts_of(TRIAL, data=DataConfig("chats.jsonl", chat_template="t.jinja"))
    sweep = repeated(facts, tmp_path)
    found = DataConfig(str(FOLDER / "chats.jsonl"), chat_template=str(FOLDER / "t.jinja"))
    assert dataclasses.asdict(sweep.data) == dataclasses.asdict(found)


def test_the_card_says_how_answers_were_asked_for() -> None:
    card = model_card(facts_of(TRIAL))
    assert "unless it is started with\n`--generation-config vllm`" in card
    assert "enable_thinking" not in card
    assert "prints the day" not in card
    facts = facts_of(TRIAL, data=DataConfig("chats.jsonl", enable_thinking=False))
    dated = {**facts.chat_format, "own_template": "{{ strftime_now('%Y') }}"}
    card = model_card(replace(facts, chat_format=dated))
    assert "`enable_thinking=False`, which is its default" in card
    assert "prints the day: in training that was 2025-01-01" in card
