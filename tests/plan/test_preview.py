"""What looking at a dataset costs: `--plan` and `sftray init` open it once and tokenise it once."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fake_trials import make_sweep

from sftray.config import DataConfig, TrialConfig, loguniform, uniform
from sftray.data.chat.loss_mask import encode_rendered
from sftray.data.chat.tokenizer import read_files
from sftray.data.source.sources import open_source, sample_rows
from sftray.demo import FOLDER
from sftray.plan.preview import make_plan
from sftray.plan.preview_text import plan_text
from sftray.plan.proposal import propose

ROWS = 400


def looks(act: Callable[[], object]) -> Counter[str]:
    """How often `act` opens a source, samples it and reads a tokenizer, and how many conversations
    it tokenises."""
    counts: Counter[str] = Counter()
    read_files.cache_clear()
    functions = (open_source, sample_rows, read_files.__wrapped__)
    counted = {f.__code__: f.__name__ for f in functions}

    def watch(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code in counted:
            counts[counted[frame.f_code]] += 1
        elif event == "call" and frame.f_code is encode_rendered.__code__:
            counts["tokenised"] += len(frame.f_locals["batch"].ready)

    sys.setprofile(watch)
    try:
        act()
    finally:
        sys.setprofile(None)
    return counts


@pytest.fixture
def short_chats(tmp_path: Path) -> str:
    """Conversations of some ten to a hundred tokens."""
    file = tmp_path / "chats.jsonl"
    rows = [
        {"instruction": f"Say {k}.", "input": "", "output": f"It is {k}. " * (1 + k % 9)}
        for k in range(ROWS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


ONCE = {"open_source": 1, "sample_rows": 1, "read_files": 1, "tokenised": ROWS}


def test_a_plan_opens_the_dataset_once_and_tokenises_its_sample_once(
    short_chats: str, tmp_path: Path
) -> None:
    data, trial = DataConfig(short_chats, max_length=128), TrialConfig(str(FOLDER))
    sweep = make_sweep(data=data, trial=trial, storage=str(tmp_path / "none"))
    assert looks(lambda: make_plan(sweep, gpu_memory=None)) == ONCE


def test_init_opens_the_dataset_once_and_tokenises_its_sample_once(short_chats: str) -> None:
    assert (
        looks(
            lambda: propose("x", [short_chats], str(FOLDER), split="train", gpus=0, gpu_memory=None)
        )
        == ONCE
    )


def test_a_plan_says_of_each_source_its_rows_its_share_and_how_often_it_is_read(
    mixed_data: DataConfig, tmp_path: Path
) -> None:
    trial = TrialConfig(str(FOLDER), base_precision="fp32", effective_batch_size=2)
    space = {"learning_rate": loguniform(1e-4, 1e-2)}
    sweep = make_sweep(data=mixed_data, trial=trial, search_space=space, storage=str(tmp_path))
    plan = make_plan(sweep, gpu_memory=None)
    sources = plan.to_json()["sources"]
    rows = [one["rows"] for one in sources]  # type: ignore[index, attr-defined]
    for one, share in zip(sources, (0.7, 0.3), strict=True):  # type: ignore[call-overload]
        passes = one["passes"]
        assert passes == pytest.approx(share * sum(rows) / one["rows"])
        line = f"train: {one['source']}: {one['rows']} rows, {100 * share:g} % of those that are"
        assert f"{line} drawn, so {passes:.2f} passes over them an epoch" in plan_text(plan)
    assert plan.shapes[0].plan.rows == sum(rows) // 2 * 2
    other = replace(mixed_data, sources=[(one.path, 1.0) for one in mixed_data.mixture])
    again = make_plan(replace(sweep, data=other), gpu_memory=None)
    assert again.shapes[0].plan.rows == plan.shapes[0].plan.rows
    assert again.rungs == plan.rungs


def test_a_plan_says_what_the_ends_of_a_share_take_of_each_source(
    mixed_data: DataConfig, tmp_path: Path
) -> None:
    trial = TrialConfig(str(FOLDER), base_precision="fp32", effective_batch_size=2)
    space = {"mixture.sums": uniform(0, 0.5), "learning_rate": loguniform(1e-4, 1e-2)}
    sweep = make_sweep(data=mixed_data, trial=trial, search_space=space, storage=str(tmp_path))
    plan = make_plan(sweep, gpu_memory=None)
    low, high = plan.to_json()["shares"]["mixture.sums"]  # type: ignore[index]
    rows = sum(one["rows"] for one in low)
    assert [one["drawn_rows"] for one in low] == [rows, 0]
    assert [one["drawn_rows"] for one in high] == pytest.approx([rows / 2, rows / 2], abs=0.5)
    of_sums = plan.manifest["splits"]["train"]["sources"][1]
    assert high[1]["drawn_tokens"] == round(rows / 2 * of_sums["tokens"] / of_sums["rows"])
    said = f"mixture.sums 0 … 0.5, an epoch: chats {rows} … {round(rows / 2)} rows, "
    assert said in plan_text(plan)
    assert f"sums 0 … {round(rows / 2)} rows, 0 … {high[1]['drawn_tokens']:,} tokens, 0.00 … " in (
        plan_text(plan)
    )
    given = replace(sweep, search_space={}, points=({"mixture.sums": 0.1}, {"mixture.sums": 0.2}))
    assert "mixture.sums 0.1 … 0.2, an epoch: " in plan_text(make_plan(given, gpu_memory=None))
    fixed = replace(sweep, search_space={}, points=({},), trial=trial.at({"mixture.sums": 0.4}))
    assert "rows, 40 % of those that are drawn" in plan_text(make_plan(fixed, gpu_memory=None))
