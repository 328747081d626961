"""The view of a state: a pure function to what rich draws, without a terminal.

Promise: at 80 columns and more no line is longer than the width and no number is cut: points and
messages are wrapped. Where the screen has too few lines, the worst of the trials that have ended
are counted instead of shown, and the oldest log lines left out.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from sftray.config.points import short
from sftray.storage.terminal_text import visible
from sftray.views.live.snapshot import RUNNING, UNFINISHED, State, TrialLine

BARS = "▁▂▃▄▅▆▇█"
SPARKS = 8
"""Characters of a sparkline: the newest losses."""
LINES = 8
"""Log lines, at most; on a low screen as many as a third of it holds."""
WIDE = 110
"""From so many columns on, a trial's rows, tokens and tokens a second are shown, too."""
POINT_ROOM = 15
"""Columns that a point needs; on a narrower screen losses, rungs and outcomes are left out."""
QUIET_SECONDS = 300.0
"""After so long without an event the view says so: an evaluation is late, or no driver runs."""
SHORT_NAMES = {
    "learning_rate": "lr", "effective_batch_size": "batch", "num_train_epochs": "epochs",
    "warmup_ratio": "warmup", "lora_r": "rank", "lora_dropout": "dropout",
    "weight_decay": "decay",
}  # fmt: skip
ROWS = {"running": "cyan", "starting": "dim", "pruned": "dim"}
STYLES = {
    "running": "cyan", "starting": "dim", "completed": "green", "pruned": "dim",
    "diverged": "red", "failed": "red", "data_error": "red", "out_of_memory": "magenta",
    "preempted": "yellow",
}  # fmt: skip


