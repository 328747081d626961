"""What went wrong (or well) with a trial, from its metrics and its answers' flags alone, in two
plain sentences.

Promise: a pure function of a trial's record and its configuration, right while the trial runs, too;
numbers are taken from metrics, and a message is only quoted. Price: numpy, 1 ms a trial
and 2 µs a step.

An outcome that ended a trial from outside, or by NaN, goes first: its numbers stop in the middle.
Then the first of the symptoms, in the order of symptoms.py, of pruned trials too. What is left is
pruned, healthy or too_early.
"""

from __future__ import annotations

import math
from dataclasses import replace

from sftray.config import TrialConfig
from sftray.plan.lr_schedule import warmup_steps
from sftray.results.diagnosis.one_diagnosis import Diagnosis, lower_rate
from sftray.results.diagnosis.spikes import what_announced_it
from sftray.results.diagnosis.symptoms import USUAL_RATES, first_symptom
from sftray.results.diagnosis.trial_curves import TrialCurves, read_course, still_falling
from sftray.results.records import TrialRecord
from sftray.storage.journal.event_types import Outcome
from sftray.trial.answer_flags import bad_answers

CLOSE = 0.01
"""A pruned trial that missed the cutoff by less than this share of it was close."""
MESSAGE_LENGTH = 200
"""Characters of a message that are quoted."""


def diagnose(trial: TrialRecord, config: TrialConfig, *, base_loss: float | None) -> Diagnosis:
    """The diagnosis of a trial that ran as `config`, ended or not.

    base_loss: the untrained base's eval loss; None, or no finite number, where it is not known.
    """
    course = read_course(trial, config)
    match trial.outcome:
        case Outcome.DIVERGED:
            return _diverged(trial, config, course)
        case Outcome.OUT_OF_MEMORY:
            return _out_of_memory(trial, config, course)
        case str() as kind if kind in _ENDED_FROM_OUTSIDE:
            what, advice = _ENDED_FROM_OUTSIDE[kind]
            how_far = "" if kind == Outcome.DATA_ERROR else _how_far(course)
            said = _said(trial, "no reason was given")
            return Diagnosis(kind, f"{what}{how_far}: {said}.", advice)
    base = base_loss if base_loss is not None and math.isfinite(base_loss) else None
    symptom = first_symptom(config, course, base)
    if trial.outcome == Outcome.PRUNED:
        return _pruned(trial, course, symptom)
    return symptom or _nothing_wrong(trial, course, base)


# what ended a trial


def _diverged(trial: TrialRecord, config: TrialConfig, course: TrialCurves) -> Diagnosis:
    said = _said(trial, "a loss or gradient norm is not finite")
    if course.base_overflows:
        return Diagnosis(
            "overflow",
            f"Numbers overflow before any training, in the base's own eval loss: {said}.",
            "The learning rate is not to blame: check the base's weights, or hold them with "
            "base_precision='fp32'.",
        )
    announced = what_announced_it(config, course)
    before = f" after {_within(announced.verdict)}" if announced else ""
    verdict = f"Diverged{before}: {said}."
    past_warmup = course.known_until > 2 * warmup_steps(config, course.steps or 0)
    other = "hold the base with base_precision='bf16'"
    if config.finetune == "full":
        other = "compute with base_precision='fp32'"
    if past_warmup and not announced and config.learning_rate <= USUAL_RATES[config.finetune]:
        return Diagnosis(
            "diverged",
            verdict,
            f"A learning rate of {config.learning_rate:.3g} is usual, and no sign came before: "
            f"look at the rows of that step, and {other}.",
        )
    longer = "" if past_warmup else f", or warm up for more than {config.warmup_ratio:.0%}"
    return Diagnosis("diverged", verdict, f"{lower_rate(config, 3)}{longer}.")


def _out_of_memory(trial: TrialRecord, config: TrialConfig, course: TrialCurves) -> Diagnosis:
    said = _said(trial, "even one row at a time did not fit")
    when = f" after step {course.last.step}" if course.evaluations else ""
    sharded = "" if config.shard_base else ", or spread the base with shard_base=True"
    smaller = "" if config.in_4_bits else ", base_precision='nf4'"
    less = f"Lower data.max_length or lora_r ({config.lora_r}){smaller}{sharded}"
    if config.finetune == "full":
        less = "Lower data.max_length, train an adapter with finetune='lora', or take a larger GPU"
    return Diagnosis(
        "out_of_memory",
        f"Out of memory{when}: {said}.",
        f"{less}; the effective batch size does not matter, because rows are accumulated.",
    )


