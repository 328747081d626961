"""A sweep's figures, as plotly Figures: `plots.learning_curves(results.load(DIR)).show()`.

Promise: each is made of a sweep's folder alone, without ray or torch, right while the sweep runs
and empty before there is anything to show; it reads the same on a light ground and on a dark one.
docs/report.md says what each shows. Price: plotly, and Optuna for `importance`.
"""

from sftray.views.plots.cost_plots import best_so_far, pareto, throughput, timeline
from sftray.views.plots.curve_plots import learning_curves, rungs
from sftray.views.plots.space_plots import importance, learning_rate, parallel

__all__ = [
    "best_so_far",
    "importance",
    "learning_curves",
    "learning_rate",
    "parallel",
    "pareto",
    "rungs",
    "throughput",
    "timeline",
]
