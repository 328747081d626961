"""The last screen of a demo: what it counts, what it shows, and commands that can be run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sftray.cli.demo_answers import SHOWN, answers_text, next_text
from sftray.cli.main import _parser
from sftray.demo import QUESTIONS
from sftray.results import Results


@pytest.mark.ray
@pytest.mark.slow
def test_base_and_winner_answer_the_questions(small_sweep: Results, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    lines = QUESTIONS.read_text().splitlines(keepends=True)[: SHOWN + 1]
    few.write_text("".join(lines))
    head, base, winner, *shown = answers_text(small_sweep.folder, few).splitlines()
    assert head.startswith(f"{SHOWN + 1} held-out questions")
    assert re.fullmatch(r"  base +0 % \(0 to 49\)", base)  # Wilson's interval of 0 of 4
    assert re.fullmatch(r"  t000\d +\d+ % \(\d+ to \d+\)", winner)
    assert sum(line.startswith("  base") for line in shown) == SHOWN
    assert max(map(len, shown)) <= 110


def test_the_commands_to_continue_with_are_commands() -> None:
    _, *commands = next_text("results/demo-lr_batch").splitlines()
    assert len(commands) == 3
    for line in commands:
        _parser().parse_args(shlex.split(line)[1:])
