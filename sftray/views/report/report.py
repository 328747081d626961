"""report.html: a sweep on one page that opens without a network.

Promise: everything on it comes from the sweep's folder, so it is right while the sweep runs, too;
all text is escaped, and the page itself forbids the browser to load anything or to run any script
that is not the page's own. Neither ray nor torch is imported. Price: pandas, plotly and Optuna, two
seconds, and 5 MB, nearly all of it plotly.js.
"""

from __future__ import annotations

import json
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup

from sftray.config.points import point_text, short
from sftray.results import Results, load
from sftray.results.findings import Findings, learn
from sftray.storage import files
from sftray.storage.paths import SweepPaths
from sftray.storage.terminal_text import visible
from sftray.views import plots
from sftray.views.report.facts import facts_of


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


def write_report(folder: str) -> str:
    """Write report.html into the folder of a finished or running sweep; returns its path."""
    path = SweepPaths(folder).report
    files.write_text(path, page(load(folder)))
    return path


def page(found: Results) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    findings = learn(found)
    shown = _figures_of(found, findings)
    here = Path(__file__).parent
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_as_shown,
    )
    pages.filters |= {"count": "{:,.0f}".format, "loss": _loss, "percent": _percent}
    pages.filters |= {"short": short, "point": point_text, "quote": shlex.quote}
    return pages.get_template("page.html.jinja").render(
        **facts_of(found, findings),
        found=found,
        findings=findings,
        best_folder=SweepPaths(found.folder).best,
        shown=shown,
        nonce=secrets.token_urlsafe(16),
        # written by us or by plotly, and without a closing tag in them
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        script=Markup((here / "page.js").read_text(encoding="utf-8")),
        plotly_js=Markup(get_plotlyjs()),
        figures=_for_script(shown),
    )


def _figures_of(found: Results, findings: Findings) -> list[Shown]:
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
            f"The share of ranks that each explains, above chance; from {importances.compared}."),
        _shown("rungs", "Rungs", plots.rungs(found), f"Early stopping: {findings.stopping.says}."),
        _shown("timeline", "Timeline", plots.timeline(found),
            "From a trial's first evaluation to its end."),
        _shown("throughput", "Throughput", plots.throughput(found),
            "Between two evaluations of a trial its tokens are spread evenly; evaluations and "
            "waiting count as time."),
        _shown("so-far", "Best so far", plots.best_so_far(found),
            "How soon the sweep reached its best loss."),
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


def _for_script(shown: list[Shown]) -> Markup:
    """The figures as JSON within a script: no text in them can end it."""
    drawn = {one.name: json.loads(one.figure.to_json()) for one in shown if one.figure is not None}
    return Markup(json.dumps(drawn).replace("<", "\\u003c"))


def _as_shown(value: object) -> object:
    """What the template writes; a browser heeds characters that turn the direction of text."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _loss(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
