"""The last screen of a demo: held-out questions, answered by base and winner; what comes next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sftray.cli.terminal import WIDTH, quiet_libraries, say
from sftray.demo import QUESTIONS

if TYPE_CHECKING:
    from sftray.winner.generate import AnswerPair
    from sftray.winner.measured import Interval

SHOWN = 3
"""Questions, the first of the file: each is of another kind."""
ANSWER_TOKENS = 40
"""A third more than the longest right answer has."""


def say_answers(folder: str) -> None:
    """How many held-out questions base and winner answer exactly, and three of them."""
    say(answers_text(folder, QUESTIONS))
    say(f"\n{next_text(folder)}")


def answers_text(folder: str, questions: Path) -> str:
    """The same as text. folder: of a demo that has ended; questions: a file of them."""
    quiet_libraries()
    from sftray.metrics import exact_match
    from sftray.winner.generate import answer_all
    from sftray.winner.measured import of_metric

    facts, pairs = answer_all(folder, str(questions), ANSWER_TOKENS)
    base, winner = [one.base for one in pairs], [one.winner for one in pairs]
    references = [one.question.reference or "" for one in pairs]
    found = of_metric("exact match", exact_match, base, winner, references)
    width = max(len("base"), len(facts.trial))
    lines = [
        f"{found['number']} held-out questions, whose names and numbers are in no training row: "
        "answered exactly (95 % interval)",
        f"  {'base':<{width}}  {_percent(found['base'])}",
        f"  {facts.trial:<{width}}  {_percent(found['winner'])}",
    ]
    for one in pairs[:SHOWN]:
        lines += ["", _asked(one)]
        for who, text in (("base", one.base), (facts.trial, one.winner)):
            begins = [f"  {who:<{width}}  ", " " * (width + 4)]
            rows = text.splitlines() or [""]
            lines += [f"{begins[at > 0]}{row}"[:WIDTH] for at, row in enumerate(rows)]
    return "\n".join(lines)


def next_text(folder: str) -> str:
    """The commands to continue with: ask the winner, see what became of each trial, and a sweep of
    one's own."""
    question = "Note this: Kwame would like the vet on Friday at 15:45."
    commands: Sequence[Sequence[str]] = (
        ["generate", folder, question],
        ["results", folder, "-v"],
        ["init", "my_sweep.py", "--data", "chats.jsonl", "--model", "sftray/demo"],
    )
    return "\n".join(["next:", *(f"  {shlex.join([_sftray(), *one])}" for one in commands)])


def _sftray() -> str:
    """The command as this shell finds it."""
    if shutil.which("sftray"):
        return "sftray"
    return os.path.relpath(Path(sys.executable).with_name("sftray"))


def _asked(one: AnswerPair) -> str:
    return " / ".join(turn["content"] for turn in one.question.turns if turn["role"] == "user")


def _percent(one: Interval) -> str:
    low, high = one["low"], one["high"]
    interval = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * one['value']:.0f} %{interval}"
