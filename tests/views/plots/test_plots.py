"""The figures show what the tables say, and something sensible where there is nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fake_folder import EVENTS, RECORDED, found_in

from sftray import results
from sftray.results import Results
from sftray.views import plots
from sftray.views.plots.cost_plots import lanes

ALL = {name: getattr(plots, name) for name in plots.__all__}


@pytest.fixture(scope="module")
def recorded() -> Results:
    return results.load(str(RECORDED))


def values(figure: Any, name: str, axis: str) -> list[Any]:
    """All values on an axis of the traces of that name."""
    return [value for trace in figure.data if trace.name == name for value in trace[axis]]


@pytest.mark.parametrize("name", ALL)
def test_a_figure_of_a_finished_sweep_has_data_and_becomes_json(
    name: str, recorded: Results
) -> None:
    figure = ALL[name](recorded)
    assert len(figure.data) > 0
    assert json.loads(figure.to_json())["layout"]["title"]["text"]
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0, 0, 0, 0)"


@pytest.mark.parametrize("name", ALL)
def test_a_figure_can_be_made_at_every_moment_of_a_sweep(name: str, tmp_path: Path) -> None:
    for number in range(len(EVENTS) + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        figure = ALL[name](found_in(folder, EVENTS[:number]))
        says = [note.text for note in figure.layout.annotations]
        assert figure.data or says[0]


def test_every_trial_has_a_curve_and_the_best_is_drawn_last(recorded: Results) -> None:
    figure = plots.learning_curves(recorded)
    assert len(figure.data) == 22
    best = recorded.leaderboard["best"]
    assert figure.data[-1].name == f"best: {best}"
    assert min(figure.data[-1].y) == recorded.best["eval_loss"][0]
    assert values(figure, "pruned", "y")
    train = plots.learning_curves(recorded, "train_loss")
    assert len(train.data[-1].x) > len(figure.data[-1].x)


def test_losses_far_above_the_base_do_not_press_the_others_flat(recorded: Results) -> None:
    base = recorded.leaderboard["base"]["eval_loss"]
    assert recorded.curves["eval_loss"].max() > base + 2
    for figure in (plots.learning_curves(recorded), plots.pareto(recorded)):
        low, high = figure.layout.yaxis.range
        assert low < recorded.best["eval_loss"][0]
        assert base < high < base + 1


def test_rivals_far_below_the_base_have_a_button_that_shows_them_apart(recorded: Results) -> None:
    import plotly.graph_objects as go

    from sftray.views.plots import plot_style

    drawn = go.Figure()
    plot_style.zoom(drawn, [0.1038, 0.1111, 0.1498, 0.1513, 5.0, 6.0], 6.0)
    whole, near = drawn.layout.updatemenus[0].buttons
    low, high = near.args[0]["yaxis.range"]
    assert low < 0.1038 < 0.1498 < high < 0.3
    assert whole.args[0] == {"yaxis.autorange": True}
    apart = go.Figure()
    plot_style.zoom(apart, [1.0, 3.0, 5.0], 6.0)
    assert not apart.layout.updatemenus


def test_learning_rates_are_compared_at_equal_data(recorded: Results) -> None:
    figure = plots.learning_rate(recorded)
    assert figure.layout.yaxis.title.text == "eval loss after 24 rows"
    assert {trace.name for trace in figure.data} == {"batch size 2", "batch size 4"}
    rates, losses = (values(figure, "batch size 4", axis) for axis in ("x", "customdata"))
    drawn = dict(zip(rates, losses, strict=True))
    there = recorded.rungs.query("rung == 24").set_index("trial")["eval_loss"]
    searched = recorded.trials[recorded.trials["confirms"].isna()]
    for row in searched.query("effective_batch_size == 4").to_dict("records"):
        assert drawn[row["learning_rate"]] == f"{there[row['trial']]:.4f}"


def test_a_trial_that_diverged_is_a_cross_at_the_upper_edge(tmp_path: Path) -> None:
    figure = plots.learning_rate(found_in(tmp_path, EVENTS), equal_data=False)
    (trace,) = figure.data
    assert list(trace.marker.symbol) == ["star-open", "x-open"]
    assert list(trace.y) == [2.5, 2.5]
    assert list(trace.customdata) == ["2.5000", "inf"]


def test_the_axes_of_parallel_coordinates_hold_every_trial(recorded: Results) -> None:
    (trace,) = plots.parallel(recorded).data
    rate, batch, loss = trace.dimensions
    assert (rate.label, batch.label, loss.label) == (
        "learning_rate", "effective_batch_size", "eval loss",
    )  # fmt: skip
    assert [10**value for value in rate["values"]] == pytest.approx(
        recorded.trials["learning_rate"].tolist()
    )
    assert list(loss["values"]) == recorded.trials["eval_loss"].tolist()


def test_rungs_show_every_decision_and_its_newest_cutoff(recorded: Results) -> None:
    figure = plots.rungs(recorded)
    stopped = (recorded.rungs["decision"] == "stop").sum()
    assert len(values(figure, "stopped", "y")) == stopped == 12
    assert len(values(figure, "continued", "y")) == len(recorded.rungs) - stopped
    assert list(figure.layout.xaxis.categoryarray) == ["24 rows", "52 rows"]


def test_trials_that_ran_at_the_same_time_are_drawn_beneath_each_other(recorded: Results) -> None:
    assert lanes([(0, 10), (0, 4), (3, 5), (4, 9), (10, 11)]) == [0, 1, 2, 1, 0]
    figure = plots.timeline(recorded)
    bars = [
        (lane, begin, begin + minutes)
        for trace in figure.data
        for lane, begin, minutes in zip(trace.y, trace.base, trace.x, strict=True)
    ]
    assert len(bars) == 22
    assert {lane for lane, _, _ in bars} == {1, 2, 3, 4, 5}  # four slots, and who stood ready
    for lane, begin, end in bars:
        assert not [b for other, b, _ in bars if other == lane and begin < b < end]


def test_throughput_adds_up_to_the_tokens_trained(recorded: Results) -> None:
    (trace,) = plots.throughput(recorded).data
    minutes = trace.x[1] - trace.x[0]
    trained = sum(trace.y) * minutes * 60
    assert trained == pytest.approx(recorded.trials["tokens"].sum(), rel=0.02)


def test_gpu_memory_is_shown_where_there_is_some(tmp_path: Path) -> None:
    figure = plots.throughput(found_in(tmp_path, EVENTS))
    assert figure.layout.title.text == "Throughput and GPU memory"
    assert values(figure, "t0000", "y") == [3.0, 4.0]


def test_the_best_loss_so_far_falls_to_the_best(recorded: Results) -> None:
    (line,) = plots.best_so_far(recorded).data
    assert list(line.y) == sorted(line.y, reverse=True)
    assert line.y[-1] == recorded.best["eval_loss"][0]
    assert math.isclose(line.x[-1], recorded.trials["tokens"].sum())
    assert len(plots.best_so_far(recorded, recorded).data) == 2


def test_importance_names_the_axis_that_matters_and_whether_it_decides(recorded: Results) -> None:
    (bars,) = plots.importance(recorded).data
    assert bars.y[-1] == "learning_rate"
    assert bars.text[-1] == "1.00 decides"
