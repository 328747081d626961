"""Rate × share: the tables on the page are those of the trials that were trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from share_grid import grid_lines, search_lines  # noqa: E402

TABLE = ROOT / "benchmarks" / "landscapes" / "demo_gsm8k_sgd_shares.json"


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return loaded


def test_the_page_has_the_tables_of_the_trials(table: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "landscapes.md").read_text(encoding="utf-8")
    said = " ".join(page.split())
    for line in (*grid_lines(table), *search_lines(table)):
        assert " ".join(line.split()) in said, line


def test_every_trial_of_the_grid_has_the_same_rows_and_the_mean_of_its_sources(
    table: dict[str, Any],
) -> None:
    assert len({trial["rows"] for trial in table["grid"]}) == 1
    weights = dict(zip(table["sources"], table["weights"], strict=True))
    for trial in (*table["grid"], *table["search"]):
        mean = sum(weights[name] * loss for name, loss in trial["by_source"].items())
        assert trial["eval_loss"] == pytest.approx(mean, abs=2e-6), trial


def test_the_command_prints_the_tables_again(table: dict[str, Any]) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "share_grid.py"), "--out", str(TABLE)]
    done = subprocess.run([*command, "--show"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*grid_lines(table), *search_lines(table)]
