"""The points that a search begins with: good elsewhere, for bases of this size.

Sources of the learning rates: Schulman et al. 2025 ("LoRA Without Regret", Thinking Machines Lab),
whose fit over Llama and Qwen bases is 5e-4 · (2000 / hidden size)^p; and QLoRA (Dettmers et al.
2023, arXiv:2305.14314, its table of hyper-parameters): 2e-4 for bases of 7 and 13 billion
parameters, 1e-4 for 33 and 65 billion. All else is TrialConfig's default, the usual start.

Promise: they are the first of the search's own trials and cost no others; a rate far outside the
range that the user gave is not tried.
"""

from __future__ import annotations

from dataclasses import fields

from sftray.config import SweepConfig, TrialConfig
from sftray.config.checks import is_number
from sftray.config.points import Point, nearest_point
from sftray.plan.model_shape import ModelShape
from sftray.storage.model_files import BaseConfig

EXPONENTS = {"qwen2": 0.0775, "qwen3": 0.0775}
"""p by model type; of all others Llama's."""
LLAMA_EXPONENT = 0.781
OUTSIDE = 3.0
"""A rate further outside the range than this factor says nothing about the range."""


def prior_points(sweep: SweepConfig, base: BaseConfig) -> list[Point]:
    """Where to begin a search on the base with this config.json; none where that is not known, or
    not wanted: the rates are LoRA's."""
    shape = ModelShape.of(base)
    if not sweep.priors or not sweep.search_space or shape is None:
        return []
    if sweep.trial.finetune == "full":
        return []
    usual = {f.name: f.default for f in fields(TrialConfig)}
    wanted: Point = {
        name: at if isinstance(at := usual[name], int | float) else getattr(sweep.trial, name)
        for name in sweep.search_space
    }
    if "learning_rate" not in sweep.search_space:
        return [nearest_point(sweep.search_space, wanted)]
    points: list[Point] = []
    for rate in published_rates(shape, str(base.get("model_type"))):
        point = nearest_point(sweep.search_space, {**wanted, "learning_rate": rate})
        first = point["learning_rate"]
        near = is_number(first) and max(rate / first, first / rate) <= OUTSIDE
        if near and point not in points:
            points.append(point)
    return points


def published_rates(shape: ModelShape, model_type: str) -> list[float]:
    """LoRA learning rates published for bases of about this shape, the newest source first."""
    rates = [5e-4 * (2000 / shape.hidden) ** EXPONENTS.get(model_type, LLAMA_EXPONENT)]
    if shape.parameters > 25e9:
        rates.append(1e-4)
    elif shape.parameters > 6e9:
        rates.append(2e-4)
    return rates


def usual_rate(base: BaseConfig) -> float | None:
    """The lowest LoRA learning rate published for bases of about this size; None where the size is
    not known."""
    shape = ModelShape.of(base)
    return None if shape is None else min(published_rates(shape, str(base.get("model_type"))))
