"""docs/models.md has every type that benchmarks/models.py examines, and how a bound is stated."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from models import TYPES, Line, as_table  # noqa: E402

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("| on a CPU |") :].strip().splitlines()[2:]


def test_every_type_is_in_one_row_with_an_attention_on_each_device() -> None:
    rows = [line.strip("| ").split(" | ") for line in TABLE]
    assert all(cell not in ("", "–") for row in rows for cell in row)
    assert sorted(re.findall(r"\w+", " ".join(row[2] for row in rows))) == sorted(TYPES.split())


def test_the_readme_counts_the_types() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    in_a_bank = sum(line.count("**") for line in TABLE) // 2
    assert f"{len(TYPES.split())} types of transformers train, {in_a_bank} of them" in readme


def test_a_row_says_what_was_passed_over_and_types_alike_share_one() -> None:
    refused = ["sdpa: y documents of a packed row see each other"]
    cpu = [Line("x", attention="apart", refused=refused, memory=True), Line("z", attention="sdpa")]
    cpu.append(Line("y", attention="apart", refused=refused, bank="the bank computes others"))
    gpu = [Line(kind, failed="RuntimeError: no") for kind in "xyz"]
    assert as_table(cpu, gpu).splitlines()[2:] == [
        "| apart (documents leak: sdpa) | refused: RuntimeError: no | **x**, y† |",
        "| sdpa | refused: RuntimeError: no | **z**† |",
    ]
