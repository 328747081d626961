"""Several sources in one pack: apart, whole, and the same as each alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from packs_here import build_packs_here

from sftray.config import DataConfig, SweepConfig
from sftray.data.estimate import estimate_packs
from sftray.data.packs.packs import Packs
from sftray.data.recipe import make_recipe
from sftray.data.source.sources import first_rows
from sftray.demo import FOLDER
from sftray.errors import DataError

COUNTS = ("conversations", "rows", "tokens", "supervised_tokens")


def test_the_rows_of_each_source_are_those_of_its_own_packs(
    mixed_packs: Packs, mixed_data: DataConfig, small_sweep_config: SweepConfig
) -> None:
    for split in ("train", "eval"):
        facts, whole = mixed_packs.manifest["splits"][split], mixed_packs.dataset(split)
        first = 0
        for one, counts in zip(mixed_data.mixture, facts["sources"], strict=True):
            data = replace(mixed_data, source=one.path, sources=())
            alone = build_packs_here(data, str(FOLDER), storage=small_sweep_config.storage)
            own = alone.manifest["splits"][split]
            assert {name: own[name] for name in COUNTS} == {name: counts[name] for name in COUNTS}
            rows = whole.select(range(first, first + counts["rows"]))
            assert rows.to_list() == alone.dataset(split).to_list()
            first += counts["rows"]
        assert first == facts["rows"] == len(whole)
        for name in COUNTS:
            assert facts[name] == sum(one[name] for one in facts["sources"])


def test_packs_do_not_depend_on_the_weights(mixed_data: DataConfig) -> None:
    other = replace(mixed_data, sources=[(one.path, 1.0) for one in mixed_data.mixture])
    turned = replace(mixed_data, sources=mixed_data.sources[::-1])
    keys = [make_recipe(data, str(FOLDER)).key for data in (mixed_data, other, turned)]
    assert keys[0] == keys[1] != keys[2]


def test_sample_prompts_are_of_both_sources_in_turn(mixed_packs: Packs) -> None:
    prompts = [one["messages"][-1]["content"] for one in mixed_packs.manifest["sample_prompts"]]
    assert ["?" in text and "+" in text for text in prompts[:6]] == [False, True] * 3


def test_a_plan_estimates_each_source(mixed_packs: Packs, mixed_data: DataConfig) -> None:
    estimate = estimate_packs(make_recipe(mixed_data, str(FOLDER)))["splits"]["train"]["sources"]
    built = mixed_packs.manifest["splits"]["train"]["sources"]
    for ours, theirs in zip(estimate, built, strict=True):
        assert ours["tokens"] == pytest.approx(theirs["tokens"], rel=0.1)


def test_bad_rows_are_counted_of_each_source(mixed_data: DataConfig, tmp_path: Path) -> None:
    bad = f"{tmp_path}/bad.jsonl"
    good = '{"prompt": "a", "completion": "b"}\n'
    with open(bad, "w") as file:
        file.write(good * 8 + '{"prompt": "a", "completion": ""}\n' * 2)
    data = replace(mixed_data, sources=[*mixed_data.sources, (bad, 0.1)])
    with pytest.raises(DataError, match=r"bad\.jsonl data: 2 of 10 rows are bad"):
        build_packs_here(data, str(FOLDER), storage=str(tmp_path))


def test_columns_rename_those_of_the_sources_that_have_them(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.csv"
    ours.write_text('{"question": "a", "answer": "b"}\n' * 3)
    theirs.write_text("prompt,completion\nc,d\n")
    data = DataConfig(
        sources=[(str(ours), 1), (str(theirs), 1)],
        columns={"question": "prompt", "answer": "completion"},
    )
    rows = [first_rows(source, 1)[0] for source in make_recipe(data, str(FOLDER)).train]
    read = [(row["prompt"], row["completion"]) for row in rows]  # type: ignore[index]
    assert read == [("a", "b"), ("c", "d")]
