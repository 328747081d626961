"""The report's figures, each with what there is to know to read it."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from sftray.results import Results
from sftray.results.findings import Findings
from sftray.views import plots


@dataclass(frozen=True)
class Shown:
    """A figure's place on the page."""

    name: str
    title: str
    link: str
    """The title in short."""
    caption: str
    figure: go.Figure | None
    """None where there is nothing to show, and the caption says why."""


def figures_of(found: Results, findings: Findings) -> list[Shown]:
    """All figures, in the order of the page."""
    scaling, importances = findings.scaling, findings.importances
    scaled = f" {_sentence(scaling.says)}" if scaling else ""
    return [
        _shown("eval", "Eval loss", plots.learning_curves(found),
            "All trials on the same held-out rows; at the same number of rows trained on, all have "
            "seen the same data, whatever their batch size."),
        _shown("train", "Train loss", plots.learning_curves(found, "train_loss"),
            "Loss of the batches as they came, a running mean."),
        _shown("rate", "Learning rate", plots.learning_rate(found),
            f"Every trial that has an eval loss at this number of rows.{scaled}"),
        _shown("rate-best", "Best by rate", plots.learning_rate(found, equal_data=False),
            "Hollow: stopped or failed before the end of its budget."),
        _shown("parallel", "Parallel", plots.parallel(found),
            "Best eval loss of each trial, the lowest in orange. Drag along an axis to select."),
        _shown("importance", "Importance", plots.importance(found, importances),
            f"By PED-ANOVA above chance, from {importances.compared}."),
        _shown("rungs", "Rungs", plots.rungs(found), f"Early stopping: {findings.stopping.says}."),
        _shown("timeline", "Timeline", plots.timeline(found),
            "From a trial's first evaluation to its end."),
        _shown("throughput", "Throughput", plots.throughput(found),
            "Between two evaluations of a trial its tokens are spread evenly; evaluations and "
            "waiting count as time."),
        _shown("so-far", "Best so far", plots.best_so_far(found),
            "How soon the sweep found what it found."),
        _shown("pareto", "Cost", plots.pareto(found),
            "On the dotted line no other trial is both cheaper and better."),
    ]  # fmt: skip


def _shown(name: str, link: str, figure: go.Figure, caption: str) -> Shown:
    title = figure.layout.title.text
    if not figure.data:
        return Shown(name, title, link, _sentence(figure.layout.annotations[0].text), None)
    figure.update_layout(title=None, margin={"t": 46 if name != "parallel" else 60})
    return Shown(name, title, link, caption, figure)


def _sentence(text: str) -> str:
    """What a finding says, as a sentence."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""
