"""What a trial's numbers show where something is wrong: one symptom at most, the first that fits.

Promise: a symptom is reported only where it is larger than the noise of the trial's own numbers.

Of several the first in this order is reported, because it explains those behind it:

1. schedule: the rate was not the configured one, so nothing else says anything of the point;
2. memorised: explains an eval loss that rises, or that never comes below the base's;
3. not_learning, base_better: nothing was gained at all;
4. overfitting, unstable: something was gained and lost again;
5. loss_spikes, strange_batch, gradient_norm: something happened. A spike is damage where the loss
   does not come back or the eval loss rises; a gradient norm alone was clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sftray.config import TrialConfig
from sftray.plan.lr_schedule import scheduled_rate, warmup_steps
from sftray.plan.trial_plan import MIN_STEPS
from sftray.results.diagnosis.one_diagnosis import NO_CHANGE, Diagnosis, lower_rate
from sftray.results.diagnosis.spikes import gradient_norm, loss_spikes
from sftray.results.diagnosis.trial_curves import (
    FIRST_STEPS,
    TrialCurves,
    falls,
    largest_rise,
)

USUAL_RATES = {"lora": 2e-4, "full": 5e-5}
"""The upper ends of the usual ranges of learning rates: 1e-4 … 2e-4, and 1e-5 … 5e-5."""
ONE_RISE = 0.03
"""So much must a rise be that only one evaluation shows; one of a few may be chance."""
JITTER = 2
"""A rise must be this many times what the eval loss went back and forth by otherwise."""
MEMORISED = 0.1
"""Train loss under this in the first epoch: answers seen once are not predicted so well."""
NO_GRADIENT = 1e-3
"""A gradient norm that hardly depends on the adapter; usual are 0.1 … 5."""
FEW_SUPERVISED, ALL_SUPERVISED = 0.01, 0.98
"""Shares of supervised tokens outside which the loss mask is suspect: chats have 30 … 90 %."""
RATE_TOLERANCE = 1e-3
"""Of the peak. Both trainers follow the schedule to 1e-12; another length or warm-up is more."""


def first_symptom(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    """The first symptom that a trial of `config` shows. base: the base's eval loss, finite."""
    return next((found for look in _LOOKS if (found := look(config, course, base))), None)


