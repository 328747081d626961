"""What a bank is built for: arithmetic on config.json and the sweep, without torch."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from bases import BASES, LLAMA_1B, LLAMA_8B, QWEN_05B
from fake_trials import TRIAL, make_sweep

from sftray.config import (
    DataConfig,
    SweepConfig,
    choice,
    fitting,
    loguniform,
    randint,
    uniform,
)
from sftray.config.spaces import Choice
from sftray.plan.bank_settings import BankSettings, choose_settings
from sftray.plan.memory import FREE
from sftray.plan.out_of_memory import cheaper

GIB = 2**30


def sweep_of(max_length: int = 2048, **changes: Any) -> SweepConfig:
    space = {"learning_rate": loguniform(1e-5, 1e-3), "effective_batch_size": choice([8, 16, 32])}
    values = {"data": DataConfig("rows.jsonl", max_length=max_length), "search_space": space}
    values["num_trials"] = 64
    return make_sweep(**(values | changes))


def on_gpu(sweep: SweepConfig, base: dict[str, Any], gib: float, banks: int = 1) -> BankSettings:
    found = choose_settings(sweep, base, memory=gib * GIB, banks=banks)
    assert found is not None
    return found


def on_cpu(sweep: SweepConfig, banks: int = 1) -> BankSettings:
    found = choose_settings(sweep, LLAMA_1B, memory=None, banks=banks)
    assert found is not None
    return found


def speed(settings: BankSettings) -> tuple[int, bool, bool]:
    """What makes a bank faster, the first the most."""
    return settings.slots, not settings.activation_checkpointing, settings.resident


@pytest.mark.parametrize("max_length", [512, 2048, 8192])
@pytest.mark.parametrize("base", BASES.values(), ids=BASES.keys())
def test_settings_fit_the_memory_and_more_memory_makes_none_slower(
    base: dict[str, Any], max_length: int
) -> None:
    sweep = sweep_of(max_length)
    found = [on_gpu(sweep, base, gib) for gib in (24, 80, 141)]
    for settings, gib in zip(found, (24, 80, 141), strict=True):
        assert 0 < settings.memory_gb <= FREE * gib
        assert settings.slots * settings.micro_batch_size * max_length <= max(8192, 2 * max_length)
    assert [speed(settings) for settings in found] == sorted(speed(settings) for settings in found)


def test_an_8b_base_has_fewer_slots_on_24_gb_than_on_80() -> None:
    small, large = (on_gpu(sweep_of(512), LLAMA_8B, gib) for gib in (24, 80))
    assert (small.slots, small.resident, small.activation_checkpointing) == (8, False, True)
    assert (large.slots, large.resident, large.activation_checkpointing) == (16, True, False)


def test_the_base_is_held_in_4_bits_before_layers_are_run_again() -> None:
    by_size = [on_gpu(sweep_of(8192), LLAMA_8B, gib) for gib in (141, 80, 50, 20)]
    assert {settings.slots for settings in by_size} == {2}
    assert [(s.resident, s.activation_checkpointing) for s in by_size] == [
        (True, False),
        (False, False),
        (True, True),
        (False, True),
    ]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_base_that_is_not_quantised_is_always_resident(precision: str) -> None:
    sweep = sweep_of(trial=replace(TRIAL, base_precision=precision))
    for gib in (10, 24, 80):
        assert on_gpu(sweep, LLAMA_1B, gib).resident


def test_the_estimate_counts_the_weights_of_the_base_and_the_slots() -> None:
    sweep = sweep_of(trial=replace(TRIAL, base_precision="bf16"))
    assert on_gpu(sweep, LLAMA_8B, 141).memory_gb > 8.03e9 * 2 / GIB
    one, four = (on_gpu(replace(sweep, bank_slots=k), LLAMA_8B, 141) for k in (1, 4))
    assert one.micro_batch_size == 4 * four.micro_batch_size  # as many tokens
    adapter = 41_943_040  # parameters of rank 16 on all linear layers
    assert four.memory_gb - one.memory_gb == pytest.approx(3 * adapter * (16 + 2) / GIB)
    longer = on_gpu(sweep_of(16384, trial=sweep.trial, bank_slots=1), LLAMA_8B, 141)
    assert longer.memory_gb > one.memory_gb


@pytest.mark.parametrize("base", BASES.values(), ids=BASES.keys())
def test_there_are_none_where_nothing_fits(base: dict[str, Any]) -> None:
    assert choose_settings(sweep_of(), base, memory=1 * GIB) is None
    assert choose_settings(sweep_of(bank_slots=4), base, memory=1 * GIB) is None


def test_a_micro_batch_that_was_asked_for_is_not_made_smaller() -> None:
    trial = replace(TRIAL, micro_batch_size=8)
    assert on_gpu(sweep_of(trial=trial), QWEN_05B, 141).micro_batch_size == 8
    few = on_gpu(sweep_of(trial=trial), QWEN_05B, 8)
    assert few.micro_batch_size == 8
    assert few.slots < on_gpu(sweep_of(), QWEN_05B, 8).slots
    assert choose_settings(sweep_of(trial=trial), QWEN_05B, memory=3 * GIB) is None


def test_slots_that_were_asked_for_are_not_made_fewer() -> None:
    assert on_gpu(sweep_of(512, bank_slots=3), LLAMA_8B, 80).slots == 3
    assert on_gpu(sweep_of(512), LLAMA_8B, 16).slots == 4
    assert choose_settings(sweep_of(512, bank_slots=16), LLAMA_8B, memory=16 * GIB) is None
    assert on_cpu(sweep_of(bank_slots=5)).slots == 5


@pytest.mark.parametrize(
    ("batches", "micro"),
    [
        (choice([8, 16, 32]), 8),
        (choice([6, 9]), 3),
        (choice([7, 16]), 1),
        (choice([12, 20]), 4),
        (randint(8, 12), 1),
        (fitting([32, 64]), 16),  # no more than what keeps a GPU busy
    ],
)
def test_the_micro_batch_divides_every_effective_batch_size(batches: Any, micro: int) -> None:
    space = {"effective_batch_size": batches}
    settings = on_gpu(sweep_of(512, search_space=space, bank_slots=1), QWEN_05B, 80)
    assert settings.micro_batch_size == micro
    values = batches.values if isinstance(batches, Choice) else range(8, 13)
    assert all(value % micro == 0 for value in values)


def test_micro_batches_fill_what_few_trials_leave_of_a_gpu() -> None:
    assert [
        (s.slots, s.micro_batch_size)
        for trials in (1, 2, 4, 16, 64)
        for s in [on_gpu(sweep_of(512, num_trials=trials), QWEN_05B, 80)]
    ] == [(1, 8), (2, 8), (4, 4), (4, 4), (16, 1)]


def test_banks_share_the_trials() -> None:
    sweep = sweep_of(512)  # 64 trials, of which 16 at once
    assert [on_gpu(sweep, QWEN_05B, 80, banks).slots for banks in (1, 2, 4, 5, 16)] == [
        16, 8, 4, 4, 1,
    ]  # fmt: skip
    points = sweep_of(512, points=({"lora_r": 4}, {"lora_r": 8}, {"lora_r": 16}))
    assert on_gpu(points, QWEN_05B, 80).slots == 3


def test_a_cpu_has_few_slots_and_needs_no_estimate() -> None:
    settings = on_cpu(sweep_of(512))
    assert (settings.slots, settings.micro_batch_size, settings.memory_gb) == (4, 1, 0.0)
    assert settings.resident
    assert on_cpu(sweep_of(8192)).slots == 2  # one could as well be run alone
    assert on_cpu(sweep_of(8192, num_trials=2), banks=2).slots == 1


def test_the_bank_has_the_largest_rank_and_dropout_that_any_trial_has() -> None:
    space = {"lora_r": choice([4, 64, 8]), "lora_dropout": uniform(0.0, 0.1)}
    searched = on_cpu(sweep_of(search_space=space))
    assert (searched.lora_r, searched.dropout) == (64, True)
    assert on_cpu(sweep_of(search_space={"lora_r": randint(2, 9)})).lora_r == 9
    fixed = on_cpu(sweep_of(trial=replace(TRIAL, lora_r=32)))
    assert (fixed.lora_r, fixed.dropout) == (32, False)
    points = on_cpu(sweep_of(points=({"lora_r": 4}, {"lora_dropout": 0.1, "lora_r": 2})))
    assert (points.lora_r, points.dropout) == (4, True)


def test_activation_checkpointing_is_as_the_trial_says() -> None:
    never, always = (
        sweep_of(512, trial=replace(TRIAL, activation_checkpointing=wanted))
        for wanted in (False, True)
    )
    assert not on_gpu(never, LLAMA_8B, 24).activation_checkpointing
    assert on_gpu(always, QWEN_05B, 141).activation_checkpointing
    assert on_cpu(always).activation_checkpointing


@pytest.mark.parametrize("precision", ["nf4", "bf16"])
@pytest.mark.parametrize("checkpointing", [None, True, False])
def test_after_running_out_of_memory_few_steps_lead_to_the_smallest_settings(
    precision: str, checkpointing: bool | None
) -> None:
    trial = replace(
        TRIAL, base_precision=precision, activation_checkpointing=checkpointing, micro_batch_size=4
    )
    sweep = sweep_of(512, trial=trial, bank_slots=16)
    tried = [on_gpu(sweep, QWEN_05B, 141)]
    while (settings := cheaper(tried[-1], sweep)) is not None:
        tried.append(settings)
        assert len(tried) < 10
    last = tried[-1]
    assert last.slots == 1
    assert last.resident == (precision != "nf4")
    assert last.activation_checkpointing == (checkpointing is not False)
    assert {settings.micro_batch_size for settings in tried} == {4}  # the trials' plans rest on it
    assert {(settings.lora_r, settings.dropout) for settings in tried} == {(16, False)}
    for before, after in itertools.pairwise(tried):  # each takes less than the last
        assert speed(after) < speed(before)


def test_a_search_leaves_most_trials_to_learn_from_the_first_and_the_gpu_as_busy() -> None:
    many, few = (on_gpu(sweep_of(512, num_trials=n), LLAMA_1B, 80) for n in (64, 32))
    assert (many.slots, many.micro_batch_size) == (16, 1)
    assert (few.slots, few.micro_batch_size) == (8, 2)
    given = sweep_of(512, points=tuple({"seed": k} for k in range(32)))
    assert on_gpu(given, LLAMA_1B, 80).slots == 16, "given points have nothing to learn"
    assert on_gpu(sweep_of(512, num_trials=3), LLAMA_1B, 80).slots == 3
