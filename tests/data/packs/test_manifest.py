"""What a manifest counts is what the data held: rows that were dropped, references in tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from packs_here import build_packs_here

from sftray.config import DataConfig
from sftray.data.chat.chat_format import trl_templates
from sftray.data.estimate import estimate_packs
from sftray.data.packs.inspect import inspect_json, inspect_text
from sftray.data.recipe import make_recipe
from sftray.demo import FOLDER

KEYS = ("documents", "images", "chat_template_kwargs", "channel", "loss_scale", "refusal")
KEYS += ("reasoning_effort", "training_detail")
ANSWER = {"role": "assistant", "content": "It is so."}


def config(tmp_path: Path, rows: list[dict[str, Any]]) -> DataConfig:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(str(path), max_length=512, eval_fraction=0.1, max_bad_fraction=0.9)


def talk(number: int, answer: str = "It is so.") -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": f"Is it {number}?"},
        {"role": "assistant", "content": answer},
    ]


def test_rows_with_a_key_that_nothing_reads_are_dropped_and_counted_everywhere(
    tmp_path: Path,
) -> None:
    """Each key once in the row and twice in its turns; a row without any is kept."""
    rows: list[dict[str, Any]] = [{"messages": talk(k)} for k in range(60)]
    for number, key in enumerate(KEYS):
        rows[3 * number][key] = "used"
        for turn in (0, 1):
            rows[3 * number + 1 + turn]["messages"][turn][key] = "used"
    data = config(tmp_path, rows)
    expected = {f"{key} not supported": 3 for key in sorted(KEYS)}
    packs = build_packs_here(data, str(FOLDER), storage=str(tmp_path))
    assert packs.manifest["splits"]["train"]["dropped"] == expected
    kept = sum(packs.manifest["splits"][split]["conversations"] for split in ("train", "eval"))
    assert kept == 60 - 3 * len(KEYS)
    estimate = estimate_packs(make_recipe(data, str(FOLDER)))
    assert estimate["splits"]["train"]["dropped"] == expected
    assert inspect_json(packs)["train"]["dropped"] == expected  # type: ignore[index]
    assert all(f"3  {reason}" in inspect_text(packs, rows=0) for reason in expected)


def test_thoughts_are_counted_in_documents_and_tokens_and_a_key_is_shown_with_an_example(
    tmp_path: Path,
) -> None:
    rows: list[dict[str, Any]] = [{"messages": talk(k)} for k in range(40)]
    for number in range(10):
        turns = [*talk(100 + number), *talk(200 + number)]
        for turn in (1, 3):
            turns[turn]["reasoning_content"] = f"I know of {number}."
        rows.append({"messages": turns, "label": number})
    template = str(trl_templates() / "qwen3.jinja")
    data = replace(config(tmp_path, rows), chat_template=template)
    packs = build_packs_here(data, str(FOLDER), storage=str(tmp_path))
    splits = packs.manifest["splits"]
    counts = splits["train"]["thoughts"]
    assert (counts["conversations"], counts["documents"]) == (10, 20)
    assert sum(split["conversations"] for split in splits.values()) == 50
    estimate = estimate_packs(make_recipe(data, str(FOLDER)))["splits"]
    assert estimate["train"]["thoughts"] == counts
    assert sum(split["conversations"] for split in estimate.values()) == 50
    said = inspect_text(packs, rows=0)
    assert f"10 conversations with thoughts in 20 documents of {counts['tokens']:,} tokens" in said
    assert f"thinking='last' would train on {counts['last_tokens']:,} of them" in said
    assert "keys that were not read: label (10 rows, as 0)" in said
    for thinking in ("last", "drop"):
        changed = replace(data, thinking=thinking)
        other = build_packs_here(changed, str(FOLDER), storage=str(tmp_path))
        assert other.manifest["splits"]["train"]["thoughts"]["documents"] == 10
        tokens = sum(split["tokens"] for split in other.manifest["splits"].values())
        assert tokens < sum(split["tokens"] for split in splits.values())


def test_settings_that_change_what_is_trained_change_the_key(tmp_path: Path) -> None:
    data = config(tmp_path, [{"messages": talk(1)}])
    changes: list[dict[str, Any]] = [
        {},
        {"thinking": "last"},
        {"thinking": "drop"},
        {"train_on": "last"},
        {"enable_thinking": True},
        {"enable_thinking": False},
    ]
    keys = {make_recipe(replace(data, **change), str(FOLDER)).key for change in changes}
    assert len(keys) == len(changes)


def test_near_duplicates_that_are_too_many_to_be_on_one_side_are_said(tmp_path: Path) -> None:
    """60 questions that differ by a word, of which six conversations are evaluated on."""
    asked = [f"Which of the many towns on the long road to the sea is number {k}?"
             for k in range(60)]  # fmt: skip
    rows = [{"messages": [{"role": "user", "content": text}, ANSWER]} for text in asked]
    data, lines = config(tmp_path, rows), list[str]()
    packs = build_packs_here(data, str(FOLDER), storage=str(tmp_path), log=lines.append)
    (line,) = [one for one in lines if one.startswith("near-duplicates: ")]
    assert "near-duplicates: 60 conversations begin nearly like more others" in line
    assert packs.manifest["apart"] == estimate_packs(make_recipe(data, str(FOLDER)))["apart"] == 60
    assert line in inspect_text(packs, rows=0)
