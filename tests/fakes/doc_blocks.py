"""The pages' code blocks and the commands in them, for test_docs.py."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile, groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    def commands(self) -> list[Command]:
        """Of a bash block every line; of a console block the lines after $, with what is shown."""
        text = self.text.replace("\\\n", " ")
        lines = [(line, ()) for line in text.splitlines()] if self.language == "bash" else []
        if self.language == "console":
            parts = [part.splitlines() for part in re.split(r"^\$ ", text, flags=re.M)[1:]]
            lines = [(line, tuple(shown)) for line, *shown in parts]
        return [Command(self, words, shown) for line, shown in lines for words in _joined(line)]


@dataclass(frozen=True)
class Command:
    """A command that a page shows."""

    block: Block
    words: tuple[str, ...]
    """Without leading assignments, and what & and … stand for."""
    shown: tuple[str, ...]
    """What the page says that it prints."""

    def __str__(self) -> str:
        return f"{self.block.page.name}: {shlex.join(self.words)}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(page, language, text) for language, text in found]


def all_commands() -> list[Command]:
    """The commands of all pages."""
    return [command for page in PAGES for block in blocks(page) for command in block.commands()]


def missing_lines(shown: tuple[str, ...], printed: str) -> list[str]:
    """The lines that a page shows and that were not printed, in this order; … stands for any text
    at the end of a line, and alone for any lines."""
    rest, missing = printed.splitlines(), []
    for line in shown:
        begin, cut, _ = line.partition("…")
        if not begin.strip():
            continue
        at = [k for k, one in enumerate(rest) if one.startswith(begin) and (cut or one == begin)]
        if at:
            rest = rest[at[0] + 1 :]
        else:
            missing.append(line)
    return missing


def _joined(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line that && joins; none of an empty line or a comment."""
    words = shlex.split(line, comments=True)
    for joint, part in groupby(words, key="&&".__eq__):
        kept = dropwhile(_ASSIGNMENT.fullmatch, part)
        command = tuple(word for word in kept if word not in ("&", "…"))
        if command and not joint:
            yield command
