"""A test set that no decision has seen: what is in it, and what base and winner lose on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bank_models import short_spec
from fake_bundle import facts_of
from packs_here import build_packs_here
from peft import AutoPeftModelForCausalLM
from torch.nn import functional
from transformers import AutoModelForCausalLM

from sftray.config import DataConfig, TrialConfig
from sftray.data.estimate import estimate_packs
from sftray.data.packs.inspect import inspect_text
from sftray.data.packs.packs import Packs
from sftray.data.recipe import make_recipe
from sftray.errors import DataError
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train.attempts import run_trial
from sftray.winner.check import Asking, assemble
from sftray.winner.model_card import model_card

CPU = torch.device("cpu")


def rows(number: int, *, twice: int = 0) -> list[str]:
    """Conversations, of which the first few come again word for word."""
    texts = [f"What is {k} and {k}?" for k in range(number)]
    talks = [
        {"messages": [{"role": "user", "content": text},
                      {"role": "assistant", "content": f"It is {k} twice."}]}
        for k, text in enumerate(texts)
    ]  # fmt: skip
    return [json.dumps(talk) for talk in (*talks, *talks[:twice])]


def data_of(folder: Path, lines: list[str], **more: object) -> DataConfig:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("\n".join(lines))
    given = {"max_length": 256, "eval_fraction": 0.05, **more}
    return DataConfig(str(folder / "rows.jsonl"), **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("tested")
    return data_of(folder, rows(400, twice=200), test_fraction=0.1)


@pytest.fixture(scope="module")
def packs(data: DataConfig, tiny: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Packs:
    return build_packs_here(data, tiny.model, storage=str(tmp_path_factory.mktemp("packs")))


def members(packs: Packs, split: str) -> set[int]:
    return {int(one) for row in packs.dataset(split) for one in row["documents"]}


def test_each_conversation_is_on_one_side_with_its_twin(
    packs: Packs, data: DataConfig, tiny: TrialConfig, tmp_path: Path
) -> None:
    sides = {split: members(packs, split) for split in packs.manifest["splits"]}
    assert set.union(*sides.values()) == set(range(600))
    assert sum(map(len, sides.values())) == 600
    for side in sides.values():
        twins = {one + 400 for one in side if one < 200} | {one - 400 for one in side if one >= 400}
        assert twins <= side
    assert 40 <= len(sides["test"]) <= 60
    without = build_packs_here(replace(data, test_fraction=0.0), tiny.model, storage=str(tmp_path))
    assert members(without, "eval") == sides["eval"]
    assert members(without, "train") == sides["train"] | sides["test"]


def test_there_is_one_of_400_conversations_or_more_and_else_it_is_said(
    tiny: TrialConfig, tmp_path: Path
) -> None:
    for number, wanted in ((400, 20), (399, 0)):
        data = data_of(tmp_path / str(number), rows(number))
        lines: list[str] = []
        packs = build_packs_here(data, tiny.model, storage=str(tmp_path), log=lines.append)
        estimate = estimate_packs(make_recipe(data, tiny.model))
        for splits in (packs.manifest["splits"], estimate["splits"]):
            held = splits["test"]["conversations"] if "test" in splits else 0
            assert held == wanted
    assert "test: none, because 399 conversations are fewer than 400" in lines
    card = model_card(facts_of(tiny))
    assert "There is no test set" in card
    assert "180 conversations are fewer than the 400 that it takes" in card


def test_where_no_question_can_be_held_out_there_is_none(tiny: TrialConfig, tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(rows(1)[0])
    same = [line.replace(f"What is {k} and {k}?", "Why?") for k, line in enumerate(rows(400))]
    data = data_of(tmp_path / "rows", same, eval_source=str(tmp_path / "eval.jsonl"))
    lines: list[str] = []
    packs = build_packs_here(data, tiny.model, storage=str(tmp_path), log=lines.append)
    assert "test" not in packs.manifest["splits"]
    assert "test: none, because each first user turn begins too many conversations" in lines


@pytest.mark.parametrize("eval_given", [False, True])
def test_a_given_set_is_whole_and_the_others_lose_what_it_has(
    tiny: TrialConfig, tmp_path: Path, eval_given: bool
) -> None:
    """20 of 400 conversations are in the test set's 250 word for word, and 5 of the 60 that are
    evaluated on."""
    (tmp_path / "test.jsonl").write_text("\n".join(rows(630)[380:]))
    given: dict[str, object] = {"test_source": str(tmp_path / "test.jsonl")}
    if eval_given:
        (tmp_path / "eval.jsonl").write_text("\n".join(rows(1055)[625:685] + rows(5)))
        given["eval_source"] = str(tmp_path / "eval.jsonl")
    data, lines = data_of(tmp_path / "rows", rows(400), **given), list[str]()
    packs = build_packs_here(data, tiny.model, storage=str(tmp_path), log=lines.append)
    assert members(packs, "test") == set(range(250))
    if eval_given:
        assert members(packs, "train") == set(range(5, 380))
        assert members(packs, "eval") == set(range(5, 65))
    else:
        assert members(packs, "train") | members(packs, "eval") == set(range(380))
    (line,) = [line for line in lines if "the test set" in line]
    found = 20 + 5 * eval_given
    assert f"{found} training and evaluation conversations begin like one of the test set" in line
    assert f"{found} of its 250 are in the training and evaluation data word for word" in line
    assert line in inspect_text(packs, rows=0)
    estimate = estimate_packs(make_recipe(data, tiny.model))
    assert estimate["overlaps"] == packs.manifest["overlaps"]
    assert estimate["splits"]["test"]["conversations"] == 250


def test_a_given_set_that_is_trained_on_is_refused(tiny: TrialConfig, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("\n".join(rows(410)[370:]))
    data = data_of(tmp_path / "rows", rows(400), test_source=str(tmp_path / "test.jsonl"))
    message = r"test data: 30 of 40 conversations \(75 %\) are in the training and evaluation data"
    with pytest.raises(DataError, match=message):
        build_packs_here(data, tiny.model, storage=str(tmp_path))


def test_a_source_that_other_sets_hold_whole_is_refused(tiny: TrialConfig, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("\n".join(rows(400)))
    data = data_of(tmp_path / "rows", rows(20), test_source=str(tmp_path / "test.jsonl"))
    with pytest.raises(DataError, match=r"train data: none of the 20 conversations of .* are left"):
        build_packs_here(data, tiny.model, storage=str(tmp_path))


def test_the_key_is_that_of_the_test_set(tiny: TrialConfig, tmp_path: Path) -> None:
    data = data_of(tmp_path / "rows", rows(5))
    given = replace(data, test_source=str(tmp_path / "rows" / "rows.jsonl"))
    three = (data, replace(data, test_fraction=0.0), given)
    assert len({make_recipe(one, tiny.model).key for one in three}) == 3
    other = replace(given, test_fraction=0.2)  # has no effect
    assert make_recipe(other, tiny.model).key == make_recipe(given, tiny.model).key


def by_transformers(model: torch.nn.Module, packs: Packs) -> tuple[float, dict[int, float]]:
    """The loss of the test set, each document by itself through an eager model, and of each
    conversation the sum."""
    sums: dict[int, float] = {}
    tokens = 0
    for row in packs.dataset("test").with_format("torch"):
        starts = np.cumsum([0, *row["seq_lengths"].tolist()])
        for ordinal, start, stop in zip(
            row["documents"].tolist(), starts, starts[1:], strict=False
        ):
            ids, labels = row["input_ids"][start:stop].long(), row["labels"][start:stop].long()
            with torch.no_grad():
                logits = model(ids[None]).logits[0, :-1]
            loss = functional.cross_entropy(logits, labels[1:], reduction="sum")
            sums[ordinal] = sums.get(ordinal, 0.0) + float(loss)
            tokens += int((labels[1:] != -100).sum())
    return sum(sums.values()) / tokens, sums


def test_base_and_winner_lose_what_plain_transformers_and_peft_lose(
    packs: Packs, data: DataConfig, tiny: TrialConfig, tmp_path: Path
) -> None:
    trial = replace(tiny, effective_batch_size=2, num_train_epochs=1, learning_rate=3e-3)
    spec = short_spec(packs, trial, tmp_path / "trial")
    run_trial(spec, lambda report: None, CPU)
    checkpoint = TrialPaths(spec.folder).checkpoint(spec.plan.steps)
    check = assemble(checkpoint, trial, packs.root, Asking([], data))
    assert check.test is not None
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name, content in check.files.items():
        (bundle / name).write_bytes(content or b"")
    base = AutoModelForCausalLM.from_pretrained(tiny.model, attn_implementation="eager")
    winner = AutoPeftModelForCausalLM.from_pretrained(bundle, attn_implementation="eager")
    theirs, sums = by_transformers(base.eval(), packs)
    ours, _ = by_transformers(winner.eval(), packs)
    assert check.test["base"]["value"] == pytest.approx(theirs, abs=1e-5)
    assert check.test["winner"]["value"] == pytest.approx(ours, abs=1e-5)
    assert check.test["number"] == len(sums) == packs.manifest["splits"]["test"]["conversations"]
    difference = check.test["difference"]
    assert difference["low"] < difference["value"] < difference["high"] < 0  # type: ignore[operator]
    card = model_card(facts_of(trial, test=check.test))
    assert f"On a test set that no decision has seen: eval loss of {len(sums)} conv" in card
    assert card.index("On a test set") < card.index("| untrained base |")
