"""What README and docs say can be done: links lead somewhere, commands and their flags exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftray.cli import _parser, _sweep_parser
from sftray.config import SweepConfig
from sftray.config_io import override

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)


def commands(first: str) -> list[tuple[str, list[str]]]:
    """Every command in a block that begins with `first`: (page, its words)."""
    return [
        (page.name, words)
        for page in PAGES
        for _, block in BLOCK.findall(page.read_text(encoding="utf-8"))
        for line in block.replace("\\\n", " ").splitlines()
        for words in _words(line.removeprefix("RAY_AUTH_MODE=token ").strip())
        if " ".join(words).startswith(first)
    ]


def _words(line: str) -> Iterator[list[str]]:
    """The words of a command, without what the page says of it behind two blanks or a #."""
    if not line.startswith(("python ", "sftray ", "make ")):
        return
    line = re.split(r"\s+#|\s{2,}(?![-'\"])", line)[0]
    words = shlex.split(line)
    yield [word for word in words if word != "&"]


def _sweep(file: str) -> SweepConfig:
    spec = importlib.util.spec_from_file_location("shown", ROOT / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: SweepConfig = module.sweep
    return found


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = HEADING.findall(target.read_text(encoding="utf-8"))
            assert anchor in map(_anchor, headings), f"{page.name}: {link}"


def test_every_sweep_command_has_flags_and_fields_that_exist() -> None:
    found = commands("python sweeps/")
    assert len(found) >= 6
    for page, (_, file, *arguments) in found:
        sweep = _sweep(file)
        options = _sweep_parser(sweep).parse_args([a for a in arguments if a != "…"])
        for assignment in options.set:
            sweep = override(sweep, assignment)
        assert sweep.num_trials, page


def test_every_sftray_command_exists() -> None:
    found = commands("sftray ")
    assert len(found) >= 8
    for _, (_, *arguments) in found:
        _parser().parse_args(arguments)


def test_every_benchmark_and_its_flags_exist() -> None:
    found = commands("python benchmarks/")
    assert len({words[1] for _, words in found}) >= 10
    for page, (_, file, *arguments) in found:
        source = (ROOT / file).read_text(encoding="utf-8")
        helpers = (ROOT / "benchmarks" / "console.py").read_text(encoding="utf-8")
        for word in arguments:
            if word.startswith("--"):
                assert f'"{word}"' in source + helpers, f"{page}: {file} has no {word}"


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    found = commands("make ")
    assert found
    assert {words[1] for _, words in found} <= set(targets)


def test_python_on_the_pages_is_python() -> None:
    blocks = [
        (page.name, block)
        for page in PAGES
        for language, block in BLOCK.findall(page.read_text(encoding="utf-8"))
        if language == "python"
    ]
    assert blocks
    for page, block in blocks:
        compile(block, page, "exec")


def test_the_readmes_own_sweep_is_one() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [b for language, b in BLOCK.findall(text) if "SweepConfig(" in b]
    names: dict[str, object] = {"__name__": "shown"}
    exec(compile(block, "README.md", "exec"), names)
    assert isinstance(names["sweep"], SweepConfig)
