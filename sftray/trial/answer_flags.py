"""What can be seen of an answer to be wrong, whatever the loss says.

Promise: flags are given here and nowhere else, from the answer's text alone and whether it came to
its end.
"""

from __future__ import annotations

from collections.abc import Sequence

FLAGS = ("empty", "repeats", "no_end")
"""Nothing but white space; repeats itself; was cut off before its end."""
BAD = {"empty": "are empty", "repeats": "repeat themselves"}
"""Flags of bad answers, in words. Long answers are cut off, too."""

WINDOW, FEW_WINDOWS = 3, 10
"""An answer is looked at in windows of three words; ten of them can say something."""
FRESH = 0.5
"""Where fewer than half of the windows are new, an answer repeats itself: in the demo's
answers that do so 0.07 to 0.36 are, in the answers of the bundled chats at least 0.83."""


def flags_of(answer: str, *, ended: bool) -> list[str]:
    """Its flags, in the order of FLAGS."""
    wrong = (not answer.strip(), repeats_itself(answer), not ended)
    return [flag for flag, so in zip(FLAGS, wrong, strict=True) if so]


def repeats_itself(answer: str) -> bool:
    """Whether an answer says the same three words again and again."""
    words = answer.split()
    if len(answer) > 20 * len(words):  # a script without spaces
        words = list(answer)
    windows = [tuple(words[at : at + WINDOW]) for at in range(len(words) - WINDOW + 1)]
    return len(windows) >= FEW_WINDOWS and len(set(windows)) < FRESH * len(windows)


def bad_answers(flags: Sequence[Sequence[str]]) -> str:
    """What is bad of answers with these flags, as part of a sentence; empty where nothing is."""
    counts = {flag: sum(flag in one for one in flags) for flag in BAD}
    bad = [f"{count} of {len(flags)} {BAD[flag]}" for flag, count in counts.items() if count]
    return ", ".join(bad)
