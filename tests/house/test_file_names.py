"""A newcomer who looks for a thing by its name opens the right file at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sftray

ROOT = Path(sftray.__file__).parent
QUESTIONS = {
    "Where is the effective batch split?": ("effective_batch", "split_batch"),
    "Where is the learning-rate schedule?": ("lr_schedule", "scheduled_rate"),
    "Where does the loss mask come from?": ("loss_mask", "encode"),
    "Where are conversations packed?": ("packing", "pack"),
    "Where does ASHA decide?": ("asha", "asha"),
    "Where is a W&B run started?": ("wandb", "start_run"),
    "What happens when a trial is out of memory?": ("out_of_memory", "in_less_memory"),
    "Where are overrides applied?": ("overrides", "override"),
    "Where is the leaderboard made?": ("leaderboard", "leaderboard"),
    "Where is a spot notice read?": ("spot_notice", "wait_for_notice"),
}
"""The word that is asked for, and the function that answers."""


def answering_files(root: Path, function: str) -> list[str]:
    """The files that define a function."""
    return [
        path.stem
        for path in sorted(root.rglob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_file_that_answers_has_the_asked_word_in_its_name(question: str) -> None:
    word, function = QUESTIONS[question]
    files = answering_files(ROOT, function)
    assert any(word in file for file in files), files


def test_an_answer_in_a_file_of_another_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "arithmetic.py").write_text("def split_batch(): ...", encoding="utf-8")
    assert answering_files(tmp_path, "split_batch") == ["arithmetic"]