def view(state: State, width: int, height: int | None = None) -> RenderableType:
    """What to draw of `state` in `width` columns and, if given, at most `height` lines."""
    head = _head(state, width)
    log = _newest(state.lines[-LINES:], width, math.inf if height is None else max(4, height // 3))
    parts: list[RenderableType] = [*head]
    left = math.inf if height is None else height - len(head) - len(log) - bool(log)
    if state.running or state.finished:
        parts += _trials(state, width, left)
    if log:
        parts += [Rule(style="dim"), *(Text(line, style="dim", no_wrap=True) for line in log)]
    return Group(*parts)


def sparkline(losses: Sequence[float], lowest: float, highest: float) -> str:
    """The newest losses as bars between two losses; × for one that is not finite."""
    span = highest - lowest
    drawn = ""
    for loss in losses[-SPARKS:]:
        if not math.isfinite(loss):
            drawn += "×"
            continue
        share = (loss - lowest) / span if span > 0 else 0.0
        drawn += BARS[round(min(max(share, 0.0), 1.0) * (len(BARS) - 1))]
    return drawn


def duration(seconds: float) -> str:
    """`3:07`, `1:03:07`, `2 d 4 h`."""
    whole = round(seconds)
    if whole >= 100 * 3600:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _head(state: State, width: int) -> list[Text]:
    """The sweep on top, a line a fact."""
    time = f"{duration(state.elapsed)} elapsed"
    if state.left is not None and state.doing != "ended":
        time += f", ≈ {duration(state.left)} left"
    title = visible(f"{state.sweep}  {state.doing}")
    lines = [Text(f"{title}{time:>{max(0, width - len(title))}}", style="bold")]
    if len(title) + 2 + len(time) > width:
        lines = [Text(title, style="bold"), Text(time)]
    for name, facts in _facts(state).items():
        style = "bold green" if name == "best" else ""
        for at, one in enumerate(_wrap(visible(facts), width - 8)):
            lines.append(Text.assemble(f"{'' if at else name:<8}", (one, style)))
    return lines


def _facts(state: State) -> dict[str, str]:
    running, ended = len(state.running), len(state.finished)
    facts = {}
    if state.total:
        cut_off = any(row.outcome == UNFINISHED for row in state.running)
        how = UNFINISHED if cut_off else RUNNING
        facts["trials"] = f"{ended} of {state.total} ended, {running} {how}"
        if state.quiet > QUIET_SECONDS and state.doing != "ended" and not cut_off:
            facts["trials"] += f"; nothing was reported for {duration(state.quiet)}"
    if state.tokens:
        facts["tokens"] = _count(state.tokens)
        if state.tokens_expected is not None and state.doing != "ended":
            facts["tokens"] += f" of ≈ {_count(state.tokens_expected)}"
        if state.tokens_per_second is not None:
            facts["tokens"] += f" at {state.tokens_per_second:,.0f} tok/s"
    if state.device:
        facts["CPU" if state.device == "cpu" else "GPU"] = _use(state)
    facts["spent"] = _spent(state)
    if state.best is not None and state.says:
        facts["best"] = f"{state.says}  {' '.join(_point(state.best.point))}"
    return facts


def _use(state: State) -> str:
    """How the devices are used."""
    words = [] if state.device == "cpu" else [state.device]
    if (state.busy or 0) >= 0.005:
        words.append(f"{state.busy:.2f} busy on average")
    if state.memory_gb:
        words.append(f"{state.memory_gb:.1f} GB")
    if state.data_wait >= 0.005:
        words.append(f"{state.data_wait:.0%} of the time waiting for rows")
    return ", ".join(words)


def _spent(state: State) -> str:
    """Hours, GPU-hours and money, and what is left of their budgets."""
    if state.spent is None:
        return ""
    gpu_hours, price = state.spent.gpu_seconds / 3600, state.budgets.get("price_per_gpu_hour")
    parts = {
        "max_hours": (state.spent.wall_seconds / 3600, " hours", False),
        "max_gpu_hours": (gpu_hours, " GPU-hours", gpu_hours > 0),
        "max_cost": (state.spent.cost, f" at {price} a GPU-hour", price is not None),
    }
    words = []
    for name, (value, unit, always) in parts.items():
        limit = state.budgets.get(name)
        if value is not None and (always or limit is not None):
            most = "" if limit is None else f" of {limit:g}"
            rest = "" if limit is None else f" ({max(0.0, limit - value):.2f} left)"
            words.append(f"{value:.2f}{most}{unit}{rest}")
    return ", ".join(words)


def _newest(lines: Sequence[str], width: int, room: float) -> list[str]:
    """The newest log lines that fit whole in `room` lines, wrapped behind their times."""
    newest: list[str] = []
    for line in reversed(lines):
        wrapped = _wrap(line, width, behind=" " * 10)
        if newest and len(newest) + len(wrapped) > room:
            break
        newest = [*wrapped, *newest]
    return newest


def _trials(state: State, width: int, left: float) -> list[RenderableType]:
    """The table of those that run and, best first, those that have ended, in `left` lines."""
    shown_rows = (*state.running, *state.finished)
    known = [loss for row in shown_rows for loss in row.losses if math.isfinite(loss)]
    if state.base is not None:
        known = [loss for loss in known if loss <= state.base] or known
    scale = (min(known), max(known)) if known else (0.0, 0.0)
    rows = [(row, _cells(row, scale, state)) for row in shown_rows]
    columns, room = _columns([cells for _, cells in rows], width)
    points = [_wrap(" ".join(_point(row.point)), room) or [""] for row, _ in rows]
    shown = _fitting([len(lines) for lines in points], left - 1)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for at, name in enumerate(columns):
        left_aligned = name in ("trial", "losses", "outcome")
        table.add_column(name, no_wrap=True, justify="left" if left_aligned else "right")
        if at == 0:
            table.add_column("point", no_wrap=True)
    for (row, cells), lines in zip(rows[:shown], points[:shown], strict=True):
        colour = STYLES.get(row.outcome, "")
        first, *others = (Text(cells[name], colour * (name == "outcome")) for name in columns)
        style = "bold" if cells["trial"].startswith("*") else ROWS.get(row.outcome, "")
        table.add_row(first, Text("\n".join(lines)), *others, style=style)
    if shown == len(rows):
        return [table]
    counted = Counter(row.outcome for row, _ in rows[shown:])
    more = ", ".join(f"{number} {outcome}" for outcome, number in counted.most_common())
    return [table, Text(f"… and {more}"[:width], style="dim")]


def _columns(rows: Sequence[Mapping[str, str]], width: int) -> tuple[list[str], int]:
    """The columns that there is room for, and the room that they leave for the point."""
    left_out: list[str] = [] if width >= WIDE else ["rows", "tokens", "tok/s"]
    for name in ("", "losses", "train", "rung", "outcome"):
        left_out.append(name)
        columns = [column for column in rows[0] if column not in left_out]
        used = [max(len(column), *(len(cells[column]) for cells in rows)) for column in columns]
        room = width - sum(used) - 2 * len(columns)
        if room >= POINT_ROOM:
            break
    return columns, max(room, 8)


def _cells(row: TrialLine, scale: tuple[float, float], state: State) -> dict[str, str]:
    is_best = state.best is not None and row.trial == state.best.trial
    return {
        "trial": visible(f"{'*' if is_best else ' '}{row.trial}"),
        "step": f"{row.step}/{row.steps}",
        "rows": f"{row.rows:,}",
        "tokens": _count(row.tokens),
        "tok/s": "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
        "rung": f"{row.rung}/{row.rungs}" if row.rungs else "–",
        "train": _loss(row.train_loss),
        "eval": _loss(row.eval_loss),
        "losses": sparkline(row.losses, *scale),
        "outcome": visible(row.outcome.replace("out_of_memory", "no memory").replace("_", " ")),
    }


def _fitting(heights: Sequence[int], left: float) -> int:
    """How many rows fit; a line is kept for what does not."""
    if sum(heights) <= left:
        return len(heights)
    shown, used = 0, 1
    for height in heights:
        used += height
        if used > left:
            break
        shown += 1
    return shown


def _point(point: Mapping[str, object]) -> list[str]:
    return [
        visible(f"{SHORT_NAMES.get(name, name)}={short(value)}") for name, value in point.items()
    ]


def _wrap(text: str, width: int, behind: str = "") -> list[str]:
    """Lines of a text, cut at blanks: `1e-05` stays whole."""
    return textwrap.wrap(text, width, subsequent_indent=behind, break_on_hyphens=False)


def _loss(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.3g}"


def _count(number: float) -> str:
    """`950`, `12,345`, `1.23 M`, `4.5 B`."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:,.0f}"
