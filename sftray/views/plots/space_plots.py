"""Losses over the search space: which values are good, and which hyper-parameter decides."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from sftray.config import Space
from sftray.config.checks import is_number
from sftray.config.points import short
from sftray.results import Results
from sftray.results.findings.comparisons import comparisons, read
from sftray.results.findings.importance import Importances, importances
from sftray.views.plots import plot_style as style

RATE, BATCH = "learning_rate", "effective_batch_size"


def learning_rate(found: Results, *, equal_data: bool = True) -> go.Figure:
    """Eval loss against learning rate, a colour a batch size.

    equal_data: all losses at the same number of rows, at the place where the most trials have one;
    trials of one batch size are joined. Else the best loss of each trial, of whatever data it saw;
    trials that were stopped or failed are hollow. Losses far above the base's are triangles at the
    upper edge, trials that diverged before the place are crosses there.
    """
    losses, where = _losses(found, equal_data)
    drawn = style.figure(
        f"Learning rate and batch size: {'at equal data' if equal_data else 'best loss of each'}",
        "peak learning rate",
        where,
    )
    table = found.trials.assign(loss=losses).dropna(subset=["loss"])
    finite = [loss for loss in table["loss"] if math.isfinite(loss)]
    if not finite:
        return style.nothing(drawn, "no losses yet")
    for axis in (RATE, BATCH):  # not searched: the same for all
        if axis not in table:
            table = table.assign(**{axis: getattr(found.config.trial, axis)})
    beyond = style.sight(finite, found.leaderboard["base"]["eval_loss"])
    top = max(finite) if beyond is None else beyond
    axes, best = found.axes, found.leaderboard["best"]
    for number, (batch, some) in enumerate(table.sort_values(RATE).groupby(BATCH)):
        color = style.SERIES[number % len(style.SERIES)]
        drawn.add_scatter(
            x=some[RATE], y=some["loss"].clip(upper=top),
            mode="lines+markers" if equal_data else "markers", name=f"batch size {batch}",
            line={"color": color, "width": 1, "dash": "dot"},
            marker=_markers(some, color, top, best, fill=equal_data),
            text=[style.hover_text(row, axes) for row in some.to_dict("records")],
            customdata=some["loss"].map("{:.4f}".format),
            hovertemplate="%{customdata}<br>%{text}<extra></extra>",
        )  # fmt: skip
    style.cut(drawn, finite, beyond)
    decades = math.log10(table[RATE].max() / table[RATE].min())
    drawn.update_xaxes(type="log", exponentformat="power", dtick=1 if decades >= 1 else None)
    return drawn


def parallel(found: Results) -> go.Figure:
    """Every trial as a line through its values to its best eval loss; drag along an axis to select.
    Trials without a loss are left out."""
    drawn = style.figure("Parallel coordinates")
    table = found.trials.dropna(subset=["eval_loss"])
    if table.empty:
        return style.nothing(drawn, "no losses yet")
    losses, spaces = table["eval_loss"], found.config.search_space
    # a line of 20 that is far above the rest would leave them one colour
    top = max(losses.quantile(0.8), losses.min() * 1.0001)
    axes = [_axis(name, table[name].tolist(), spaces.get(name)) for name in found.axes]
    drawn.add_parcoords(
        dimensions=[*axes, {"label": "eval loss", "values": losses.tolist()}],
        line={
            "color": losses.tolist(), "colorscale": [list(stop) for stop in style.LOSSES],
            "cmin": float(losses.min()), "cmax": float(top),
        },
        labelfont={"size": 12}, tickfont={"size": 11}, rangefont={"size": 1, "color": style.CLEAR},
    )  # fmt: skip
    drawn.update_layout(margin={"l": 60, "r": 50, "t": 80, "b": 25})
    return drawn


def importance(found: Results, computed: Importances | None = None) -> go.Figure:
    """How much each hyper-parameter tells the best trials from the others (docs/findings.md); pale
    where chance gives as much. `computed` saves half a second where it is there already."""
    drawn = style.figure("Which hyper-parameter decides", "importance", height=260)
    known = computed or importances(read(found))
    if not known.axes:
        return style.nothing(drawn, known.missing)
    axes = known.axes[::-1]
    drawn.add_bar(
        y=[axis.name for axis in axes], x=[axis.importance for axis in axes], orientation="h",
        width=0.55,
        marker={
            "color": [style.BEST if axis.decides else style.OUTCOMES["pruned"] for axis in axes]
        },
        text=[
            f"{axis.importance:.2f} " + ("decides" if axis.decides else "not beyond chance")
            for axis in axes
        ],
        textposition="auto", insidetextfont=style.ON_BAR,
        customdata=[axis.chance for axis in axes],
        hovertemplate="%{y}: %{x:.2f}<br>p = %{customdata:.3f}<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(range=[0, 1.05])
    drawn.update_layout(height=130 + 45 * len(axes), uniformtext={"minsize": 10, "mode": "show"})
    return drawn


def _losses(found: Results, equal_data: bool) -> tuple[list[float], str]:
    """A loss a trial in the table's order, NaN where there is none and infinite where it diverged,
    and what they are."""
    trials = found.trials
    if not equal_data:
        gone = trials["outcome"].eq("diverged") & trials["eval_loss"].isna()
        return trials["eval_loss"].mask(gone, math.inf).tolist(), "best eval loss"
    places = comparisons(read(found))
    place = max(places, key=lambda one: len(one.finite), default=None)
    if place is None:
        return [math.nan] * len(trials), "eval loss"
    diverged = set(trials["trial"][trials["outcome"] == "diverged"])
    losses = {
        trial: loss
        for trial, loss in place.losses.items()
        if math.isfinite(loss) or trial in diverged
    }
    where = "the whole budget" if place.rows is None else f"{place.rows:,} rows"
    return [losses.get(trial, math.nan) for trial in trials["trial"]], f"eval loss after {where}"


def _markers(
    rows: pd.DataFrame, color: str, top: float, best: str | None, *, fill: bool
) -> dict[str, object]:
    symbols, widths = [], []
    for trial, outcome, loss in zip(rows["trial"], rows["outcome"], rows["loss"], strict=True):
        hollow = not fill and outcome not in ("completed", "running")
        symbol = "star" if trial == best else "circle"
        if loss > top:
            symbol = style.BEYOND if math.isfinite(loss) else "x"
        symbols.append(symbol + ("-open" if hollow else ""))
        widths.append(2 if hollow else 0)
    sizes = [14 if trial == best else 9 for trial in rows["trial"]]
    line = {"width": widths, "color": color}
    return {"color": color, "opacity": 0.9, "symbol": symbols, "size": sizes, "line": line}


def _axis(name: str, values: list[float], space: Space | None) -> dict[str, object]:
    """An axis of parallel coordinates: in the logarithm where the search had it so, or where given
    values span much; by number where they have no order."""
    if not all(map(is_number, values)):
        words = sorted(set(map(str, values)))
        places = list(range(len(words)))
        numbers = [words.index(str(value)) for value in values]
        return {"label": name, "values": numbers, "tickvals": places, "ticktext": words}
    few: list[float] = sorted(set(values))
    continuous = space is not None and space.finite_values() is None
    if not (space.log if space is not None and continuous else style.spans_much(values)):
        ticks = {"tickvals": few, "ticktext": list(map(short, few))}
        return {"label": name, "values": values, **(ticks if len(few) <= 6 else {})}
    marks = few if len(few) <= 6 else _round_numbers(few[0], few[-1])
    return {
        "label": name,
        "values": [math.log10(value) for value in values],
        "tickvals": [math.log10(mark) for mark in marks],
        "ticktext": [short(float(mark)) for mark in marks],
    }


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 3, 10, … between two numbers, and the two."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inner = [step * 10.0**decade for decade in decades for step in (1, 3)]
    return [low, *(one for one in inner if low * 1.3 < one < high / 1.3), high]
