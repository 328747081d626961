"""What a sweep cost: when trials ran, how fast, and what the best loss took."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from sftray.results import Results
from sftray.results.findings.comparisons import read
from sftray.results.findings.finding_costs import Cost, pareto_front, regret
from sftray.storage.journal.event_types import EventName
from sftray.views.plots import plot_style as style

MOMENTS = 240
"""Points in time at which the throughput of all trials is added up."""


def timeline(found: Results) -> go.Figure:
    """When each trial ran, those that ran at the same time beneath each other; × where an attempt
    died. In a bank they shared one GPU."""
    drawn = style.figure("Timeline", "minutes since the sweep began", "trials at a time")
    table = found.trials.dropna(subset=["started"]).sort_values("started")
    if table.empty:
        return style.nothing(drawn, "no trial has started yet")
    newest = max(found.curves["time"].max(), table["ended"].max())
    table = table.assign(ended=table["ended"].fillna(newest))
    table = table.assign(lane=lanes(list(zip(table["started"], table["ended"], strict=True))))
    axes, best = found.axes, found.leaderboard["best"]
    for kind, color, some in style.by_outcome(table, best):
        minutes = (some["ended"] - some["started"]) / 60
        drawn.add_bar(
            y=some["lane"] + 1, x=minutes, base=some["started"] / 60, orientation="h", width=0.8,
            name=kind, marker={"color": color, "line": {"width": 0}},
            text=some["trial"], textposition="inside", insidetextanchor="middle", textangle=0,
            insidetextfont=style.ON_BAR,
            customdata=[style.hover_text(row, axes) for row in some.to_dict("records")],
            hovertemplate="%{customdata}<br>%{base:.1f} to %{x:.1f} min<extra></extra>",
        )  # fmt: skip
    died = _deaths(found, dict(zip(table["trial"], table["lane"], strict=True)))
    if died:
        drawn.add_scatter(
            x=[minute for minute, _, _ in died], y=[lane + 1 for _, lane, _ in died],
            mode="markers", name="attempt died", text=[says for _, _, says in died],
            marker={"symbol": "x", "size": 10, "color": style.OUTCOMES["failed"]},
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    number = int(table["lane"].max()) + 1
    drawn.update_yaxes(range=[number + 0.5, 0.5], dtick=1 if number <= 12 else None)
    drawn.update_layout(barmode="overlay", uniformtext={"minsize": 9, "mode": "hide"})
    drawn.update_layout(height=180 + 28 * min(number, 24))
    return drawn


def throughput(found: Results) -> go.Figure:
    """Tokens a second of all trials together, and each trial's GPU memory where there is a GPU."""
    memory = found.curves["gpu_memory_gb"].max() > 0
    title = "Throughput and GPU memory" if memory else "Throughput"
    drawn = style.figure(title, "minutes since the sweep began", "tokens a second")
    times, rates = _rates(found)
    if not len(times):
        return style.nothing(drawn, "no trial has been timed yet")
    if memory:
        drawn.set_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
        drawn.update_xaxes(title=None, **style.AXIS)
        drawn.update_xaxes(title="minutes since the sweep began", row=2)
        drawn.update_yaxes(title="GB of GPU memory", row=2, **style.AXIS)
        drawn.update_layout(height=520)
    drawn.add_scatter(
        x=times, y=rates, mode="lines", line={"color": style.SERIES[0], "width": 2, "shape": "hv"},
        fill="tozeroy", fillcolor="rgba(61, 134, 209, 0.18)", name="all trials together",
        hovertemplate="%{y:,.0f} tok/s at %{x:.1f} min<extra></extra>",
    )  # fmt: skip
    drawn.update_yaxes(rangemode="tozero")
    drawn.update_layout(showlegend=False)
    if memory:
        _draw_memory(drawn, found)
    return drawn


def best_so_far(*sweeps: Results) -> go.Figure:
    """The best eval loss found so far, against the tokens that all trials together have trained; of
    several sweeps, how soon each found what."""
    title = "Best loss so far" if len(sweeps) == 1 else "Best loss so far, by sweep"
    drawn = style.figure(title, "tokens trained by all trials", "best eval loss so far")
    for number, found in enumerate(sweeps):
        moments = regret(read(found).trials, found.record.get("started"))
        if not moments:
            continue
        drawn.add_scatter(
            x=[one.tokens for one in moments], y=[one.eval_loss for one in moments],
            mode="lines+markers", name=found.config.name,
            line={"shape": "hv", "width": 2, "color": style.SERIES[number % len(style.SERIES)]},
            text=[
                f"{one.trial}, {one.regret:.4f} above the best"
                + ("" if one.seconds is None else f"<br>{one.seconds / 60:.1f} min after the start")
                for one in moments
            ],
            hovertemplate="%{y:.4f} after %{x:,} tokens<br>%{text}<extra></extra>",
        )  # fmt: skip
    drawn.update_layout(showlegend=len(sweeps) > 1)
    bases = [found.leaderboard["base"]["eval_loss"] for found in sweeps]
    losses = [loss for line in drawn.data for loss in line.y]
    style.cut(
        drawn, losses, style.sight(losses, max((base for base in bases if base), default=None))
    )
    return drawn if drawn.data else style.nothing(drawn, "no evaluation yet")


