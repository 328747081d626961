"""Long sweeps: what is read and computed grows as the sweep does, and no faster."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from long_sweep import write_sweep
from more_cases import shortened

from sftray.results import load
from sftray.results.findings import learn, text
from sftray.results.leaderboard_text import table, verdicts
from sftray.storage.journal import reader
from sftray.views import plots

ROOM = str(Path(sys.modules["sftray"].__file__ or "").parent)


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of sftray are executed, each turn of a loop and of a comprehension counted."""
    count = 0

    def within(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return within

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        return within if frame.f_code.co_filename.startswith(ROOM) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def read_and_learn(folder: Path) -> None:
    found = load(str(folder))
    table(found.leaderboard)
    verdicts(found.leaderboard)
    text(learn(found))


def draw(folder: Path) -> None:
    found = load(str(folder))
    for figure in (
        plots.learning_curves, plots.learning_rate, plots.parallel, plots.rungs, plots.timeline,
        plots.throughput, plots.best_so_far, plots.pareto,
    ):  # fmt: skip
        figure(found)


def test_a_loop_within_a_loop_is_counted() -> None:
    from sftray.results.findings.finding_costs import Cost, pareto_front

    few, many = ([Cost("t", 1.0, float(k)) for k in range(n)] for n in (10, 40))
    linear = lines_run(lambda: pareto_front(many)) / lines_run(lambda: pareto_front(few))
    assert linear < 4
    nested = [lines_run(lambda n=n: [pareto_front(some) for some in [n] * len(n)])  # type: ignore[misc]
              for n in (few, many)]  # fmt: skip
    assert nested[1] / nested[0] > 10


@pytest.mark.slow
@pytest.mark.parametrize("work", shortened([read_and_learn, draw]))
def test_four_times_the_trials_are_four_times_the_work(
    work: Callable[[Path], None], tmp_path: Path
) -> None:
    few, many = (write_sweep(tmp_path / str(n), n, 3) for n in (100, 400))
    work(few)  # what is imported and cached
    assert lines_run(lambda: work(many)) < 4.6 * lines_run(lambda: work(few))


def test_a_journal_is_read_a_part_at_a_time(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, 20, 5)
    journal = str(folder / "journal.jsonl")
    whole = reader(journal).new()
    parts = list(reader(journal).batches(2000))
    assert len(parts) > 20
    assert [event for part in parts for event in part] == whole
    longer_than_a_part = list(reader(journal).batches(10))
    assert [event for part in longer_than_a_part for event in part] == whole


def test_of_a_long_curve_numbers_are_kept_and_no_objects(tmp_path: Path) -> None:
    """8 bytes a number and what stands around an array, where lists take 46."""
    folder = write_sweep(tmp_path, 40, 2, pruned=0.0)
    steps = sum(len(result["curve"]) for trial in load(str(folder)).records
                for result in trial.results)  # fmt: skip
    tracemalloc.start()
    found = load(str(folder))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert steps > 8000
    assert kept < 100 * steps
    assert found.records[0].results[-1]["curve"].shape[1] == 4  # type: ignore[union-attr]


@pytest.mark.slow
def test_of_many_trials_some_curves_are_drawn_the_best_among_them_and_it_is_said(
    tmp_path: Path,
) -> None:
    found = load(str(write_sweep(tmp_path, 300, 1)))
    drawn = plots.learning_curves(found)
    assert len(drawn.data) == plots.plot_style.MOST_CURVES
    assert drawn.layout.title.text.endswith("(200 of 300 trials)")
    assert drawn.data[-1].name == f"best: {found.leaderboard['best']}"
    assert len(plots.rungs(found).data) == 5
    few = load(str(write_sweep(tmp_path / "few", 30, 1)))
    assert "trials)" not in plots.learning_curves(few).layout.title.text
