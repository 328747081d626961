"""Pictures of a sweep's report in a real browser, for docs/images.

python docs/screenshots.py results/lr_batch              (pip install playwright; a Chromium)

The page is opened as a file, without a network, by a laptop, a laptop in dark mode and a phone; the
script fails where the page logs an error, asks for anything, or is wider than the screen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from sftray.report import write_report

IMAGES = Path(__file__).parent / "images"
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
    parser.add_argument("dir", help="a sweep's folder")
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--browser", help="a Chromium that is installed, if not Playwright's own")
    parser.add_argument(
        "--whole", action="store_true", help="whole pages, to look at; they are large"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    address = Path(write_report(options.dir)).resolve().as_uri()
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
        browser.close()
    sizes = {path.name: path.stat().st_size for path in options.out.glob("*.png")}
    large = {name: size for name, size in sizes.items() if size > LARGEST}
    if large and not options.whole:
        sys.exit(f"over {LARGEST:,} bytes: {large}")


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
