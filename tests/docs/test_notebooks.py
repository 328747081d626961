"""The notebooks run, top to bottom, on a recorded sweep, without ray or torch."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TESTS = Path(__file__).parents[1]
ANALYSIS = TESTS.parent / "analysis"
NOTEBOOKS = sorted(path.stem for path in ANALYSIS.glob("*.ipynb"))
LIGHT = (
    "import sys\n"
    "heavy = {'ray', 'torch', 'transformers', 'datasets', 'peft', 'trl'} & {*sys.modules}\n"
    "assert not heavy, heavy"
)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ANALYSIS / f"{name}.ipynb", as_version=4)


def code_of(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def on_the_recorded_sweep(source: str) -> str:
    """The cell with every folder of a sweep replaced."""
    return re.sub(r'"\.\./results/\w+"', repr(str(TESTS / "recorded" / "lr_batch")), source)


def test_the_three_notebooks_are_there() -> None:
    assert NOTEBOOKS == ["compare_sweeps", "learning_rate_and_batch", "read_a_sweep"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_without_ray_or_torch(name: str) -> None:
    notebook = read(name)
    for cell in notebook.cells:
        cell.source = on_the_recorded_sweep(cell.source)
    assert str(TESTS) in "".join(code_of(notebook))
    notebook.cells.append(nbformat.v4.new_code_cell(LIGHT))
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(TESTS)}}
    ).execute()
    shown = [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    assert not [output for output in shown if output.output_type == "error"]
    figures = [
        output for output in shown if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]
    assert len(figures) >= 3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_imports_results_and_plots_alone_and_has_no_outputs(name: str) -> None:
    notebook = read(name)
    imported = []
    for node in ast.walk(ast.parse("\n".join(code_of(notebook)))):
        assert not isinstance(node, ast.Import)
        if isinstance(node, ast.ImportFrom):
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
    assert sorted(imported) == ["sftray.results", "sftray.views.plots"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_leaderboard_curves_and_importance_come_within_the_first_ten_cells() -> None:
    first = "\n".join(cell.source for cell in read("read_a_sweep").cells[:10])
    for wanted in ("found.trials", "plots.learning_curves(found)", "plots.importance(found)"):
        assert wanted in first
