"""Metrics of a trial besides its eval loss: functions of its answers to held-out prompts.

`SweepConfig.metric` names one as "module:function", these or a user's own. It gets the answers and
the references, both in order, and returns a number. A module of the user's must be importable where
trials run.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Sequence

from sftray.errors import ConfigError

ANSWER_TOKENS = 64
"""An answer that nothing scores has at most so many tokens."""

Metric = Callable[[Sequence[str], Sequence[str]], float]


def answer_tokens(references: Iterable[int]) -> int:
    """How many tokens an answer may have that is held against references of so many: a quarter more
    than the longest, so that no right answer is cut off before what it is scored by."""
    return max(ANSWER_TOKENS, *(math.ceil(1.25 * length) + 1 for length in references), 0)


def load_metric(name: str) -> Metric:
    """The function that "module:function" names. Raises ConfigError where there is none."""
    module, _, function = name.partition(":")
    try:
        found: Metric = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"metric: got {name!r} ({error}), must be an importable 'module:function', as in "
            "sftray.metrics:exact_match"
        ) from error
    return found


def exact_match(answers: Sequence[str], references: Sequence[str]) -> float:
    """The share of answers that are the reference, up to white space and case."""
    return _share(_words(a) == _words(r) for a, r in zip(answers, references, strict=True))


def last_number(answers: Sequence[str], references: Sequence[str]) -> float:
    """The share of answers whose last number is the reference's, as GSM8K is scored."""
    return _share(
        _number(a) is not None and _number(a) == _number(r)
        for a, r in zip(answers, references, strict=True)
    )


def _share(right: Iterable[bool]) -> float:
    found = list(right)
    return sum(found) / max(len(found), 1)


def _words(text: str) -> list[str]:
    return text.casefold().split()


def _number(text: str) -> float | None:
    # a minus stands before a number, not between two: "3-4" ends on 4
    found = re.findall(r"(?:(?<![\w.)])[-−])?\d[\d,]*(?:\.\d+)?", text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None
