"""Steps that stand out of a trial's curve: loss spikes, strange batches, gradient norms.

Promise: a spike is a fault of the trial only where it has a consequence: the loss does not come
back, or the eval loss rises.
"""

from __future__ import annotations

import math

import numpy as np

from sftray.config import TrialConfig
from sftray.plan.lr_schedule import warmup_steps
from sftray.results.diagnosis.one_diagnosis import NO_CHANGE, Diagnosis, lower_rate
from sftray.results.diagnosis.trial_curves import TrialCurves, usual

SPIKE = 1.5
"""A step's loss over the usual. Batches of two rows, the noisiest measured, stay under 1.2."""
SPIKE_SPREADS = 6
"""And over the usual by so many median deviations (4 standard deviations of normal noise)."""
SPIKE_HEIGHT = 0.1
"""And over the usual by so much: near 0 half as much again is nothing."""
STRANGE = 1.0
"""Nats above the usual: a batch whose tokens are a third as likely is looked at, even where it was
of no consequence."""
BACK_WITHIN = 10
"""Steps after a spike whose median says whether the loss came back."""
EXPLODING = 10
"""Gradient norm over its usual: 10 to 100 times is called exploding."""


def what_announced_it(config: TrialConfig, course: TrialCurves) -> Diagnosis | None:
    """The loss spike or gradient norm before a divergence, as far as steps are known."""
    spike = _worst_spike(course)
    if spike is not None:
        return _spike_told(config, course, spike)
    return gradient_norm(config, course, None)


def loss_spikes(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    found = _worst_spike(course)
    if found is None:
        return None
    worst, last, _ = found
    if not _came_back(course, worst) or not _came_back(course, last):
        return _spike_told(config, course, found)
    losses, normal = course.curve[:, 1], usual(course.curve[:, 1])
    if losses[worst] - normal[worst] < STRANGE or (base is not None and losses[worst] < base):
        return None
    step, batch = int(course.curve[worst, 0]), config.effective_batch_size
    return Diagnosis(
        "strange_batch",
        f"A strange batch at step {step}: train loss {losses[worst]:.3f} where "
        f"{normal[worst]:.3f} was usual; the loss came back.",
        f"Look at rows {(step - 1) * batch} to {step * batch - 1} of the row order; the learning "
        "rate is not to blame.",
    )


def _worst_spike(course: TrialCurves) -> tuple[int, int, int] | None:
    """The places of the worst and the last spike in the curve, and how many there are."""
    losses = course.curve[:, 1]
    normal = usual(losses)
    above = losses - normal
    spread = float(np.nanmedian(np.abs(above))) if np.isfinite(above).any() else math.nan
    high = (losses > SPIKE * normal) & (above > SPIKE_SPREADS * spread) & (above > SPIKE_HEIGHT)
    spikes = np.flatnonzero(high).tolist()
    if not spikes:
        return None
    return max(spikes, key=lambda index: float(above[index])), spikes[-1], len(spikes)


def _came_back(course: TrialCurves, index: int) -> bool:
    """Whether a step's spike was of no consequence: the next losses are the usual ones again, and
    the next eval loss is no higher than the one before."""
    step, losses = course.curve[index, 0], course.curve[:, 1]
    after = losses[index + 1 : index + 1 + BACK_WITHIN]
    normal = usual(losses)[index]
    if len(after) and np.median(after) > normal + (losses[index] - normal) / 4:
        return False
    before = [one.eval_loss for one in course.evaluations if one.step < step]
    later = [one.eval_loss for one in course.evaluations if one.step >= step]
    return not (before and later and later[0] > before[-1] * (1 + NO_CHANGE))


def _spike_told(config: TrialConfig, course: TrialCurves, found: tuple[int, int, int]) -> Diagnosis:
    worst, last, number = found
    losses, normal = course.curve[:, 1], usual(course.curve[:, 1])
    step, batch = int(course.curve[worst, 0]), config.effective_batch_size
    count = "A loss spike" if number == 1 else f"{number} loss spikes, the largest"
    return Diagnosis(
        "loss_spikes",
        f"{count} at step {step}: train loss {losses[worst]:.3f} where {normal[worst]:.3f} was "
        f"usual, with a gradient norm of {course.curve[worst, 3]:.3g}.",
        f"Warm up for longer than {config.warmup_ratio:.0%} of the steps."
        if _in_warmup(config, course, last)
        else f"{lower_rate(config, 3)}; if trials of other rates have it too, look at rows "
        f"{(step - 1) * batch} to {step * batch - 1} of the row order.",
    )


def gradient_norm(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    norms = course.curve[:, 3]
    normal = usual(norms)
    clipped = norms > config.max_grad_norm  # a step below it is an ordinary one
    outside = np.flatnonzero(clipped & (norms > EXPLODING * normal) & (normal > 0)).tolist()
    if not outside:
        return None
    worst = max(outside, key=lambda index: float(norms[index] / normal[index]))
    often = "" if len(outside) == 1 else f", the worst of {len(outside)} such steps"
    remedy = f"lower the learning rate from {config.learning_rate:.3g}"
    if _in_warmup(config, course, outside[-1]):
        remedy = f"warm up for longer than {config.warmup_ratio:.0%} of the steps"
    return Diagnosis(
        "gradient_norm",
        f"Gradient norm {norms[worst]:.3g} at step {int(course.curve[worst, 0])}, "
        f"{norms[worst] / normal[worst]:.0f} times its usual {normal[worst]:.2g}{often}.",
        f"Clipping to {config.max_grad_norm:g} held it; if it comes again, {remedy}.",
    )


def _in_warmup(config: TrialConfig, course: TrialCurves, index: int) -> bool:
    """Whether a step of the curve lies in the warm-up, or as long again after it."""
    return bool(course.curve[index, 0] <= 2 * warmup_steps(config, course.steps or 0))
