"""What was read of a source: rows that were dropped, keys that were not read, thoughts; counted of
its chunks, and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from sftray.data.packs.tokenize_pass import EXAMPLES, ChunkReport


class Example(TypedDict):
    """A row."""

    file: str
    """Or the source, where a sample was taken of several files."""
    line: int
    """0 where a sample does not know it."""
    text: str


class Thoughts(TypedDict):
    """Of the good rows, those with thoughts."""

    conversations: int
    documents: int
    """That they became."""
    tokens: int
    last_tokens: int
    """Of the documents in which the conversations end."""


class Reading(TypedDict):
    """Rows of a split's own source; a split that was held out has none."""

    read: int
    dropped: dict[str, int]
    """The bad ones among them by reason, most frequent first."""
    examples: dict[str, list[Example]]
    """By reason, and by special token in the text."""
    highest_token_id: int
    """Of the good ones."""
    unread: dict[str, int]
    """The good ones by key that nothing reads, most frequent first."""
    unread_values: dict[str, str]
    """An example of each."""
    spelled: dict[str, int]
    """The good ones by special token that their words spell, which is tokenised as text."""
    thoughts: Thoughts


def reasons_text(dropped: Mapping[str, int]) -> str:
    """Reasons with their counts, in one line."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())


def drop_table(reading: Reading, counted: Mapping[str, int], *, first: str = "") -> list[str]:
    """What was `counted` of a reading with the first example of each, lines that begin with
    `first`."""
    lines: list[str] = []
    for reason, count in counted.items():
        lines.append(f"{first}{count:8,d}  {reason}")
        for example in reading["examples"].get(reason, [])[:1]:
            place = f"{example['file']}:{example['line']}" if example["line"] else example["file"]
            lines.append(f"{first}{'':10}{place}  {example['text'][:100]}")
    return lines


def dropped_text(reading: Reading) -> str:
    """Rows that were dropped, in one line; empty where there are none."""
    number = sum(reading["dropped"].values())
    if not number:
        return ""
    reasons = reasons_text(reading["dropped"])
    return f"{number:,} of {reading['read']:,} rows dropped ({reasons})"


def unread_text(reading: Reading) -> str:
    """Keys that were not read, in one line; empty where there are none."""
    keys = [
        f"{key} ({rows:,} row{'s' * (rows > 1)}, as {reading['unread_values'][key]})"
        for key, rows in reading["unread"].items()
    ]
    return f"keys that were not read: {', '.join(keys)}" if keys else ""


def spelled_text(reading: Reading) -> str:
    """Special tokens in the words, in one line; empty where there are none."""
    counts = reading.get("spelled", {})  # packs of an earlier version do not have it
    tokens = [f"{token} ({rows:,} row{'s' * (rows > 1)})" for token, rows in counts.items()]
    return f"special tokens in the text, tokenised as text: {', '.join(tokens)}" if tokens else ""


def thoughts_text(reading: Reading, thinking: str) -> str:
    """What becomes of conversations with thoughts, in one line; empty where there are none."""
    counts = reading["thoughts"]
    if not counts["conversations"]:
        return ""
    if thinking == "drop":
        return f"{counts['conversations']:,} conversations with thoughts, which are left out"
    other = ""
    if thinking == "as_template":
        other = f"; thinking='last' would train on {counts['last_tokens']:,} of them"
    return (
        f"{counts['conversations']:,} conversations with thoughts in {counts['documents']:,} "
        f"documents of {counts['tokens']:,} tokens (thinking={thinking!r}){other}"
    )


def mask_text(beside_trl: str) -> str:
    """How the loss mask differs from TRL's, in one line; empty where it does not."""
    return f"loss mask: TRL's assistant_only_loss {beside_trl}" if beside_trl else ""


def notes(reading: Reading, thinking: str) -> list[str]:
    """What is to be known of the good rows, a line each."""
    texts = (unread_text(reading), spelled_text(reading), thoughts_text(reading, thinking))
    return [text for text in texts if text]


def reading_of(reports: Sequence[ChunkReport], paths: Sequence[str]) -> Reading:
    """What was counted of some chunks; `paths` are their files."""
    thoughts: Counter[str] = sum((report.thoughts for report in reports), Counter())
    values: dict[str, str] = {}
    for report in reports:
        values = report.unread_values | values
    return {
        "read": sum(report.rows for report in reports),
        "highest_token_id": max((report.highest_token for report in reports), default=0),
        "dropped": _summed(report.dropped for report in reports),
        "examples": _examples(reports, paths),
        "unread": _summed(report.unread for report in reports),
        "unread_values": {key: values[key] for key in sorted(values)},
        "spelled": _summed(report.spelled for report in reports),
        "thoughts": {
            "conversations": thoughts["conversations"],
            "documents": thoughts["documents"],
            "tokens": thoughts["tokens"],
            "last_tokens": thoughts["last_tokens"],
        },
    }


def _examples(reports: Sequence[ChunkReport], paths: Sequence[str]) -> dict[str, list[Example]]:
    examples: dict[str, list[Example]] = {}
    lines: Counter[str] = Counter()
    for report, path in zip(reports, paths, strict=True):
        for reason, rows in report.examples.items():
            shown = examples.setdefault(reason, [])
            for row in rows[: EXAMPLES - len(shown)]:
                line = lines[path] + row.line if row.line else 0
                shown.append({"file": path, "line": line, "text": row.text})
        lines[path] += report.lines
    return examples


def _summed(counts: Iterable[Counter[str]]) -> dict[str, int]:
    """The most frequent first."""
    counted: Counter[str] = sum(counts, Counter())
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