def _schedule(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    if course.steps is None or not len(course.curve):
        return None
    warmup = warmup_steps(config, course.steps)
    wanted = np.array(
        [
            scheduled_rate(config, int(step), steps=course.steps, warmup_steps=warmup)
            for step in course.curve[:, 0]
        ]
    )
    off = np.abs(course.curve[:, 2] - wanted)
    worst = int(off.argmax())
    if off[worst] <= RATE_TOLERANCE * config.learning_rate:
        return None
    wrong = int((off > RATE_TOLERANCE * config.learning_rate).sum())
    return Diagnosis(
        "schedule",
        f"Learning rate not as configured: {course.curve[worst, 2]:.3g} at step "
        f"{int(course.curve[worst, 0])}, where the schedule has {wanted[worst]:.3g}; "
        f"{wrong} of {len(off)} steps differ.",
        "Do not compare this trial with the others; run its point again, from its start.",
    )


def _memorised(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    found = _first_epoch_low(config, course)
    if found is None or (base is not None and base < 2 * MEMORISED):
        return None
    if course.evaluations and course.last.eval_loss < 2 * MEMORISED:
        return None  # conversations that it has never seen are predicted as well: it is learnt
    if len(course.curve) and np.median(course.curve[-FIRST_STEPS:, 1]) > 2 * MEMORISED:
        return None  # what is memorised stays so
    step, loss = found
    verdict = f"Memorised: train loss is {loss:.3f} at step {step}, within the first epoch"
    fewer = (
        f", fewer than {config.num_train_epochs:g} epochs" if config.num_train_epochs > 1 else ""
    )
    seen = f" while eval loss is {course.last.eval_loss:.3f}" if course.evaluations else ""
    return Diagnosis(
        "memorised",
        f"{verdict}{seen}.",
        f"Take more data (under 1,000 examples are soon memorised){fewer} or a learning rate "
        f"below {config.learning_rate:.3g}.",
    )


def _not_learning(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    if base is None or not _had_a_chance(config, course) or _train_falls(course):
        return None
    if any(abs(one.eval_loss - base) >= NO_CHANGE * base for one in course.evaluations):
        return None
    stuck = f"eval loss is {course.last.eval_loss:.3f} after {course.last.step} steps, the base's "
    stuck += f"{base:.3f}"
    share, rate = course.supervised_share, config.learning_rate
    norm = float(np.median(course.curve[:, 3])) if len(course.curve) else None
    inspect = (
        "Look at decoded rows with `sftray inspect`: the answers, and only they, must be marked."
    )
    if share is not None and not FEW_SUPERVISED <= share <= ALL_SUPERVISED:
        verdict = f"Not learning, and the loss mask is suspect: {stuck}; {share:.1%} of the tokens "
        return Diagnosis("not_learning", f"{verdict}are trained on.", inspect)
    if norm is not None and norm < NO_GRADIENT:
        verdict = f"Not learning: there is next to no gradient (norm {norm:.1g}): {stuck}."
        return Diagnosis("not_learning", verdict, inspect)
    gradient = "" if norm is None else f", with a usual gradient norm of {norm:.2g}"
    if rate < USUAL_RATES[config.finetune]:
        verdict = f"Not learning, the learning rate of {rate:.3g} is too low: {stuck}{gradient}."
        return Diagnosis("not_learning", verdict, f"Raise it tenfold, to {10 * rate:.1g}.")
    return Diagnosis(
        "not_learning",
        f"Not learning, though the learning rate of {rate:.3g} is not low: {stuck}{gradient}.",
        "Look at decoded rows with `sftray inspect`; if they are right, the base knows this data "
        "already.",
    )


def _base_better(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    if base is None or not course.evaluations:
        return None
    best, harmed = course.best, course.best.eval_loss > base * (1 + NO_CHANGE)
    if not harmed and not (best.eval_loss >= base and _had_a_chance(config, course)):
        return None
    verdict = f"The base was better: its eval loss is {base:.3f}, the best is {best.eval_loss:.3f} "
    verdict += f"at step {best.step}"
    if _train_falls(course):
        return Diagnosis(
            "base_better",
            f"{verdict}, though train loss falls.",
            "Check that the evaluation data is of the training data's kind; if so, lower the "
            f"learning rate from {config.learning_rate:.3g} or take more data.",
        )
    return Diagnosis(
        "base_better",
        f"{verdict}, and train loss does not fall either.",
        f"{lower_rate(config, 10)}.",
    )


def _overfitting(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    if not _rises(course) or not _train_change(course) < 0 or _first_epoch(course):
        return None
    best, last = course.best, course.last
    at = f"step {best.step}" if best.epoch is None else f"epoch {best.epoch:.1f}"
    epochs = round(best.epoch or 0)
    less = ", or take more data or a lower learning rate"
    if 1 <= epochs < config.num_train_epochs:
        less = f", or train {epochs} epoch{'s' if epochs > 1 else ''}"
    return Diagnosis(
        "overfitting",
        f"Overfitting: eval loss rises from {best.eval_loss:.3f} ({at}) to {last.eval_loss:.3f} "
        f"while train loss falls from {best.train_loss:.3f} to {last.train_loss:.3f}; best at step "
        f"{best.step}.",
        f"Take the checkpoint of step {best.step}{less}.",
    )


def _unstable(config: TrialConfig, course: TrialCurves, base: float | None) -> Diagnosis | None:
    if not _rises(course) or math.isnan(change := _train_change(course)):
        return None
    if change < 0 and not _first_epoch(course):
        return None
    best, last = course.best, course.last
    trained = f"from {best.train_loss:.3f} to {last.train_loss:.3f}"
    with_it = (
        f"while no conversation has come twice (train loss {trained})"
        if change < 0
        else f"and train loss with it {trained}"
    )
    return Diagnosis(
        "unstable",
        f"Unstable: eval loss rises from {best.eval_loss:.3f} at step {best.step} to "
        f"{last.eval_loss:.3f}, {with_it}.",
        f"{lower_rate(config, 3)}.",
    )


def _had_a_chance(config: TrialConfig, course: TrialCurves) -> bool:
    """Whether there were enough steps to say something of the rate, those of the warm-up apart."""
    warmup = warmup_steps(config, course.steps or 0)
    return bool(course.evaluations) and course.last.step >= warmup + MIN_STEPS


def _first_epoch_low(config: TrialConfig, course: TrialCurves) -> tuple[int, float] | None:
    """Where in the first epoch train loss is first under MEMORISED, for FIRST_STEPS on end."""
    if course.steps is not None and len(course.curve) >= FIRST_STEPS:
        medians = np.median(sliding_window_view(course.curve[:, 1], FIRST_STEPS), axis=1)
        steps = course.curve[FIRST_STEPS - 1 :, 0]
        epochs = steps / course.steps * config.num_train_epochs
        low = np.flatnonzero((medians < MEMORISED) & (epochs <= 1)).tolist()
        return (int(steps[low[0]]), float(medians[low[0]])) if low else None
    for one in course.evaluations:
        loss = one.train_loss
        if one.epoch is not None and one.epoch <= 1 and loss is not None and loss < MEMORISED:
            return one.step, loss
    return None


def _rises(course: TrialCurves) -> bool:
    """Whether eval loss has risen since its best by more than it goes back and forth anyway.

    Before the best it should only fall and after it only rise: the largest move against that is
    the curve's jitter.
    """
    if not course.evaluations:
        return False
    losses = [one.eval_loss for one in course.evaluations]
    best = losses.index(min(losses))
    after = losses[best:]
    rise = after[-1] - after[0]
    back_and_forth = max(largest_rise(losses[: best + 1]), largest_rise(after[::-1]))
    needed = (NO_CHANGE if len(after) > 2 else ONE_RISE) * after[0]
    return rise > needed and rise > JITTER * back_and_forth


def _train_change(course: TrialCurves) -> float:
    """How train loss has changed since the best evaluation, as a share; NaN where unknown."""
    best, last = course.best.train_loss, course.last.train_loss
    return math.nan if not best or last is None else last / best - 1


def _first_epoch(course: TrialCurves) -> bool:
    """Whether the trial is still in its first epoch, in which nothing can be learnt by heart."""
    return course.last.epoch is not None and course.last.epoch <= 1


def _train_falls(course: TrialCurves) -> bool:
    """Whether train loss has fallen by more than the noise of its batches."""
    if len(course.curve):
        return falls(course.curve[:, 1])
    losses = [one.train_loss for one in course.evaluations if one.train_loss is not None]
    return bool(losses) and losses[-1] < losses[0] * (1 - NO_CHANGE)


_LOOKS: tuple[Callable[[TrialConfig, TrialCurves, float | None], Diagnosis | None], ...] = (
    _schedule,
    _memorised,
    _not_learning,
    _base_better,
    _overfitting,
    _unstable,
    loss_spikes,
    gradient_norm,
)
