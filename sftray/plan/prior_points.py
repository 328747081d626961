"""The points that a search begins with: good elsewhere, for bases of this family and size.

Sources of the learning rates: the Tinker cookbook's published SFT sweep (Thinking Machines Lab,
github.com/thinking-machines-lab/tinker-cookbook, Apache-2.0: 23 bases, rates × ranks, alpha 32),
which FIT is fitted to by benchmarks/priors.py; for other families and for smaller bases
Schulman et al. 2025 ("LoRA Without Regret", Thinking Machines Lab), whose fit over Llama and Qwen
bases is 5e-4 · (2000 / hidden size)^p. The largest rank of the space is taken: with alpha fixed the
lowest loss of 20 of the 23 bases is that of the highest rank, whose best is within 0.08 % of it in
the others. All else is TrialConfig's default, the usual start.

Promise: they are the first of the search's own trials and cost no others; a rate far outside the
range that the user gave is not tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from sftray.config import SweepConfig, TrialConfig
from sftray.config.checks import is_number
from sftray.config.points import Point, largest_value, nearest_point, reachable, setting_of
from sftray.config.spaces import Space
from sftray.plan.base_config import with_defaults
from sftray.storage.model_files import BaseConfig

ALPHA, RANK, HIDDEN = 32.0, 16, 4096


@dataclass(frozen=True)
class Fit:
    """The best rate is coefficient · (hidden size / HIDDEN)^size · (rank / RANK)^rank."""

    coefficients: Mapping[str, float]
    """At rank 16 and hidden size 4,096, by model type without _moe and _text."""
    size: float
    rank: float


FIT = Fit(
    {
        "llama": 6.3e-4,
        "qwen3": 5.3e-4,
        "qwen3_5": 2.4e-4,
        "deepseek_v3": 3.9e-4,
        "nemotron_h": 5.1e-4,
        "gpt_oss": 4.1e-4,
    },
    size=-0.18,
    rank=0.28,
)
"""By benchmarks/priors.py."""
SMALLEST_HIDDEN = 2000
"""Below it no base was fitted."""
ALPHA_EXPONENT = -0.75
"""Measured on one base (Gemma 3 270M at rank 8 and 64, alpha 32 and 2r): -0.5 and -0.9."""
EXPONENTS = {"qwen2": 0.0775}
"""p by model type; of all others Llama's."""
LLAMA_EXPONENT = 0.781
AROUND = (1.0, 0.5, 2.0)
"""The published rate, and its neighbours: the fit's residual is a factor of 1.4."""
LOW = 0.75
"""Below this share of the published rate the smallest batch is tried: a smaller batch wants a lower
rate."""
OUTSIDE = 3.0
"""A rate further outside the range than this factor says nothing about the range."""


def prior_points(sweep: SweepConfig, base: BaseConfig, fit: Fit = FIT) -> list[Point]:
    """Where to begin a search on the base with this config.json; none where that is not known, or
    not wanted: the rates are LoRA's."""
    if not sweep.priors or not sweep.search_space or sweep.trial.finetune == "full":
        return []
    usual = {f.name: f.default for f in fields(TrialConfig)}
    wanted: Point = {
        name: at
        if isinstance(at := usual.get(name), int | float)
        else setting_of(sweep, sweep.trial, name)
        for name in sweep.search_space
    }
    if "lora_r" in wanted:
        wanted["lora_r"] = int(largest_value(sweep, "lora_r"))
    point = nearest_point(sweep.search_space, wanted)
    published = published_rate(base, sweep.trial.at(point), fit)
    if published is None:
        return []
    if "learning_rate" not in sweep.search_space:
        return [point]
    points: list[Point] = []
    for rate in _rates(sweep.search_space["learning_rate"], published):
        at = {**wanted, "learning_rate": rate}
        if rate < LOW * published and "effective_batch_size" in at:
            at["effective_batch_size"] = int(min(reachable(sweep, "effective_batch_size")))
        point = nearest_point(sweep.search_space, at)
        if point not in points:
            points.append(point)
    return points


def _rates(space: Space, published: float) -> list[float]:
    """The rates of a space to begin with: of given ones the nearest, else some around the published
    one; none where that is OUTSIDE."""

    def distance(rate: float) -> float:
        return abs(math.log(rate / published))

    nearest = space.nearest(published)
    if not is_number(nearest) or distance(nearest) > math.log(OUTSIDE):
        return []
    if values := space.finite_values():
        return sorted(filter(is_number, values), key=distance)[: len(AROUND)]
    return [published * factor for factor in AROUND]


def published_rate(base: BaseConfig, trial: TrialConfig, fit: Fit = FIT) -> float | None:
    """The LoRA learning rate published as good for bases of this family and size at the trial's
    rank and alpha; None where the size is not known."""
    base = with_defaults(base)
    base = base | (base.get("text_config") or BaseConfig())
    hidden, family = base.get("hidden_size"), _family(base)
    if not isinstance(hidden, int):
        return None
    if family not in fit.coefficients or hidden < SMALLEST_HIDDEN:
        return float(5e-4 * (2000 / hidden) ** EXPONENTS.get(family, LLAMA_EXPONENT))
    size = float((hidden / HIDDEN) ** fit.size)
    rank = float((trial.lora_r / RANK) ** fit.rank)
    alpha = float((trial.lora_scale * trial.lora_r / ALPHA) ** ALPHA_EXPONENT)
    return fit.coefficients[family] * size * rank * alpha


def _family(base: Mapping[str, object]) -> str:
    name = str(base.get("model_type"))
    return name.removesuffix("_text").removesuffix("_moe")