def pareto(found: Results) -> go.Figure:
    """Best eval loss against the GPU-seconds of every trial (of its workers where there is no GPU),
    and those that no other beats in both."""
    device = "" if set(found.trials["device"].dropna()) <= {"cpu"} else "GPU-"
    drawn = style.figure(
        "Loss against cost", f"{device}seconds in training steps", "best eval loss"
    )
    table = found.trials.dropna(subset=["eval_loss"])
    costs = [Cost(*row) for row in table[["trial", "eval_loss", "gpu_seconds"]].to_numpy()]
    if not costs:
        return style.nothing(drawn, "no losses yet")
    front = pareto_front(costs)
    drawn.add_scatter(
        x=[cost.gpu_seconds for cost in front], y=[cost.eval_loss for cost in front],
        mode="lines", name="no other is cheaper and better", hoverinfo="skip",
        line={"color": style.INK, "width": 1.5, "shape": "hv", "dash": "dot"},
    )  # fmt: skip
    for kind, color, some in style.by_outcome(table, found.leaderboard["best"]):
        size, symbol = (14, "star") if kind == "best" else (9, "circle")
        drawn.add_scatter(
            x=some["gpu_seconds"], y=some["eval_loss"], mode="markers", name=kind,
            marker={"color": color, "size": size, "symbol": symbol},
            text=[style.hover_text(row, found.axes) for row in some.to_dict("records")],
            hovertemplate="%{x:,.0f} seconds<br>%{text}<extra></extra>",
        )  # fmt: skip
    losses = [cost.eval_loss for cost in costs]
    style.cut(drawn, losses, style.sight(losses, found.leaderboard["base"]["eval_loss"]))
    return drawn


def lanes(spans: list[tuple[float, float]]) -> list[int]:
    """The first lane that is free for each span; the spans begin one after another."""
    free: list[float] = []
    taken = []
    for begin, end in spans:
        lane = next((n for n, until in enumerate(free) if until <= begin), len(free))
        free[lane : lane + 1] = [end]
        taken.append(lane)
    return taken


def _deaths(found: Results, lane: Mapping[str, int]) -> list[tuple[float, int, str]]:
    """Minute, lane and message of every attempt that ended otherwise than its trial."""
    started = found.trials.set_index("trial")["started"]
    deaths = []
    for record in found.records:
        for event in record.attempts:
            if event["event"] != EventName.ATTEMPT_ENDED or record.trial not in lane:
                continue
            since = event["time"] - record.times[0] if record.times and record.times[0] else 0.0
            minute = (started[record.trial] + since) / 60
            deaths.append((minute, lane[record.trial], f"{record.trial}: {event['class']}"))
    return deaths


def _rates(found: Results) -> tuple[np.ndarray, np.ndarray]:
    """Minutes, and the tokens a second of all trials then: each trial's tokens between two of its
    evaluations are spread evenly over the time between them."""
    curves = found.curves.dropna(subset=["time", "tokens"])
    spans = []
    for _, curve in curves.groupby("trial", sort=False):
        times, tokens = curve["time"].to_numpy(), curve["tokens"].to_numpy()
        spans += [
            (begin, end, (after - before) / (end - begin))
            for begin, end, before, after in zip(
                times[:-1], times[1:], tokens[:-1], tokens[1:], strict=True
            )
            if end > begin
        ]
    if not spans:
        return np.empty(0), np.empty(0)
    begins, ends, rates = map(np.array, zip(*spans, strict=True))
    moments = np.linspace(begins.min(), ends.max(), MOMENTS)
    return moments / 60, _total_until(begins, rates, moments) - _total_until(ends, rates, moments)


def _total_until(times: np.ndarray, rates: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """The sum of the rates whose times have come at each moment."""
    order = np.argsort(times)
    totals = np.concatenate([[0.0], np.cumsum(rates[order])])
    return np.asarray(totals[np.searchsorted(times[order], moments, side="right")])


def _draw_memory(drawn: go.Figure, found: Results) -> None:
    curves = found.curves.dropna(subset=["time", "gpu_memory_gb"])
    trials, _ = style.with_curves(found)
    for trial, curve in curves[curves["trial"].isin(trials["trial"])].groupby("trial", sort=False):
        drawn.add_scatter(
            x=curve["time"] / 60, y=curve["gpu_memory_gb"], mode="lines+markers", name=trial,
            line={"color": style.SERIES[3], "width": 1}, marker={"size": 4}, row=2, col=1,
            hovertemplate=f"{trial}: " + "%{y:.1f} GB<extra></extra>",
        )  # fmt: skip
