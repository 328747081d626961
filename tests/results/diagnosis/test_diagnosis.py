"""What went wrong with a trial, told from its numbers: each kind by a trial that has it, and by
trials that come near to it and have not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftray.config import TrialConfig
from sftray.plan.lr_schedule import scheduled_rate, warmup_steps
from sftray.results.diagnosis.diagnosis import Diagnosis, diagnose
from sftray.results.records import TrialRecord

BASE = 1.9
CONFIG = TrialConfig("none", learning_rate=1e-4, effective_batch_size=16)
STEPS = 100
EVALS = (13, 25, 38, 50, 63, 75, 88, 100)

Curve = Callable[[int], float]


def fall(to: float, *, base: float = BASE, by: float = 20) -> Curve:
    """A loss that falls from the base's `to` a level, a third of the way left after `by` steps."""
    return lambda step: to + (base - to) * math.exp(-step / by)


def trial(
    evals: Curve | Mapping[int, float],
    *,
    config: TrialConfig = CONFIG,
    steps: int = STEPS,
    until: int | None = None,
    train: Curve | None = None,
    noise: float = 0.04,
    norm: Curve = lambda step: 0.6,
    rate: Curve | None = None,
    outcome: str | None = "completed",
    message: str = "",
    base: float = BASE,
    supervised: float = 0.45,
    seed: int = 0,
) -> TrialRecord:
    """A trial as the journal tells it: evaluations, and the noisy curve of the steps between."""
    if not isinstance(evals, Mapping):
        evals = {step: evals(step) for step in EVALS if step <= (until or steps)}
    rng, warmup = random.Random(seed), warmup_steps(config, steps)
    train = train or fall(1.2)
    record = TrialRecord("t0000", {}, outcome=outcome, message=message)
    record.results.append(metrics_at(0, base, tokens=0) | {"attention": "sdpa", "device": "cpu"})
    before = 0
    for step, eval_loss in evals.items():
        curve = [
            [
                at,
                train(at) * (1 + noise * rng.gauss(0, 1)),
                rate(at) if rate else scheduled_rate(config, at, steps=steps, warmup_steps=warmup),
                norm(at) * (1 + 0.2 * rng.random()),
            ]
            for at in range(before + 1, step + 1)
        ]
        metrics = metrics_at(step, eval_loss, tokens=step * 16_000, supervised=supervised)
        metrics |= {
            "epoch": step / steps * config.num_train_epochs,
            "train_loss": sum(entry[1] for entry in curve) / len(curve),
            "learning_rate": curve[-1][2],
            "grad_norm": curve[-1][3],
            "curve": curve,
        }
        record.results.append(metrics)
        before = step
    return record


def metrics_at(
    step: int, eval_loss: float, *, tokens: int, supervised: float = 0.45
) -> dict[str, Any]:
    metrics = {"step": step, "rows": step * 16, "eval_loss": eval_loss, "seconds": step * 2.0}
    metrics["gpu_seconds"] = step * 2.0
    return metrics | {"tokens": tokens, "supervised_tokens": int(tokens * supervised)}


def told(
    record: TrialRecord, config: TrialConfig = CONFIG, *, base: float | None = BASE
) -> Diagnosis:
    return diagnose(record, config, base_loss=base)


def pruned(record: TrialRecord, cutoff: float) -> TrialRecord:
    """`record`, stopped at its last evaluation."""
    last = record.results[-1]
    decision = {"event": "decision", "trial": record.trial, "step": last["step"]}
    decision |= {"rung": last["rows"], "decision": "stop", "cutoff": cutoff, "bracket": "1 epochs"}
    message = f"eval_loss {last['eval_loss']:.4f} at {last['rows']} rows, above {cutoff:.4f}"
    return replace(record, decisions=[decision], outcome="pruned", message=message)


# nothing wrong


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.12])  # a tenth is what batches of two rows have
def test_a_trial_whose_losses_fall_is_healthy_however_noisy_its_batches(
    noise: float, seed: int
) -> None:
    record = trial(fall(1.2), noise=noise, seed=seed)
    assert told(record) == Diagnosis(
        "healthy",
        "Healthy: best eval loss 1.205 at step 100, 0.695 below the base's.",
        "Nothing to mend.",
    )


def test_a_running_trial_is_diagnosed_by_what_it_has_done() -> None:
    running = trial(fall(1.2), until=25, outcome=None)
    assert told(running).kind == "healthy"
    assert told(running).advice == "Nothing to mend so far."


