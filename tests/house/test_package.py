"""What the package says of itself is true: everything that it imports, it asks for by name."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import sftray

ROOT = Path(sftray.__file__).parent
BROUGHT_BY = {"markupsafe": "jinja2", "pynvml": "nvidia-ml-py", "triton": "torch", "yaml": "ray"}
"""Packages that are a part of another one's interface, or have another name."""


def imported() -> set[str]:
    """Top-level modules that any of our files imports, at any depth."""
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"sftray", "__future__"}


def test_everything_imported_is_a_dependency_by_name() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["gpu"]]
    names = {plain(re.split(r"[\[<>=; ]", one)[0]) for one in asked}
    distributions = importlib.metadata.packages_distributions()
    modules = imported()
    assert {"torch", "ray", "huggingface_hub"} <= modules
    for module in modules:
        of = distributions.get(module, [module])  # those of a GPU are not installed everywhere
        owner = {plain(BROUGHT_BY.get(module, name)) for name in of}
        assert owner & names, f"{module} is imported, and {sorted(owner)} is no dependency"


def plain(name: str) -> str:
    """A distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
