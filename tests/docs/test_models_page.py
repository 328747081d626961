"""docs/models.md has every type that benchmarks/models.py examines, and how a bound is stated."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from models import TYPES, Line, as_table  # noqa: E402

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_every_type_has_a_row() -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.splitlines()]
    assert sorted(set(TYPES.split()) - set(rows)) == []


def test_the_readme_counts_the_types() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    in_a_bank = sum(" | yes | " in line for line in PAGE.splitlines())
    assert f"{len(TYPES.split())} types of transformers train, {in_a_bank} of them" in readme


def test_no_type_is_left_without_an_attention_or_a_reason() -> None:
    for kind in TYPES.split():
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {kind} | ")]
        cells = row.split(" | ")[1:3]
        assert all(cell not in ("", "–") for cell in cells), row


def test_a_row_says_what_was_passed_over() -> None:
    cpu = Line("x", attention="apart", refused=["sdpa: y documents of a packed row see each other"])
    gpu = Line("x", failed="RuntimeError: no")
    assert (
        as_table([cpu], [gpu])
        .splitlines()[-1]
        .startswith("| x | apart (documents leak: sdpa) | refused: RuntimeError: no | yes | ")
    )
