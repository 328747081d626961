"""A leaderboard, a point and a value as text: on the terminal, in the report and in messages."""

from __future__ import annotations

import math
import textwrap

from sftray.config.points import point_text, short
from sftray.results.confirmation import Confirmation, Confirmed, half_width
from sftray.results.diagnosis.one_diagnosis import NOTHING_WRONG
from sftray.results.leaderboard import Leaderboard, RankedTrial
from sftray.results.paired_seeds import MIN_SEEDS, MOST_SEEDS


def table(board: Leaderboard, *, top: int | None = None) -> str:
    """The leaderboard as text, the base first."""
    base = board["base"]["eval_loss"]
    names = list(dict.fromkeys(name for row in board["trials"] for name in row["point"]))
    scored = ["metric"] if any("metric" in row for row in board["trials"]) else []
    of_base = board["base"].get("by_source", {})
    sources = list(
        of_base or next((row["by_source"] for row in board["trials"] if "by_source" in row), {})
    )
    loss_name = "eval_loss" if board.get("has_eval_loss", True) else "loss (trained on)"
    header = ["", "trial", *names, loss_name, *sources, *scored, "tokens", "seconds", "outcome"]
    apart = [_loss(of_base.get(name)) for name in sources]
    untrained = [_loss(base), *apart, *["" for _ in scored], "0", "0", ""]
    lines = [["", "base", *["" for _ in names], *untrained]]
    for row in board["trials"][:top]:
        point = [short(row["point"].get(name)) for name in names]
        mark = "*" if row["trial"] == board["best"] else ""
        loss, tokens, seconds = _loss(row["eval_loss"]), f"{row['tokens']:,}", row["seconds"]
        lines.append(
            [
                mark,
                row["trial"],
                *point,
                loss,
                *(_loss(row.get("by_source", {}).get(name)) for name in sources),
                *([_loss(row.get("metric"))] if scored else []),
                tokens,
                f"{seconds:.0f}",
                standing(row["outcome"], board),
            ]
        )
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    texts = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *lines]
    ]
    left = len(board["trials"]) - (len(lines) - 1)
    return "\n".join([*texts, *([f"   and {left} more"] if left else [])])


def energy_text(board: Leaderboard) -> str:
    """What the sweep's own trials have taken, and the recommended one; nothing where that is not
    measured."""
    rows = [row for row in board["trials"] if "folder" not in row]
    counted = {row["trial"]: row["energy_wh"] for row in rows if "energy_wh" in row}
    if not counted:
        return ""
    best = board["best"] or ""
    own = f", {best} {counted[best]:,.3g} Wh" if best in counted else ""
    some = "" if len(counted) == len(rows) else f", of {len(counted)} of {len(rows)} trials"
    return f"{sum(counted.values()):,.3g} Wh, measured by the GPUs' own counters{some}{own}"


def standing(outcome: str | None, board: Leaderboard) -> str:
    """A trial's outcome; of one that has none whether it runs, or waits for a larger budget."""
    return outcome or ("unfinished" if board.get("budget_spent") else "running")


def verdicts(board: Leaderboard, *, top: int | None = None) -> str:
    """What is wrong with trials and what to do, in lines of at most 80 columns; of the others how
    many they are."""
    shown = board["trials"][:top]
    rows = [row for row in shown if row["diagnosis"] not in NOTHING_WRONG]
    by_advice: dict[str, list[RankedTrial]] = {}
    for row in rows:
        by_advice.setdefault(row["advice"], []).append(row)
    indent = " " * (max((len(row["trial"]) for row in rows), default=0) + 2)
    lines = []
    for advice, alike in by_advice.items():
        texts = {row["trial"].ljust(len(indent)): row["verdict"] for row in alike}
        for first, text in {**texts, "→ ".rjust(len(indent)): advice}.items():
            wrapped = textwrap.fill(text, 80, initial_indent=first, subsequent_indent=indent)
            lines.append(wrapped)
    well = f"{len(shown) - len(rows)} of {len(shown)} trials: nothing wrong"
    return "\n".join([*lines, *([well] if len(rows) < len(shown) else [])])


def recommended(board: Leaderboard) -> str:
    """What is recommended and by which numbers, in the words of every place that says so; nothing
    where there is no trial to recommend."""
    row = next((row for row in board["trials"] if row["trial"] == board["best"]), None)
    if row is None or row["eval_loss"] is None:
        return ""
    loss, base = row["eval_loss"], board["base"]["eval_loss"]
    if not board.get("has_eval_loss", True):
        return f"{row['trial']}: no eval loss, because it was trained on all conversations"
    below = "" if base is None or not math.isfinite(base) else f", {base - loss:.4f} below the base"
    own = f"{row['trial']}: eval loss {loss:.4f} at step {row['step']}{below}"
    confirmed = board.get("confirmed")
    points = [] if confirmed is None else confirmed["points"]
    one = next((point for point in points if point["trial"] == row["trial"]), None)
    if confirmed is None or one is None or one["mean"] is None:
        return own
    tied = [name for name in confirmed["tied"] if name != row["trial"]]
    alike = f", not distinguishable from {', '.join(tied)}" if tied else ""
    return f"{own}; {mean_text(one)}{alike}"