def test_a_good_loss_with_bad_answers_is_not_called_healthy() -> None:
    record = trial(fall(1.2))
    record.last_flags = [["repeats", "no_end"], ["no_end"]]
    found = told(record)
    assert (found.kind, found.wrong) == ("bad_answers", True)
    assert found.verdict == (
        "Bad answers: best eval loss 1.205 at step 100, 0.695 below the base's, but of its sample "
        "answers 1 of 2 repeat themselves."
    )
    record.results[-1]["answer_flags"] = [[], ["no_end"]]  # those of the best evaluation
    assert told(record).kind == "healthy"
    record.results[-1]["answer_flags"] = [["empty"], []]
    assert told(record).verdict.endswith("of its sample answers 1 of 2 are empty.")
    record.outcome = None
    assert told(record).kind == "healthy"  # it may yet learn to


def test_a_trial_that_still_falls_at_its_end_is_told_to_go_on() -> None:
    assert "try more epochs" in told(trial(fall(0.8, by=60))).advice
    assert "try more epochs" not in told(trial(fall(0.8, by=60), outcome=None)).advice


def test_a_trial_without_numbers_has_no_evaluation_yet() -> None:
    begun = trial({}, outcome=None)
    for record in (TrialRecord("t0000", {}), begun):
        assert told(record) == told(record, base=None)
        assert told(record).kind == "too_early"
        assert told(record).verdict == "No evaluation yet."


def test_a_single_evaluation_is_told_as_it_is() -> None:
    one = trial({100: 1.4})
    assert told(one).verdict == "Healthy: best eval loss 1.400 at step 100, 0.500 below the base's."
    assert told(one, base=None).verdict == "Healthy: best eval loss 1.400 at step 100."


# outcomes


def test_a_divergence_is_told_with_its_message_and_the_rate_to_lower() -> None:
    message = "step 31: loss nan, gradient norm nan at learning rate 0.00298, rows 480 to 495"
    config = replace(CONFIG, learning_rate=3e-3)
    record = trial(fall(1.2), config=config, until=25, outcome="diverged", message=message)
    assert told(record, config) == Diagnosis(
        "diverged", f"Diverged: {message}.", "Lower the learning rate from 0.003 to about 0.001."
    )


def test_a_divergence_at_the_start_asks_for_a_longer_warmup_too() -> None:
    record = trial({}, outcome="diverged", message="step 3: loss inf")
    assert "warm up for more than 5%" in told(record).advice


def test_a_divergence_that_gradient_norms_announced_says_so() -> None:
    record = trial(
        fall(1.2), until=50, norm=lambda s: 0.6 if s < 48 else 30.0, outcome="diverged",
        message="step 55: loss nan",
    )  # fmt: skip
    assert told(record).verdict.startswith("Diverged after gradient norm ")
    assert told(record).verdict.endswith("such steps: step 55: loss nan.")


def test_a_divergence_at_a_usual_rate_without_warning_suspects_the_rows() -> None:
    record = trial(fall(1.2), until=50, outcome="diverged", message="step 55: loss nan")
    assert "look at the rows" in told(record).advice
    assert "Lower the learning rate" in told(record, replace(CONFIG, learning_rate=1e-3)).advice


@pytest.mark.parametrize("spelled", [math.nan, "NaN", math.inf, "Infinity"])
def test_a_base_whose_loss_is_not_finite_is_an_overflow_and_not_the_rates_fault(
    spelled: Any,
) -> None:
    record = trial({}, base=spelled, outcome="diverged", message="step 1: loss nan")
    found = told(record, base=math.nan)
    assert found.kind == "overflow"
    assert "The learning rate is not to blame" in found.advice


@pytest.mark.parametrize(
    ("outcome", "kind", "word"),
    [
        ("out_of_memory", "out_of_memory", "max_length"),
        ("data_error", "data_error", "sftray inspect"),
        ("preempted", "preempted", "max_failures"),
        ("failed", "failed", "--local"),
    ],
)
def test_what_ended_a_trial_from_outside_goes_before_what_its_numbers_show(
    outcome: str, kind: str, word: str
) -> None:
    overfitted = {25: 1.6, 50: 1.4, 75: 1.6, 100: 1.9}
    for evals in ({}, overfitted):
        found = told(trial(evals, outcome=outcome, message="the words\nof an error."))
        assert found.kind == kind
        assert found.verdict.endswith(": the words of an error.")
        assert word in found.advice


