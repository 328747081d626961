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
from pathlib import Path

import jinja2
from markupsafe import Markup

from sftray.config.points import point_text, short
from sftray.results import Results, load
from sftray.results.findings import learn
from sftray.storage import files
from sftray.storage.paths import SweepPaths
from sftray.views.report.facts import facts_of
from sftray.views.report.figures import Shown, figures_of

__all__ = ["page", "write_report"]


def write_report(folder: str) -> str:
    """Write report.html into the folder of a finished or running sweep; returns its path."""
    path = SweepPaths(folder).report
    files.write_text(path, page(load(folder)))
    return path


def page(found: Results) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    findings = learn(found)
    shown = figures_of(found, findings)
    here = Path(__file__).parent
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    pages.filters |= {"count": "{:,.0f}".format, "loss": _loss, "percent": _percent}
    pages.filters |= {"short": short, "point": point_text, "quote": shlex.quote}
    return pages.get_template("page.html.jinja").render(
        **vars(facts_of(found, findings)),
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


def _for_script(shown: list[Shown]) -> Markup:
    """The figures as JSON within a script: no text in them can end it."""
    drawn = {one.name: json.loads(one.figure.to_json()) for one in shown if one.figure is not None}
    return Markup(json.dumps(drawn).replace("<", "\\u003c"))


def _loss(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