def mean_text(one: Confirmed) -> str:
    """The mean of a point's runs: `mean of 3 other seeds 1.2345 ± 0.0123`."""
    number, half = len(one["eval_losses"]), half_width(one)
    other = "" if one["trial"] in one["runs"] else "other "
    seeds = f"{number} {other}seed{'s' if number != 1 else ''}"
    if diverged := sum(map(math.isinf, one["eval_losses"])):
        return f"of {seeds} {diverged} diverged"
    spread = "" if half is None or not math.isfinite(half) else f" ± {half:.4f}"
    return f"mean of {seeds} {_loss(one['mean'])}{spread}"


def confirmed_text(board: Leaderboard) -> str:
    """What repetitions with new seeds said, as text; empty where there were none."""
    confirmed = board.get("confirmed")
    if confirmed is None:
        return ""
    points, winner = confirmed["points"], confirmed["winner"]
    new = "run again with new seeds"
    if any(one["trial"] in one["runs"] for one in points):
        new = "over the seeds of each point"
    lines = [
        f"{new} (mean eval loss, 95 % interval; how far above the lowest, in pairs of a seed):"
    ]
    for one in points:
        mean = _loss(one["mean"])
        half = half_width(one)
        if half is not None and math.isfinite(half):
            mean += f" ± {half:.4f}"
        mark, point = "*" if one["trial"] == winner else " ", point_text(one["point"])
        runs = len(one["eval_losses"])
        cells = [one["trial"], mean, above_text(one), f"n={runs}", f"{one['tokens']:,} tokens"]
        lines.append(f"{mark}  {'  '.join(filter(None, cells))}  {point}")
    return "\n".join([*lines, *confirmed_says(confirmed)])


def above_text(one: Confirmed) -> str:
    """How a point stands to the one of the lowest mean: `+0.0123 ± 0.0045 worse`."""
    if one["above"] is None or one["above_interval"] is None:
        return one["verdict"] if one["mean"] is not None else ""
    half = one["above_interval"][1] - one["above"]
    return f"{one['above']:+.4f} ± {half:.4f} {one['verdict']}"


def confirmed_says(confirmed: Confirmation) -> list[str]:
    """What repetitions say, in sentences."""
    points, winner = confirmed["points"], confirmed["winner"]
    lines = [_left_out(one) for one in points if one["left_out"]]
    means = [one for one in points if one["mean"] is not None]
    if len(means) < 2:
        return lines
    open_ones = [one for one in means if one["verdict"] == "open"]
    fewest = min(len(one["eval_losses"]) for one in means)
    if not open_ones:
        lines.append(f"{winner} is better than the others, by more than seeds explain")
    elif fewest < MIN_SEEDS:
        seeds = f"{fewest} seed{'s decide' if fewest > 1 else ' decides'}"
        lines.append(f"{seeds} nothing; confirm_seeds={MIN_SEEDS} may")
    else:
        tied = [name for name in confirmed["tied"] if name != winner]
        why = "has the lowest mean" if winner == points[0]["trial"] else "is the cheapest of them"
        lines.append(f"{winner} and {', '.join(tied)} are not distinguishable. {winner} {why}")
        lines += [_would_decide(one) for one in open_ones]
    if confirmed["too_low"] is not None:
        lines.append(
            f"the lowest of {len(means)} means was picked: it is too low by up to "
            f"{confirmed['too_low']:.4f}, so much where the points are equal"
        )
    return lines


def _would_decide(one: Confirmed) -> str:
    if one["more_seeds"] is None:
        return f"{one['trial']}: {MOST_SEEDS} seeds would not decide a difference so small"
    seeds = f"{one['more_seeds']} more seed{'s' if one['more_seeds'] > 1 else ''}"
    return f"{one['trial']}: {seeds} of each point would decide, if the difference stays"


def _left_out(one: Confirmed) -> str:
    """Which repetitions of a point do not count, and how many do."""
    counts, missing = len(one["eval_losses"]), one["left_out"]
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in missing.items())
    every = counts + sum(missing.values())
    return f"{one['trial']}: {counts} of {every} repetitions count, {outcomes} left out"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