def test_a_long_message_is_cut() -> None:
    found = told(trial({}, outcome="failed", message="word " * 200))
    assert len(found.verdict) < 260
    assert found.verdict.endswith("….")


# the schedule


def test_a_rate_that_is_not_the_configured_one_is_told_before_all_else() -> None:
    overfitted = {25: 1.6, 50: 1.4, 75: 1.6, 100: 1.9}
    record = trial(overfitted, train=fall(0.5), rate=lambda step: 1e-4)  # without schedule
    found = told(record)
    assert found.kind == "schedule"
    assert found.verdict == (
        "Learning rate not as configured: 0.0001 at step 1, where the schedule has 0; "
        "98 of 100 steps differ."
    )


@pytest.mark.parametrize(
    "other",
    [
        {"warmup_ratio": 0.06},  # one step more of warm-up
        {"min_lr_ratio": 0.01},
        {"learning_rate": 1.01e-4},
    ],
)
def test_a_slightly_different_schedule_is_seen(other: dict[str, Any]) -> None:
    ran = replace(CONFIG, **other)
    assert told(trial(fall(1.2), config=ran)).kind == "schedule"
    assert told(trial(fall(1.2), config=ran), ran).kind == "healthy"


def test_a_schedule_of_another_length_is_seen() -> None:
    def longer(step: int) -> float:
        return scheduled_rate(CONFIG, step, steps=2 * STEPS, warmup_steps=5)

    assert told(trial(fall(1.2), rate=longer)).kind == "schedule"


