"""The pages stay short: all of them together, and what a new user reads before the first sweep."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from doc_blocks import PAGES, ROOT

from sftray.cli.launch import launch
from sftray.cli.main import main

MAX_WORDS = 20_000
"""Of README and docs/. Never raise it: what comes in takes the place of something."""
MAX_README_LINES = 160
MAX_FIRST_WORDS = 600
"""From the README's top to the command that runs a sweep, and what init and --plan print."""


def words(text: str) -> int:
    """What stands between spaces and has a letter or a digit."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def longest_first(pages: list[Path]) -> list[tuple[int, str]]:
    return sorted(((words(_text(page)), page.name) for page in pages), reverse=True)


def test_all_pages_together_are_short() -> None:
    pages = longest_first([page for page in PAGES if page.name != "CONTRIBUTING.md"])
    assert sum(count for count, _ in pages) <= MAX_WORDS, pages


def test_the_readme_is_short() -> None:
    assert len(_text(ROOT / "README.md").splitlines()) <= MAX_README_LINES


def test_a_first_sweep_takes_few_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    file = tmp_path / "my_sweep.py"
    wanted = ["--data", "sftray/demo/chats.jsonl", "--model", "sftray/demo"]
    with pytest.raises(SystemExit, match="0"):
        main(["init", str(file), *wanted])
    with pytest.raises(SystemExit, match="0"):
        launch(runpy.run_path(str(file))["sweep"], ["--plan"])
    printed = "".join(capsys.readouterr())
    assert "wrote" in printed
    long = [line for line in printed.splitlines() if len(line) > 110]
    assert all(str(file) in line for line in long), long
    assert "rungs:" in printed
    readme = _text(ROOT / "README.md")
    read = readme[: readme.index("python my_sweep.py  ")]
    assert words(read) + words(printed) <= MAX_FIRST_WORDS


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")
