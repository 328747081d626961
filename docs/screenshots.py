"""Pictures of a sweep's report in a real browser, of the notebooks' main figures, and of the live
view, for docs/images.

python docs/screenshots.py results/lr_batch results/rank    (pip install playwright; a Chromium)

The page is opened as a file, without a network, by a laptop, a laptop in dark mode and a phone; the
script fails where the page logs an error, asks for anything, or is wider than the screen. Each
notebook is run on the sweeps that are given, and its first figure drawn. The live view is drawn as
it was at `--live` of the journal's events; `--only-live` needs no browser.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from sftray.views.live.live_view import view
from sftray.views.live.watched import Watched
from sftray.views.report.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parent / "images"
ANALYSIS = Path(__file__).parent.parent / "analysis"
FIGURES = ("eval", "rate", "parallel", "rungs", "timeline", "importance")
LARGEST = 200_000
"""Bytes of a picture."""
SCREENS = {
    "report_light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "report_dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "report_phone": {
        "viewport": {"width": 390, "height": 844}, "color_scheme": "light", "is_mobile": True,
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dir", nargs="+", help="sweeps' folders; all but the first: to compare")
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--browser", help="a Chromium that is installed, if not Playwright's own")
    parser.add_argument(
        "--whole", action="store_true", help="whole pages, to look at; they are large"
    )
    parser.add_argument("--live", type=float, default=0.4, help="share of the journal's events")
    parser.add_argument("--only-live", action="store_true", help="no pictures of the report")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "live.svg").write_text(live_picture(Path(options.dir[0]), options.live))
    if options.only_live:
        return
    from playwright.sync_api import sync_playwright

    address = Path(write_report(options.dir[0])).resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser)
        for name, screen in SCREENS.items():
            page = _opened(browser, address, screen)
            page.screenshot(path=options.out / f"{name}.png", full_page=options.whole)
            if name == "report_light" and not options.whole:
                for figure in FIGURES:
                    page.locator(f"section#{figure}").screenshot(
                        path=options.out / f"figure_{figure}.png"
                    )
        for path in () if options.whole else sorted(ANALYSIS.glob("*.ipynb")):
            figure = browser.new_page(viewport={"width": 900, "height": 480})
            figure.set_content(main_figure(path, options.dir), wait_until="load")
            figure.wait_for_selector(".main-svg")
            drawn = figure.locator(".plotly-graph-div")
            drawn.screenshot(path=options.out / f"notebook_{path.stem}.png")
        browser.close()
    sizes = {path.name: path.stat().st_size for path in options.out.glob("*.png")}
    large = {name: size for name, size in sizes.items() if size > LARGEST}
    if large and not options.whole:
        sys.exit(f"over {LARGEST:,} bytes: {large}")


def live_picture(sweep: Path, share: float) -> str:
    """The live view at 80 columns as SVG, with no font that would be loaded."""
    lines = (sweep / "journal.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    lines = lines[: round(share * len(lines))]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "journal.jsonl").write_text("".join(lines), encoding="utf-8")
        (Path(folder) / "sweep.json").write_bytes((sweep / "sweep.json").read_bytes())
        watched = Watched(folder, now=lambda: float(json.loads(lines[-1])["time"]) + 1)
        watched.catch_up()
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(view(watched.state(), 80, 26))
    plain = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.S)
    return console.export_svg(title="sftray", code_format=plain, unique_id="live")


def main_figure(path: Path, sweeps: Sequence[str]) -> str:
    """The first figure of a notebook, which is run on these sweeps, as a page."""
    import nbformat
    import plotly.io
    from nbclient import NotebookClient

    notebook, folders = nbformat.read(path, as_version=4), cycle(sweeps)
    for cell in notebook.cells:
        cell.source = re.sub(
            r'"\.\./results/\w+"',
            lambda _: repr(str(Path(next(folders)).resolve())),
            cell.source,
        )
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kind = "application/vnd.plotly.v1+json"
    figure = next(one["data"][kind] for one in outputs if kind in one.get("data", {}))
    figure.pop("config", None)
    return str(plotly.io.to_html(figure, config={"staticPlot": True}))


def _opened(browser: Browser, address: str, screen: dict[str, object]) -> Page:
    page = browser.new_context(**screen, offline=True).new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None
    )
    page.goto(address)
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    page.wait_for_timeout(500)  # parallel coordinates fade in
    wide = page.evaluate("document.documentElement.scrollWidth")  # a phone's innerWidth grows
    if wide > page.viewport_size["width"]:
        wrong.append(f"the page is {wide} pixels wide, the screen {page.viewport_size['width']}")
    if wrong:
        sys.exit("\n".join(wrong))
    return page


if __name__ == "__main__":
    main()
