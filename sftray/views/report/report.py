"""report.html: a sweep on one page that opens without a network.

Promise: everything on it comes from the sweep's folder, so it is right while the sweep runs, too;
all text is escaped, and the page itself forbids the browser to load anything or to run any script
that is not the page's own. Neither ray nor torch is imported. Price: pandas, plotly and Optuna, two
seconds, and 5 MB, nearly all of it plotly.js.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sftray.config.points import short
from sftray.results import Results, load
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

    facts = facts_of(found)
    shown = figures_of(found, facts["findings"])
    here = Path(__file__).parent
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    pages.filters |= {"count": _count, "loss": _loss, "short": short, "percent": _percent}
    return pages.get_template("page.html.jinja").render(
        **facts,
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


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _loss(value: Any) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
