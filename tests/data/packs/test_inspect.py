"""What a person sees of a pack: the mask on decoded rows, lengths, waste, dropped rows."""

from __future__ import annotations

import json

import pytest
from data_templates import DEMO

from sftray.config import DataConfig
from sftray.data.packs.inspect import inspect_json, inspect_text
from sftray.data.packs.packs import Packs
from sftray.data.pipeline import packs_from
from sftray.data.recipe import make_recipe

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Packs:
    folder = tmp_path_factory.mktemp("inspect")
    rows = [
        {"prompt": f"Question {k}?", "completion": "Long answer. " * (k % 30) + "Yes."}
        for k in range(200)
    ]
    rows[5]["completion"] = ""
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(str(path), max_length=256)
    return packs_from(make_recipe(data, str(DEMO)), storage=str(folder))


def test_trained_tokens_are_marked(packs: Packs) -> None:
    text = inspect_text(packs, rows=2)
    assert "<|im_start|>assistant\n⟦" in text
    assert "Yes.<|im_end|>⟧" in text
    assert "Question" in text
    assert "⟦Question" not in text
    coloured = inspect_text(packs, rows=1, color=True)
    assert "\x1b[1;32m" in coloured
    assert "⟦" not in coloured


def test_lengths_waste_and_dropped_rows_are_shown(packs: Packs) -> None:
    text = inspect_text(packs, rows=0)
    for shown in ("\n         256", "←", "dropped 1 of 200", "empty answer", ":6 "):
        assert shown in text, shown
    assert "4,096" not in text  # all of them are short
    facts = packs.manifest["splits"]["train"]
    assert f"{100 * facts['waste']:.2f} %" in text
    assert facts["waste_padded"] > facts["waste"]
    assert sum(facts["lengths"]["histogram"].values()) == 199
    for cut in facts["lengths"]["cuts"].values():
        assert sum(cut.values()) == 199


def test_the_json_has_the_fields_of_the_design(packs: Packs) -> None:
    facts = inspect_json(packs)
    assert set(facts) == {"train", "eval", "overlaps"}
    assert facts["overlaps"] == {}  # the evaluation set was held out
    for split in ("train", "eval"):
        assert set(facts[split]) == {
            "conversations",
            "dropped",
            "unread",
            "spelled",
            "thoughts",
            "rows",
            "tokens",
            "supervised_tokens",
            "waste",
            "sources",
        }
    assert facts["train"]["dropped"] == {"empty answer": 1}
    json.dumps(facts)
