"""The eval loss by kind of token: bank, `train` and plain transformers have the same."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_models import settings_for, short_spec
from packs_here import build_packs_here
from reported import into
from torch.nn import functional
from transformers import AutoModelForCausalLM

from sftray.config import DataConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial.eval_losses import EvalLoss
from sftray.trial.progress import StoppedError
from sftray.trial.trial_report import Report

CPU = torch.device("cpu")
TOOL = {"type": "function", "function": {"name": "forecast", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, tiny: TrialConfig) -> Packs:
    """Thoughts, calls and plain answers, as Qwen3's template writes them."""
    folder = tmp_path_factory.mktemp("kinds")
    call = {"type": "function", "function": {"name": "forecast", "arguments": {"town": "Ulm"}}}
    rows = [
        {
            "tools": [TOOL] if number % 2 else [],
            "messages": [
                {"role": "user", "content": f"Question {number}?"},
                {
                    "role": "assistant",
                    "content": f"Answer {number}.",
                    "reasoning_content": f"It is {number}, surely.",
                    **({"tool_calls": [call]} if number % 2 else {}),
                },
            ],
        }
        for number in range(24)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(
        str(folder / "rows.jsonl"),
        max_length=512,
        eval_fraction=0.4,
        chat_template="qwen3",
        max_bad_fraction=0,
    )
    return build_packs_here(data, tiny.model, storage=str(folder))


def by_transformers(model: str, packs: Packs) -> dict[str, tuple[float, int]]:
    """Each document by itself through the eager model; sums by the packs' own labels."""
    base = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager")
    sums = {kind: [0.0, 0] for kind in range(4)}
    for row in packs.dataset("eval").with_format("torch"):
        at = 0
        for length in row["seq_lengths"].tolist():
            ids, labels = row["input_ids"][at : at + length], row["labels"][at : at + length]
            with torch.no_grad():
                logits = base(ids[None].long()).logits[0]
            for place in range(1, length):
                if labels[place] != -100:
                    loss = functional.cross_entropy(logits[place - 1], labels[place].long())
                    kept = sums[int(row["kinds"][at + place])]
                    kept[0], kept[1] = kept[0] + float(loss), kept[1] + 1
            at += length
    names = ("words", "end", "thoughts", "calls")
    return {name: (sums[k][0] / sums[k][1], sums[k][1]) for k, name in enumerate(names)}


def test_bank_and_train_report_the_losses_of_plain_transformers(
    tiny: TrialConfig, packs: Packs, tmp_path: Path
) -> None:
    tiny = replace(tiny, effective_batch_size=2)
    spec = short_spec(packs, tiny, tmp_path / "bank")
    of_bank: list[dict[str, Any]] = []
    engine = Engine(load_model(tiny, CPU), tiny, packs, settings_for([tiny], 1), CPU)
    engine.admit(engine.prepare(spec, into(of_bank)))
    of_train: list[dict[str, Any]] = []

    def stop(report: Report) -> None:
        of_train.append(dict(report.values()))
        raise StoppedError

    with pytest.raises(StoppedError):
        run_trial(short_spec(packs, tiny, tmp_path / "train"), stop, CPU)
    expected = by_transformers(tiny.model, packs)
    for report in (of_bank[0], of_train[0]):
        found = {name: (loss, count) for name, loss, count in report["eval_loss_by_kind"]}
        assert found.keys() == expected.keys()
        for name, (loss, count) in expected.items():
            assert found[name][1] == count
            assert found[name][0] == pytest.approx(loss, abs=1e-5)
        tokens = sum(count for _, count in found.values())
        mean = sum(loss * count for loss, count in found.values()) / tokens
        assert report["eval_loss"] == pytest.approx(mean, abs=1e-9)
        assert tokens == packs.manifest["splits"]["eval"]["supervised_tokens"]


def test_a_kind_without_tokens_is_not_there() -> None:
    loss = EvalLoss.of([[6.0, 4.0, 2.0, 0.0, 0.0]], [[2, 1, 0, 0]])
    assert loss == EvalLoss(2.0, [("words", 2.0, 2), ("end", 2.0, 1)])


def test_the_mean_of_sources_is_weighted_as_configured_and_kinds_are_pooled() -> None:
    data = DataConfig(sources=[("a.jsonl", 3), ("b/*.parquet", 1), ("seen_only.csv", 0)])
    sums = [[6.0, 4.0, 2.0, 0.0, 0.0], [4.0, 4.0, 0.0, 0.0, 0.0], [math.nan, 1.0, 0.0, 0.0, 0.0]]
    loss = EvalLoss.of(sums, [[2, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], data.mixture)
    assert loss.mean == 0.75 * 2.0 + 0.25 * 4.0
    assert [(name, n) for name, _, n in loss.by_source] == [("a", 3), ("b", 1), ("seen_only", 1)]
    assert list(loss.by_kind) == [("words", 2.25, 4), ("end", 2.0, 1)]
