"""What all figures have in common: colours that read on a light and on a dark ground, no ground of
their own, and one colour an outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sftray.config.points import short
from sftray.results import Results
from sftray.storage.terminal_text import visible

INK = "#808891"
"""Text: 3.6 times as bright as black, a quarter as bright as white."""
GRID = "rgba(128, 136, 145, 0.22)"
AXIS = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True}
CLEAR = "rgba(0, 0, 0, 0)"
BEST = "#e8762c"
OUTCOMES = {
    "completed": "#3d86d1",
    "running": "#27a58c",
    "unfinished": "#27a58c",
    "pruned": "#929aa3",
    "diverged": "#d8434e",
    "out_of_memory": "#a765c9",
    "data_error": "#b3813c",
    "preempted": "#b3813c",
    "failed": "#d8434e",
    "best": BEST,
}
"""And of the best trial, drawn last."""
SERIES = ("#3d86d1", "#e8762c", "#2fa36b", "#a765c9", "#c9992e", "#d8434e", "#27a5b8", "#8a6d5b")
LOSSES = ((0.0, "#e8762c"), (0.25, "#c7689c"), (0.6, "#6f74cf"), (1.0, "#5aa0c8"))
"""From the lowest loss to the highest."""
FAR = 0.3
MOST_CURVES = 200
"""More lines in one figure are neither seen apart nor drawn in time."""
ON_BAR = {"color": "#ffffff"}
_ABOVE_THE_LEGEND = {"x": 0, "xref": "paper", "y": 1, "yanchor": "top", "pad": {"t": 12}}
BEYOND = "triangle-up"
"""The marker of a loss beyond the end of the axis."""


def figure(title: str, x: str = "", y: str = "", height: int = 380) -> go.Figure:
    """An empty figure."""
    drawn = go.Figure()
    drawn.update_layout(
        title={"text": title, "font": {"size": 15}} | _ABOVE_THE_LEGEND,
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        height=height,
        margin={"l": 60, "r": 20, "t": 70, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        hoverlabel={"font": {"family": "system-ui, sans-serif", "size": 12}, "align": "left"},
        template="none",
    )
    drawn.update_xaxes(title={"text": x}, **AXIS)
    drawn.update_yaxes(title={"text": y}, **AXIS)
    return drawn


ONE_LINE = 0.15
"""Losses within this share of an axis lie on one line."""


def sight(losses: Iterable[float], base: float | None) -> float | None:
    """Where a loss axis is cut, so that a few losses so far off do not press all others flat: above
    the base by FAR of what the best has gained on it. None where nothing lies beyond."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite or base is None or not math.isfinite(base) or min(finite) >= base:
        return None
    top = base + FAR * (base - min(finite))
    return top if max(finite) > top else None


def cut(drawn: go.Figure, losses: Iterable[float], top: float | None) -> None:
    """Cut the (first) loss axis of a figure at `top`."""
    if top is not None:
        low = min(loss for loss in losses if math.isfinite(loss))
        drawn.update_yaxes(range=[low - 0.06 * (top - low), top + 0.04 * (top - low)])


def zoom(drawn: go.Figure, bests: Iterable[float], highest: float) -> None:
    """Buttons that show the better half of the trials alone, where on the whole axis, up to
    `highest`, they lie on one line."""
    rivals = sorted(loss for loss in bests if math.isfinite(loss))
    rivals = rivals[: max(2, (len(rivals) + 1) // 2)]
    if len(rivals) < 2:
        return
    low, span = rivals[0], rivals[-1] - rivals[0]
    if span > ONE_LINE * (highest - low):
        return
    room = span or 0.01 * abs(low) or 1.0
    near = [low - 0.3 * room, low + 2.5 * room]
    whole = drawn.layout.yaxis.range
    back = {"yaxis.autorange": True} if whole is None else {"yaxis.range": list(whole)}
    drawn.update_layout(
        updatemenus=[
            {
                "type": "buttons", "direction": "right", "x": 1, "y": 1.02, "xanchor": "right",
                "yanchor": "bottom", "showactive": True, "font": {"size": 11},
                "buttons": [
                    {"label": "all", "method": "relayout", "args": [back]},
                    {"label": "the best", "method": "relayout", "args": [{"yaxis.range": near}]},
                ],
            }
        ]
    )  # fmt: skip


def nothing(drawn: go.Figure, says: str) -> go.Figure:
    """The figure, saying why it shows nothing."""
    drawn.add_annotation(text=says, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    drawn.update_xaxes(visible=False)
    drawn.update_yaxes(visible=False)
    return drawn


def by_outcome(trials: pd.DataFrame, best: str | None) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Rows of `trials` by outcome, in words and with its colour, the best trial's last."""
    kinds = trials["outcome"].where(trials["trial"] != best, "best")
    of_later_versions = sorted(set(kinds) - OUTCOMES.keys())
    for kind in (*of_later_versions, *OUTCOMES):
        if (kinds == kind).any():
            yield kind.replace("_", " "), OUTCOMES.get(kind, INK), trials[kinds == kind]


def with_curves(found: Results) -> tuple[pd.DataFrame, str]:
    """The trials whose curves are drawn, the best last, and how many they are, if not all: of more
    than MOST_CURVES the better half of these are the best, the others lie evenly below."""
    trials = found.trials.sort_values("eval_loss", ascending=False, na_position="first")
    if len(trials) <= MOST_CURVES:
        return trials, ""
    best = MOST_CURVES // 2
    others = np.linspace(0, len(trials) - best - 1, MOST_CURVES - best).astype(int)
    places = [*others, *range(len(trials) - best, len(trials))]
    return trials.iloc[places], f" ({MOST_CURVES} of {len(trials):,} trials)"


def hover_text(row: Mapping[str, object], axes: list[str]) -> str:
    """A trial for a hover label: its point, loss and outcome."""
    lines = [f"<b>{row['trial']}</b> {row['outcome']}"]
    for name in axes:
        value = row[name]  # numpy's scalar, or Python's
        lines.append(f"{name} {short(value.item() if hasattr(value, 'item') else value)}")
    if row["eval_loss"] == row["eval_loss"]:
        lines.append(f"best eval loss {row['eval_loss']:.4f} at step {row['step']:.0f}")
    return visible("<br>".join(lines))


def spans_much(values: list[float]) -> bool:
    """Whether an axis with these numbers wants a log scale."""
    return min(values) > 0 and max(values) / min(values) >= 8
