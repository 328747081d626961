"""Pages, messages and docstrings keep to docs/wording.md: a pattern that it avoids is not added."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from doc_blocks import PAGES, ROOT

VERBS = "Counted|Found|Given|Held|Kept|Left|Lost|Made|Measured|Read|Reported|Said|Saved|Shown"
CLAUSE = r"\w+ (?:is|are|was|were|has|have|had|may|must|does|do|would|could|cannot|can|will)\b"
PATTERNS = {
    "verb first": rf"(?:^|[.:;] |\n)(?:{VERBS}|Taken|Told|Written) (?:is|are|was|were)\b",
    "for as because": rf", for (?!example\b|which\b|all\b|each\b|every\b){CLAUSE}",
    "told": r"\b(?:is|are|was|were|be|being|been) told\b",
    "goes on": r"\b(?:go|goes|going|went|gone) on\b",
    "of X it is": r"\b[Oo]f (?:[\w']+ ){1,3}it is (?:known|said|told|shown)\b",
    "what was said": r"\bwhat (?:is|was) (?:said|told|given|found)\b",
    "cannot be told": r"\btold apart\b|\btell\w* (?:\w+ ){0,4}apart\b|\bcannot be told\b",
    "circles": r"\bround in circles\b",
    "how manieth": r"\bmanieth\b",
    "without a word": r"\bwithout a word\b",
    "is spent": r"\b(?:is|are|was|were) spent\b",
    "nobody": r"\bnobody\b",
    "of so many": r"\b(?:of|for|by|in) so (?:many|much|few)\b",
    "anew": r"\banew\b",
}
ALLOWED = dict.fromkeys(PATTERNS, (0, 0)) | {
    "nobody": (13, 0),
    "of so many": (17, 0),
    "anew": (6, 0),
}
"""Occurrences in the texts of sftray/ and on the pages that are still there: lower a number with
each that goes, and never raise one."""


def uses(pattern: str, texts: dict[str, list[str]]) -> list[str]:
    """Where a text has the pattern, with the words around it."""
    return [
        f"{file}: …{text[max(0, use.start() - 30) : use.end() + 30]!r}"
        for file, parts in texts.items()
        for text in parts
        for use in re.finditer(pattern, text)
    ]


def strings(source: str) -> list[str]:
    """The literals of a source file: messages and docstrings."""
    nodes = ast.walk(ast.parse(source))
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_to_avoid_is_not_added(name: str) -> None:
    code = {_name(path): strings(_text(path)) for path in (ROOT / "sftray").rglob("*.py")}
    pages = {_name(path): [_text(path)] for path in PAGES if path.name != "wording.md"}
    for texts, allowed in zip((code, pages), ALLOWED[name], strict=True):
        there = uses(PATTERNS[name], texts)
        found = "\n".join(there)
        assert len(there) <= allowed, f"{name}: {len(there)}, must be {allowed} at most:\n{found}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cannot be told", "two points that cannot be told apart"),
        ("circles", "answers that go round in circles"),
        ("how manieth", "the how manieth time"),
        ("without a word", "it died without a word"),
        ("is spent", "a budget that is spent"),
        ("nobody", "push got nobody to ask"),
        ("of so many", "trials of so many epochs"),
        ("anew", "the report is written anew"),
        ("verb first", "It ends. Taken is the last."),
        ("for as because", "stopped, for it is NaN"),
        ("told", "TPE is told its loss"),
        ("goes on", "the sweep goes on"),
        ("of X it is", "of its answers it is known that they end"),
        ("what was said", "what was said when it ended"),
    ],
)
def test_each_pattern_is_seen(name: str, text: str) -> None:
    assert uses(PATTERNS[name], {"here": strings(f"x = {text!r}")})


def test_plain_sentences_are_left_alone() -> None:
    plain = "The sweep continues because its loss is finite; for a GPU, see --plan. Each is listed."
    assert not [name for name, pattern in PATTERNS.items() if uses(pattern, {"here": [plain]})]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
