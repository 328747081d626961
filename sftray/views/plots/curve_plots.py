"""Losses as trials proceed: every trial's curve, and who was stopped at which rung."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from sftray.results import Results
from sftray.views.plots import plot_style as style

SMOOTH = 30
"""Train loss is shown as a running mean over so many parts of a curve: batches zigzag."""


def learning_curves(found: Results, loss: str = "eval_loss") -> go.Figure:
    """`eval_loss` or `train_loss` of every trial against the rows it was trained on, at which all
    trials have seen the same data; the best trial on top, the base as a line."""
    words, evaluated = loss.replace("_", " "), loss == "eval_loss"
    trials, how_many = style.with_curves(found)
    drawn = style.figure(f"Learning curves: {words}{how_many}", "rows trained on", words)
    drawn_ones = found.curves["trial"].isin(trials["trial"]) & found.curves[loss].notna()
    curves = found.curves.loc[drawn_ones, ["trial", "rows", loss]]
    if curves.empty:
        return style.nothing(drawn, "no evaluation yet")
    axes, best = found.axes, found.leaderboard["best"]
    kinds = set()
    by_trial = dict(iter(curves.groupby("trial")))
    for row in trials.to_dict("records"):
        if (curve := by_trial.get(row["trial"])) is None:
            continue
        winner = row["trial"] == best
        kind = "best" if winner else row["outcome"]
        drawn.add_scatter(
            x=curve["rows"], y=curve[loss] if evaluated else _smooth(curve[loss]),
            name=f"best: {row['trial']}" if winner else kind.replace("_", " "),
            legendgroup=kind, showlegend=kind not in kinds, opacity=1 if winner else 0.75,
            mode="lines+markers" if evaluated else "lines",
            line={"color": style.OUTCOMES.get(kind, style.INK), "width": 3 if winner else 1.5},
            marker={"size": 7 if winner else 5},
            hovertemplate="%{y:.4f} at row %{x:,}<br>" + style.hover_text(row, axes)
            + "<extra></extra>",
        )  # fmt: skip
        kinds.add(kind)
    base = found.leaderboard["base"]["eval_loss"]
    if base is not None and math.isfinite(base) and evaluated:
        drawn.add_hline(base, line={"color": style.INK, "dash": "dot", "width": 1})
        drawn.add_annotation(
            text=f"base {base:.3f}", x=1, xref="paper", y=base, showarrow=False, yshift=9,
            xanchor="right", font={"size": 11},
        )  # fmt: skip
    top = style.sight(curves[loss], base)
    style.cut(drawn, curves[loss], top)
    if evaluated:
        style.zoom(drawn, found.trials["eval_loss"].dropna(), top or curves[loss].max())
    return drawn


def _at_rungs(found: Results) -> tuple[str, float | None, pd.DataFrame]:
    """What is judged at rungs, the base's, and the decisions with it as `eval_loss`."""
    table = found.rungs
    if found.config.judges_metric:
        shown = table.assign(eval_loss=table["metric"])
        return "metric", None, shown.dropna(subset=["eval_loss"])
    base = found.leaderboard["base"]["eval_loss"]
    return "eval loss", base, table.dropna(subset=["eval_loss"])


def rungs(found: Results) -> go.Figure:
    """Every decision: the eval loss or the metric at a rung, who continued (filled), who was
    stopped (×), and the newest cutoff. Within one rung of one bracket all trials had seen the same
    rows."""
    judged, base, table = _at_rungs(found)
    drawn = style.figure("Rungs: who was stopped when", "", f"{judged} at the rung")
    if table.empty:
        return style.nothing(drawn, "no trial has come to a rung yet")
    several = table["bracket"].nunique() > 1
    places = table.sort_values(["bracket", "rung"])[["bracket", "rung"]].drop_duplicates()
    names = {
        (bracket, rung): f"{rung:,} rows" + (f"<br>{bracket}" if several else "")
        for bracket, rung in places.itertuples(index=False)
    }
    table = table.assign(
        place=list(map(names.get, zip(table["bracket"], table["rung"], strict=True)))
    )
    trials = {row["trial"]: row for row in found.trials.to_dict("records")}
    axes, best = found.axes, found.leaderboard["best"]
    top = style.sight(table["eval_loss"], base)
    ordered = table.sort_values(["trial", "rung"], ignore_index=True)
    for lines, color, width in (
        (ordered[ordered["trial"] != best], "rgba(128, 136, 145, 0.35)", 1),
        (ordered[ordered["trial"] == best], style.BEST, 2.5),
    ):
        ends = lines["trial"].ne(lines["trial"].shift(-1))  # a gap between two trials' lines
        gaps = lines[ends].assign(eval_loss=math.nan)
        both = pd.concat([lines, gaps]).sort_index(kind="stable")
        drawn.add_scatter(
            x=both["place"], y=both["eval_loss"], mode="lines", hoverinfo="skip",
            showlegend=False, line={"color": color, "width": width},
        )  # fmt: skip
    for decision, name, color, symbol in (
        ("continue", "continued", style.OUTCOMES["completed"], "circle"),
        ("stop", "stopped", style.OUTCOMES["diverged"], "x"),
    ):
        some = table[table["decision"] == decision].sort_values("eval_loss")  # the legend's symbol
        drawn.add_scatter(
            x=some["place"], y=some["eval_loss"].clip(upper=top), mode="markers", name=name,
            marker={
                "color": color, "size": 9,
                "symbol": [
                    style.BEYOND if top and loss > top else symbol for loss in some["eval_loss"]
                ],
            },
            text=[style.hover_text(trials[trial], axes) for trial in some["trial"]],
            customdata=some["eval_loss"],
            hovertemplate="%{customdata:.4f} at %{x}<br>%{text}<extra></extra>",
        )  # fmt: skip
    cutoffs = table.dropna(subset=["cutoff"]).groupby("place", sort=False)["cutoff"].last()
    drawn.add_scatter(
        x=list(cutoffs.index), y=cutoffs.tolist(), mode="markers", name="newest cutoff",
        marker={"symbol": "line-ew", "size": 38, "line": {"color": style.INK, "width": 2}},
        hovertemplate="cutoff %{y:.4f}<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(categoryorder="array", categoryarray=list(names.values()))
    drawn.update_xaxes(range=[-0.5, len(names) - 0.5])
    style.cut(drawn, table["eval_loss"], top)
    return drawn


def _smooth(losses: pd.Series) -> pd.Series:
    return losses.ewm(span=max(1, len(losses) / SMOOTH), adjust=True).mean()