@pytest.mark.parametrize("epochs", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("steps", [100, 137, 1000])
def test_the_configured_schedule_is_never_suspect(epochs: float, steps: int) -> None:
    config = replace(CONFIG, num_train_epochs=epochs, warmup_ratio=0.03, min_lr_ratio=0.1)
    found = told(trial(fall(1.2), config=config, steps=steps, until=50, outcome=None), config)
    assert found.kind == "healthy"


# memorised


THREE = replace(CONFIG, num_train_epochs=3.0)


def test_a_train_loss_near_zero_in_the_first_epoch_is_memorising() -> None:
    record = trial({33: 1.6, 66: 1.9, 100: 2.2}, config=THREE, train=fall(0.03, by=7))
    found = told(record, THREE)
    assert found.kind == "memorised"
    assert found.verdict.endswith("within the first epoch while eval loss is 2.200.")
    assert "fewer than 3 epochs" in found.advice


def test_what_is_predicted_of_unseen_conversations_as_well_is_learnt() -> None:
    record = trial({33: 0.08, 66: 0.06, 100: 0.05}, config=THREE, train=fall(0.03, by=7))
    assert told(record, THREE).kind == "healthy"


def test_a_train_loss_near_zero_is_seen_without_a_curve_as_well() -> None:
    record = trial({30: 1.6, 100: 1.5}, config=THREE, train=lambda _: 0.05)
    for metrics in record.results:
        metrics.pop("curve", None)
    assert told(record, THREE).kind == "memorised"


def test_a_train_loss_near_zero_in_a_later_epoch_is_not_at_once() -> None:
    def second_epoch(step: int) -> float:
        return 0.6 if step <= 34 else 0.05

    record = trial({33: 1.3, 66: 1.25, 100: 1.24}, config=THREE, train=second_epoch)
    assert told(record, THREE).kind == "healthy"


def test_one_easy_batch_is_no_memorising() -> None:
    record = trial(fall(1.2), train=lambda step: 0.05 if step in (30, 31) else 1.3)
    assert told(record).kind == "healthy"


def test_a_rate_that_destroys_what_it_had_learnt_is_no_memorising() -> None:
    """Seen at a rate of 0.009: train loss 0.07 at step 13, 1.1 to the end."""
    record = trial(
        {33: 1.2, 66: 1.4, 100: 1.35}, config=THREE, base=0.78,
        train=lambda step: 0.07 if 8 <= step <= 16 else 1.1,
    )  # fmt: skip
    assert told(record, THREE, base=0.78).kind == "base_better"


def test_a_base_that_was_as_good_before_has_memorised_nothing() -> None:
    record = trial(fall(0.06, base=0.12), train=fall(0.05, base=0.12), base=0.12)
    assert told(record, base=0.12).kind == "healthy"


# nothing gained


STILL = {step: BASE * (1 - 0.0005 * step / 13) for step in EVALS}


def flat(step: int) -> float:
    return BASE


def test_a_loss_that_stays_at_the_bases_asks_for_a_higher_rate() -> None:
    config = replace(CONFIG, learning_rate=1e-6)
    found = told(trial(STILL, config=config, train=flat), config)
    assert found.kind == "not_learning"
    assert found.verdict.startswith(
        "Not learning, the learning rate of 1e-06 is too low: eval loss is 1.893 after 100 steps, "
        "the base's 1.900, with a usual gradient norm of 0."
    )
    assert found.advice == "Raise it tenfold, to 1e-05."


@pytest.mark.parametrize("supervised", [0.002, 0.995])
def test_nearly_no_or_nearly_only_trained_tokens_make_the_mask_suspect(supervised: float) -> None:
    config = replace(CONFIG, learning_rate=1e-6)
    found = told(trial(STILL, config=config, train=flat, supervised=supervised), config)
    assert "the loss mask is suspect" in found.verdict
    assert "sftray inspect" in found.advice


def test_next_to_no_gradient_is_not_the_rates_fault() -> None:
    found = told(trial(STILL, train=flat, norm=lambda step: 2e-6))
    assert "next to no gradient" in found.verdict
    assert "sftray inspect" in found.advice


def test_a_high_rate_that_teaches_nothing_is_not_raised() -> None:
    config = replace(CONFIG, learning_rate=1e-3)
    found = told(trial(STILL, config=config, train=flat), config)
    assert "is not low" in found.verdict
    assert "Raise" not in found.advice


@pytest.mark.parametrize(
    "record",
    [
        trial({5: BASE, 9: BASE * 0.999}, train=flat, outcome=None),
        trial({12: BASE * 0.999}, train=flat, outcome=None),  # 5 steps of warm-up, 7 after it
        trial({step: loss * 0.98 for step, loss in STILL.items()}, train=flat),
    ],
    ids=["few steps", "few after the warm-up", "2 % better"],
)
def test_a_trial_that_moves_or_has_had_no_chance_is_not_stuck(record: TrialRecord) -> None:
    assert not told(record).wrong


def test_a_trial_that_learns_what_it_trains_on_is_not_stuck() -> None:
    assert told(trial(STILL, train=fall(1.2))).kind == "healthy"


def test_a_rate_that_spoils_the_base_is_lowered() -> None:
    config = replace(CONFIG, learning_rate=0.02)
    found = told(trial({6: 2.7, 12: 3.1}, config=config, train=lambda s: 1.9 + s / 5), config)
    assert found == Diagnosis(
        "base_better",
        "The base was better: its eval loss is 1.900, the best is 2.700 at step 6, and train loss "
        "does not fall either.",
        "Lower the learning rate from 0.02 to about 0.002.",
    )


def test_an_eval_loss_that_does_not_follow_train_loss_asks_for_the_evaluation_data() -> None:
    found = told(trial({25: 1.93, 50: 1.97, 100: 2.02}))
    assert found.kind == "base_better"
    assert "though train loss falls" in found.verdict
    assert "evaluation data" in found.advice


def test_an_eval_loss_a_little_above_the_base_after_a_few_steps_is_too_early_to_tell() -> None:
    found = told(trial({6: BASE * 1.005}, outcome=None))
    assert found.kind == "too_early"
    assert found.verdict == "Too early to judge: eval loss 1.909 at step 6, the base's 1.900."


# gained and lost


def test_an_eval_loss_that_rises_while_train_loss_falls_is_overfitting() -> None:
    evals = {20: 1.86, 34: 1.842, 60: 1.86, 80: 1.9, 100: 1.931}
    config = replace(CONFIG, num_train_epochs=3.0)
    found = told(trial(evals, config=config, train=fall(0.6, by=40), base=2.1), config, base=2.1)
    assert found.kind == "overfitting"
    assert found.verdict.startswith(
        "Overfitting: eval loss rises from 1.842 (epoch 1.0) to 1.931 while train loss falls from "
    )
    assert found.verdict.endswith("; best at step 34.")
    assert found.advice == "Take the checkpoint of step 34, or train 1 epoch."


TWO_EPOCHS = replace(CONFIG, num_train_epochs=2.0)


def test_overfitting_best_within_the_first_epoch_suggests_no_epochs() -> None:
    evals = {20: 1.4, 40: 1.45, 70: 1.5, 100: 1.6}
    found = told(trial(evals, config=TWO_EPOCHS, train=fall(0.6, by=40)), TWO_EPOCHS)
    assert found.kind == "overfitting"
    assert "epoch" not in found.advice


def test_a_rise_within_the_first_epoch_is_the_rate_and_not_the_data() -> None:
    found = told(trial({20: 1.5, 40: 1.4, 70: 1.45, 100: 1.5}, train=fall(0.6, by=40)))
    assert found.kind == "unstable"
    assert "while no conversation has come twice (train loss from 1.216 to 0.759)" in found.verdict
    assert found.advice == "Lower the learning rate from 0.0001 to about 3e-05."


@pytest.mark.parametrize(
    "evals",
    [
        {20: 1.5, 40: 1.4, 60: 1.404, 80: 1.408, 100: 1.412},  # 0.9 %
        {20: 1.5, 40: 1.55, 60: 1.4, 80: 1.46, 100: 1.48},  # it had come back from 0.05 before
        {20: 1.40, 40: 1.46, 60: 1.41, 80: 1.47, 100: 1.43},  # back and forth after the best
        {20: 1.5, 80: 1.4, 100: 1.43},  # 2 %, but the last evaluation only
        {20: 1.8, 40: 1.4, 60: 1.6, 80: 1.5, 100: 1.39},  # came back
    ],
)
def test_a_rise_within_the_noise_is_no_overfitting(evals: dict[int, float]) -> None:
    assert told(trial(evals, train=fall(0.6, by=40))).kind == "healthy"


def test_a_rise_is_told_from_noise_by_its_size() -> None:
    noisy = {20: 1.5, 40: 1.52, 60: 1.4, 80: 1.47, 100: 1.46}
    record = trial(noisy, config=TWO_EPOCHS, train=fall(0.6, by=40))
    assert told(record, TWO_EPOCHS).kind == "overfitting"


def test_an_eval_loss_that_rises_together_with_train_loss_is_unstable() -> None:
    config = replace(CONFIG, learning_rate=3e-3)
    evals = {20: 1.5, 40: 1.4, 60: 1.5, 80: 1.7, 100: 1.8}

    def train(step: int) -> float:
        return 1.5 if step <= 40 else 1.5 + (step - 40) / 150

    found = told(trial(evals, config=config, train=train), config)
    assert found.kind == "unstable"
    assert found.advice == "Lower the learning rate from 0.003 to about 0.001."


def test_without_train_losses_a_rise_is_told_as_it_is() -> None:
    record = trial({20: 1.5, 40: 1.4, 60: 1.6, 80: 1.7})
    for metrics in record.results:
        metrics.pop("train_loss", None)
    assert told(record).verdict == (
        "Healthy: best eval loss 1.400 at step 40, 0.500 below the base's; 1.700 at step 80."
    )


# got through


def spiked(at: int, height: float) -> Curve:
    return lambda step: fall(1.2)(step) * (height if step == at else 1)


def stays(at: int, height: float) -> Curve:
    """Jumps, and comes down by seven tenths only."""

    def loss(step: int) -> float:
        return fall(1.2)(step) * (height if step == at else 1 + 0.3 * (height - 1) * (step > at))

    return loss


def jumps(at: int) -> Curve:
    """Eval loss that is a tenth higher from a step on."""
    return lambda step: fall(1.2)(step) * (1.1 if step >= at else 1)


def test_a_loss_spike_that_does_not_come_back_is_told_with_its_step_and_rows() -> None:
    config = replace(CONFIG, learning_rate=3e-4)
    found = told(trial(fall(1.2), config=config, train=stays(60, 2.5)), config)
    assert found.kind == "loss_spikes"
    assert found.verdict.startswith("A loss spike at step 60: train loss 3.")
    assert found.advice.endswith("look at rows 944 to 959 of the row order.")


def test_a_loss_spike_after_which_the_eval_loss_is_higher_counts() -> None:
    found = told(trial(jumps(60), train=spiked(60, 2.5)))
    assert found.kind in ("loss_spikes", "unstable")


def test_a_loss_spike_that_comes_back_is_no_fault_of_the_rate() -> None:
    found = told(trial(fall(1.2), train=spiked(60, 2.5)))
    assert found.kind == "strange_batch"
    assert "the loss came back" in found.verdict
    assert found.advice.startswith("Look at rows 944 to 959 of the row order")


def test_a_batch_of_the_first_steps_below_the_base_is_not_strange() -> None:
    """Seen in the demo: 3.6 at step 7, where 1.9 was usual and the base has 4.0."""
    record = trial(fall(1.2), train=lambda step: 3.6 if step == 7 else 1.9, base=4.0)
    assert told(record, base=4.0).kind not in ("loss_spikes", "strange_batch")


def test_a_batch_that_is_a_little_harder_in_a_run_that_has_learnt_it_all_is_nothing() -> None:
    """From 6.0 to 0.1, and one batch of two rows at 0.24."""

    def train(step: int) -> float:
        return 0.24 if step == 80 else 0.1 + 5.9 * math.exp(-step / 10)

    evals = {step: 0.12 + 5.9 * math.exp(-step / 10) for step in EVALS}
    record = trial(evals, train=train, noise=0.005, base=6.0)
    assert told(record).kind not in ("loss_spikes", "strange_batch")


def test_spikes_in_the_warmup_ask_for_a_longer_one() -> None:
    found = told(trial(fall(1.2), train=stays(8, 2.5)))
    assert found.advice == "Warm up for longer than 5% of the steps."


@pytest.mark.parametrize("height", [1.0, 1.3])
@pytest.mark.parametrize("seed", range(5))
def test_a_hard_batch_is_no_spike(height: float, seed: int) -> None:
    assert told(trial(fall(1.2), train=spiked(60, height), seed=seed)).kind == "healthy"


def test_among_batches_of_one_row_a_loss_half_as_high_again_is_no_spike() -> None:
    record = trial(fall(1.2), train=spiked(60, 1.6), noise=0.2)
    assert told(record).kind == "healthy"


def test_near_zero_a_loss_twice_the_usual_is_no_spike() -> None:
    def train(step: int) -> float:
        return 0.5 if step <= 34 else 0.09 if step == 80 else 0.04

    record = trial({33: 1.3, 66: 1.25, 100: 1.24}, config=THREE, train=train, noise=0.01)
    assert told(record, THREE).kind == "healthy"


def bumped(at: int, times: float) -> Curve:
    return lambda step: 0.6 * (times if step == at else 1)


def test_a_gradient_norm_of_ten_times_its_usual_is_told() -> None:
    found = told(trial(fall(1.2), norm=bumped(60, 15)))
    assert found.kind == "gradient_norm"
    assert " at step 60, 1" in found.verdict  # some 15 times
    assert found.advice.startswith("Clipping to 1 held it")


def test_a_gradient_norm_of_seven_times_its_usual_is_not() -> None:
    assert told(trial(fall(1.2), norm=bumped(60, 7))).kind == "healthy"


def test_a_gradient_norm_that_is_not_clipped_is_not_told_however_far_above_its_usual() -> None:
    """Near its end a trial's gradients are 0.001, and one of 0.02 moves nothing."""
    found = trial(fall(1.2), norm=lambda step: 0.02 if step == 60 else 0.001)
    assert told(found).kind == "healthy"


def test_the_large_gradients_of_the_first_steps_are_usual() -> None:
    record = trial(fall(1.2), norm=lambda step: 20.0 if step <= 3 else 0.5)
    assert told(record).kind == "healthy"


def test_a_gradient_that_has_been_zero_throughout_has_no_usual_to_exceed() -> None:
    record = trial(fall(1.2), norm=lambda step: 1e-9 if step == 60 else 0.0)
    assert told(record).kind == "healthy"


def test_a_spike_is_told_before_the_gradient_norm_that_came_with_it() -> None:
    found = told(trial(fall(1.2), train=stays(60, 2.5), norm=bumped(60, 40)))
    assert found.kind == "loss_spikes"
    assert "with a gradient norm of 2" in found.verdict


# pruned


def test_a_pruned_trial_is_told_how_far_it_was_from_the_cutoff() -> None:
    found = told(pruned(trial(fall(1.5), until=25), cutoff=1.4))
    assert found == Diagnosis(
        "pruned",
        "Pruned at 400 rows: eval loss 1.6146 is 0.2146 above the cutoff of 1.4000.",
        "Nothing else looks wrong.",
    )


def test_a_pruned_trial_that_was_close_says_so() -> None:
    assert told(pruned(trial(fall(1.5), until=25), cutoff=1.61)).advice.startswith("It was close")


def test_a_pruned_trial_in_which_something_looked_wrong_has_that_kind() -> None:
    config = replace(CONFIG, learning_rate=0.02)
    record = trial({6: 2.7}, config=config, train=lambda s: 1.9 + s / 5)
    found = told(pruned(record, cutoff=1.5), config)
    assert found.kind == "base_better"
    assert found.verdict.startswith("Pruned at 96 rows: eval loss 2.7000 is 1.2000 above ")
    assert "; the base was better: " in found.verdict
    assert found.advice == "Lower the learning rate from 0.02 to about 0.002."


def test_a_pruned_trial_without_its_decision_is_told_by_its_message() -> None:
    record = replace(pruned(trial(fall(1.5), until=25), cutoff=1.4), decisions=[])
    assert told(record).verdict == "Pruned: eval_loss 1.6146 at 400 rows, above 1.4000."


# whatever a journal has


def test_a_resumed_trial_is_diagnosed_as_if_it_had_not_stopped() -> None:
    whole = trial({20: 1.5, 40: 1.4, 70: 1.45, 100: 1.5}, train=fall(0.6, by=40))
    resumed = replace(whole, results=[*whole.results])
    again = resumed.results[2] | {"resumed_from_step": 40, "attention": "sdpa"}
    resumed.results[3:3] = [again]
    assert told(resumed) == told(whole)


def test_an_evaluation_that_is_not_finite_counts_as_none() -> None:
    whole = trial(fall(1.2))
    for spelled in (math.nan, math.inf, "NaN", "Infinity", None):
        broken = replace(whole, results=[*whole.results])
        broken.results[3] = whole.results[3] | {"eval_loss": spelled}
        assert told(broken).kind == "healthy"


def test_metrics_that_only_one_trainer_reports_change_nothing() -> None:
    evals = {20: 1.5, 40: 1.4, 70: 1.45, 100: 1.5}
    plain, banked = (trial(evals, train=fall(0.6, by=40)) for _ in range(2))
    for metrics in banked.results:
        metrics |= {"rung_peers": [["t0001", 1.2]], "bank_slots": 4, "data_wait": 0.01}
    assert told(banked) == told(plain)


number = st.one_of(
    st.floats(0, 20),
    st.floats(-1e30, 1e30),
    st.sampled_from(["NaN", "Infinity", "-Infinity", math.nan, math.inf, None]),
)
metrics = st.fixed_dictionaries(
    {"step": st.integers(0, 60)},
    optional={
        "eval_loss": number,
        "train_loss": number,
        "epoch": st.one_of(st.floats(0.001, 3), st.none()),
        "tokens": st.integers(0, 10_000),
        "supervised_tokens": st.integers(0, 10_000),
        "curve": st.lists(
            st.tuples(st.integers(1, 60), number, number, number).map(list), max_size=40
        ),
    },
)
outcomes = st.sampled_from(
    [None, "completed", "pruned", "diverged", "out_of_memory", "data_error", "preempted", "failed"]
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(metrics, max_size=6), outcomes, st.text(max_size=30), number)
def test_any_record_has_a_verdict_and_an_advice_of_one_line(
    results: list[dict[str, Any]], outcome: str | None, message: str, base: Any
) -> None:
    record = TrialRecord("t0000", {}, results=results, outcome=outcome, message=message)
    found = told(record, base=base if isinstance(base, float) else None)
    for sentence in (found.verdict, found.advice):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "\n" not in sentence


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.2, 5), min_size=8, max_size=8))
def test_an_eval_loss_that_only_falls_is_never_said_to_rise(losses: list[float]) -> None:
    falling = dict(zip(EVALS, sorted(losses, reverse=True), strict=True))
    kind = told(trial(falling, train=fall(0.6)), base=max(losses) + 1).kind
    assert kind not in ("overfitting", "unstable", "base_better")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(1, 3), min_size=4, max_size=4, unique=True), st.floats(0.011, 0.5))
def test_an_eval_loss_that_falls_and_then_rises_is_overfitting_from_its_lowest(
    losses: list[float], rise: float
) -> None:
    before = sorted(losses, reverse=True)
    after = [before[-1] * (1 + rise * share) for share in (0.2, 0.5, 0.9, 1)]
    evals = dict(zip(EVALS, before + after, strict=True))
    record = trial(evals, config=TWO_EPOCHS, train=fall(0.3, by=50))
    found = told(record, TWO_EPOCHS, base=4.0)
    assert found.kind == "overfitting"
    assert found.verdict.endswith("; best at step 50.")