def _pruned(trial: TrialRecord, course: TrialCurves, symptom: Diagnosis | None) -> Diagnosis:
    verdict, gap = _missed_cutoff(trial, course)
    if symptom:
        return replace(symptom, verdict=f"{verdict[:-1]}; {_within(symptom.verdict)}.")
    close = gap is not None and gap < CLOSE
    return Diagnosis(
        "pruned",
        verdict,
        "It was close: if the point matters, run it to its end with scheduler='none'."
        if close
        else "Nothing else looks wrong.",
    )


def _nothing_wrong(trial: TrialRecord, course: TrialCurves, base: float | None) -> Diagnosis:
    running = trial.outcome is None
    wait = "Wait for more evaluations." if running else "Give it more steps."
    if not course.evaluations:
        return Diagnosis("too_early", "No evaluation yet.", wait)
    best, last = course.best, course.last
    if base is not None and best.eval_loss >= base:
        verdict = f"Too early to judge: eval loss {best.eval_loss:.3f} at step {best.step}, "
        return Diagnosis("too_early", f"{verdict}the base's {base:.3f}.", wait)
    fell = "" if base is None else f", {base - best.eval_loss:.3f} below the base's"
    ended = "" if best == last else f"; {last.eval_loss:.3f} at step {last.step}"
    facts = f"best eval loss {best.eval_loss:.3f} at step {best.step}{fell}{ended}"
    verdict = f"Healthy: {facts}."
    if running:
        return Diagnosis("healthy", verdict, "Nothing to mend so far.")
    if bad := bad_answers(trial.flags_at(best.step)):
        return Diagnosis(
            "bad_answers",
            f"Bad answers: {facts}, but of its sample answers {bad}.",
            "Read its samples.jsonl beside the base's: where the base does the same, train longer "
            "or take a larger one; else look at the rows with `sftray inspect`.",
        )
    if still_falling([one.eval_loss for one in course.evaluations]):
        return Diagnosis("healthy", verdict, "It was still falling at its end: try more epochs.")
    return Diagnosis("healthy", verdict, "Nothing to mend.")


def _missed_cutoff(trial: TrialRecord, course: TrialCurves) -> tuple[str, float | None]:
    """The sentence, and by which share of the cutoff the loss was above it."""
    for decision in reversed(trial.decisions):
        cutoff, metric = decision.get("cutoff"), decision.get("metric")
        if decision.get("decision") == "stop" and cutoff is not None and metric is not None:
            what = f"its metric {metric:.4g} is worse than the cutoff of {cutoff:.4g}"
            return f"Pruned at {decision['rung']} rows: {what}.", None
        at = [one for one in course.evaluations if one.step == decision.get("step")]
        if decision.get("decision") == "stop" and cutoff and at:
            loss = at[0].eval_loss
            return (
                f"Pruned at {decision['rung']} rows: eval loss {loss:.4f} is "
                f"{loss - cutoff:.4f} above the cutoff of {cutoff:.4f}.",
                (loss - cutoff) / cutoff,
            )
    return f"Pruned: {_said(trial, 'others were better')}.", None


def _how_far(course: TrialCurves) -> str:
    if not course.evaluations:
        return " before its first evaluation"
    best = course.best
    return f" after step {course.last.step} (best eval loss {best.eval_loss:.3f} at {best.step})"


def _said(trial: TrialRecord, otherwise: str) -> str:
    """The trial's message as part of a sentence."""
    message = " ".join(trial.message.split()).rstrip(".") or otherwise
    return message if len(message) <= MESSAGE_LENGTH else f"{message[: MESSAGE_LENGTH - 1]}…"


def _within(sentence: str) -> str:
    """A sentence to continue inside another."""
    return sentence[0].lower() + sentence[1:].rstrip(".")


_ENDED_FROM_OUTSIDE = {
    str(Outcome.DATA_ERROR): (
        "The data could not be read",
        "Look at the rows with `sftray inspect`; if a file is damaged, delete the packs and start "
        "again.",
    ),
    str(Outcome.PREEMPTED): (
        "Its machine was taken away",
        "Run the point again with --points, on machines that stay, or raise max_failures.",
    ),
    str(Outcome.FAILED): (
        "Failed",
        "Run the point again with --points and --local, which shows the whole traceback.",
    ),
}
"""Outcome → what happened, and what to do."""
