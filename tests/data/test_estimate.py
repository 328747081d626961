"""A sample that is cut to shorter rows is the sample that would have been taken for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sftray.config import DataConfig
from sftray.data.estimate import estimate_from, estimate_packs, take_samples
from sftray.data.packs.readings import drop_table
from sftray.data.recipe import make_recipe
from sftray.demo import FOLDER
from sftray.errors import DataError

DATA = DataConfig(str(FOLDER / "chats.jsonl"), max_length=4096)


@pytest.mark.parametrize("max_length", [4096, 256, 96])
def test_a_sample_cut_to_shorter_rows_is_one_taken_for_them(max_length: int) -> None:
    recipe = make_recipe(DATA, str(FOLDER))
    shorter = recipe.resized(max_length=max_length, eval_fraction=0.1)
    (whole,), (anew,) = take_samples(recipe, 500), take_samples(shorter, 500)
    cut = whole.cut(max_length)
    assert np.array_equal(cut.kept, anew.kept)
    assert cut.report.dropped == anew.report.dropped
    assert cut.report.lost_exchanges == anew.report.lost_exchanges
    assert estimate_from(shorter, [cut]) == estimate_packs(shorter, sample=500)


def test_a_resized_recipe_is_that_of_the_other_rows() -> None:
    other = DataConfig(DATA.source, max_length=128, eval_fraction=0.2)
    recipe = make_recipe(DATA, str(FOLDER)).resized(max_length=128, eval_fraction=0.2)
    assert recipe == make_recipe(other, str(FOLDER))


def test_a_sample_of_which_no_row_holds_a_conversation_is_refused() -> None:
    with pytest.raises(DataError, match="none of 50 sampled conversations can be trained on"):
        take_samples(make_recipe(DATA, str(FOLDER)), 50)[0].cut(8)


def test_bad_rows_of_a_sample_are_shown_with_the_line_of_their_file(tmp_path: Path) -> None:
    """In any of the chunks that are looked at; the plan shows the first of each reason."""
    file = tmp_path / "chats.jsonl"
    answer = {"role": "assistant", "content": "It is " + "so " * 40}
    rows = [
        {"messages": [{"role": "user", "content": f"{n**3} {n**5} {n**7}"}, answer]}
        for n in range(3000)
    ]
    rows[2990] = {"messages": [{"role": "user", "content": "Row 2991?"}]}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")
    recipe = make_recipe(DataConfig(str(file)), str(FOLDER), chunk_bytes=15_000)
    facts = estimate_packs(recipe, sample=2000)["splits"]["train"]
    assert facts["dropped"] == {"no assistant turn": 1}
    (example,) = facts["examples"]["no assistant turn"]
    assert (example["file"], example["line"]) == (str(file), 2991)
    table = drop_table(facts, facts["dropped"], first="  ")
    assert table[0] == "         1  no assistant turn".rjust(len(table[0]))
    assert f"{file}:2991" in table[1]
    assert "Row 2991?" in table[1]
