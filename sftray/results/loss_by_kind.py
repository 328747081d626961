"""The eval loss apart by what its tokens are of, base beside winner: why a model does not stop, or
calls no tool, is seen at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from sftray.results.leaderboard import Leaderboard

NAMES = {"words": "words", "end": "end of an answer", "thoughts": "thoughts", "calls": "tool calls"}
"""Kinds of tokens (`data.chat.token_kinds`) as pages have them."""


class LossByKind(TypedDict):
    """Of one kind of token."""

    kind: str
    tokens: int
    """That are evaluated."""
    base: float | None
    best: float
    """Of the trial that is recommended, at its best evaluation."""


def losses_by_kind(board: Leaderboard) -> list[LossByKind]:
    """None where no trial is recommended, or where it did not report them."""
    rows = [row for row in board["trials"] if row["trial"] == board["best"]]
    base = {kind: loss for kind, loss, _ in board["base"].get("eval_loss_by_kind") or ()}
    return [
        {"kind": kind, "tokens": tokens, "base": base.get(kind), "best": loss}
        for row in rows
        for kind, loss, tokens in row.get("eval_loss_by_kind") or ()
    ]


def end_text(losses: Sequence[LossByKind]) -> str:
    """How sure the model is of an answer's end, in a sentence; nothing where that is not known."""
    end = next((one for one in losses if one["kind"] == "end"), None)
    if end is None:
        return ""
    base = "" if end["base"] is None else f" ({math.exp(-end['base']):.2g} under the base)"
    return (
        f"Where an answer ends, its end has a probability of {math.exp(-end['best']):.2g}{base}, "
        "the geometric mean."
    )


def kinds_text(board: Leaderboard) -> str:
    """As a table and a sentence; empty where nothing is known."""
    losses = losses_by_kind(board)
    if not losses:
        return ""
    lines = [["eval loss by kind of token", "tokens", "base", str(board["best"])]]
    for one in losses:
        base = "-" if one["base"] is None else f"{one['base']:.4f}"
        lines.append([NAMES[one["kind"]], f"{one['tokens']:,}", base, f"{one['best']:.4f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    return "\n".join([*table, end_text(losses)])
