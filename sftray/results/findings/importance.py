"""Which hyper-parameter decides.

PED-ANOVA (Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter
Importance in Arbitrary Subspaces", IJCAI, arXiv:2304.10255) by Optuna's evaluator: how much the
values of the best quarter of the trials differ, on each axis, from the values of all that were
tried. Optuna's fANOVA (Hutter et al. 2014) and its mean decrease of impurity need scikit-learn and
a finite loss of every trial; PED-ANOVA needs only who is among the best quarter, which is known of
trials that were stopped or diverged, too, and it allows for a sampler that crowds where it is good.

Few trials differ on every axis by chance, on a continuous one more than on one of a few choices. So
the same is computed with the losses shuffled among the trials, many times: what is reported is what
lies above the mean of these, and how often chance gives as much. That is a test of random points; a
sampler's points lean towards what was good before, so it is a good guess for them, no more.
docs/findings.md has what it finds in synthetic sweeps.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from sftray.config.points import Point
from sftray.results.findings.comparisons import Comparison, Sweep, ranking

BEST_SHARE = 0.25
"""The trials whose values are held against all: of 12 trials the best 3."""
MIN_TRIALS = 12
"""Fewer name the wrong axis too often: with 8, in 5 of 12 synthetic sweeps."""
SAFE_TRIALS = 24
"""So many find an axis that decides in 14 to 19 of 20 synthetic sweeps, 16 in 7 to 12."""
SHUFFLES = 200
"""Chance is known to 1/200; half a second for four axes."""
MOST_TRIALS = 400
"""Of more, so many are taken, evenly over the order of their losses: a second for three axes."""
SURE = 0.05
"""An axis decides where chance gives as much in fewer than this, over the number of axes."""


@dataclass(frozen=True)
class Axis:
    """How much one hyper-parameter matters."""

    name: str
    importance: float
    """Its part, 0 … 1, of what all axes have above chance."""
    chance: float
    """How often shuffled losses give as much, at least 1/201."""
    decides: bool
    """Whether that is rarer than 0.05 over the number of axes."""


@dataclass(frozen=True)
class Importances:
    """The axes, the surest first, the more important first among equals."""

    axes: tuple[Axis, ...]
    trials: int
    """Trials that were compared, with those stopped or diverged before."""
    compared: str
    """Which losses, in words."""
    missing: str
    """What is missing for numbers, or for the number of one axis; empty where nothing is."""


def importances(sweep: Sweep) -> Importances:
    """The importance of each axis, from the losses that `compare.ranking` finds."""
    found = ranking(sweep, best_share=BEST_SHARE, enough=MIN_TRIALS)
    if found is None or len(found.losses) < MIN_TRIALS:
        trials = 0 if found is None else len(found.losses)
        missing = f"{trials} trials can be compared; importance needs {MIN_TRIALS}"
        return Importances((), trials, str(found or "no losses yet"), missing)
    points = {trial.name: trial.point for trial in sweep.trials if trial.name in found.losses}
    names = [name for name in sweep.spaces if _differ(points, name)]
    missing = ", ".join(name for name in sweep.spaces if name not in names)
    if missing:
        missing += ": not told apart, all that can be compared have one value"
    losses = _sampled(_ordered(found))
    sample = "" if len(losses) == len(found.losses) else f", of these {len(losses)} evenly by loss"
    axes = _axes(sweep, losses, points, names) if names else ()
    return Importances(axes, len(found.losses), f"{found}{sample}", missing)


def _differ(points: Mapping[str, Point], name: str) -> bool:
    return len({repr(point[name]) for point in points.values()}) > 1


def _axes(
    sweep: Sweep, by_trial: Mapping[str, float], points: Mapping[str, Point], names: list[str]
) -> tuple[Axis, ...]:
    import numpy as np
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator

    from sftray.search.optuna_space import distributions, to_params

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {name: sweep.spaces[name] for name in names}
    study = optuna.create_study(direction="minimize")
    study.add_trials(
        [
            optuna.create_trial(
                params=to_params(spaces, points[name]),
                distributions=distributions(spaces),
                value=loss,
            )
            for name, loss in by_trial.items()
        ]
    )
    losses = list(by_trial.values())
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)

    def divergences(values: list[float]) -> list[float]:
        by_axis = evaluator.evaluate(study, names, target=lambda trial: values[trial.number])
        return [by_axis[name] for name in names]

    shuffled = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that `target` is minimised, at each call
        real = np.array(divergences(losses))
        chance = np.array(
            [divergences(shuffled.sample(losses, len(losses))) for _ in range(SHUFFLES)]
        )
    above = np.maximum(real - chance.mean(axis=0), 0)
    shares = above / (above.sum() or 1)
    as_much = (1 + (chance >= real).sum(axis=0)) / (1 + SHUFFLES)
    axes = [
        Axis(name, float(share), float(p), bool(p <= SURE / len(names)))
        for name, share, p in zip(names, shares, as_much, strict=True)
    ]
    return tuple(sorted(axes, key=lambda axis: (axis.chance, -axis.importance)))


def _ordered(found: Comparison) -> dict[str, float]:
    """Finite losses for all: PED-ANOVA looks at their order alone."""
    worst = max(found.finite.values()) + 1
    return {trial: min(loss, worst) for trial, loss in found.losses.items()}


def _sampled(losses: Mapping[str, float]) -> dict[str, float]:
    """At most MOST_TRIALS of the trials, the best and the worst among them, in their order."""
    ranked = sorted(losses, key=lambda trial: losses[trial])
    kept = min(len(ranked), MOST_TRIALS)
    chosen = {ranked[place * (len(ranked) - 1) // max(kept - 1, 1)] for place in range(kept)}
    return {trial: loss for trial, loss in losses.items() if trial in chosen}
