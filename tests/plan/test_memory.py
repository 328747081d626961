"""GPU memory from config.json: against what was measured, and what is chosen by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bases import BASES, LLAMA_1B, LLAMA_8B, QWEN_05B
from fake_trials import make_sweep

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice, loguniform
from sftray.demo import FOLDER
from sftray.errors import ConfigError
from sftray.plan.bank_settings import BankSettings, bank_memory
from sftray.plan.device_fit import choose_execution, fit_train, too_large
from sftray.plan.disk import disk_needed
from sftray.plan.effective_batch import Execution
from sftray.plan.memory import Memory, train_memory
from sftray.plan.model_shape import ModelShape
from sftray.plan.preflight import check_rates
from sftray.plan.preview import NO_FIT, make_plan
from sftray.plan.preview_text import plan_text

GIB = 2**30
TRIAL = TrialConfig("base", learning_rate=1e-4, effective_batch_size=16, lora_r=16)
USUAL = (23.6, 44.4, 79.1, 139.8)

# benchmarks/memory.py on an H100: peak of PyTorch's allocator, GiB
TRAIN_PEAKS = [
    (QWEN_05B, 512, Execution(8), 4.55),
    (QWEN_05B, 2048, Execution(1), 2.63),
    (QWEN_05B, 2048, Execution(4, activation_checkpointing=True), 1.32),
    (QWEN_05B, 2048, Execution(4, resident=True), 8.87),
    (LLAMA_1B, 512, Execution(8), 6.28),
    (LLAMA_1B, 2048, Execution(1), 3.85),
    (LLAMA_1B, 2048, Execution(4, activation_checkpointing=True), 2.62),
    (LLAMA_1B, 2048, Execution(4, resident=True), 12.41),
    (LLAMA_8B, 512, Execution(8), 23.67),
    (LLAMA_8B, 2048, Execution(1), 15.03),
    (LLAMA_8B, 2048, Execution(4, activation_checkpointing=True), 9.66),
    (LLAMA_8B, 2048, Execution(4, resident=True), 50.57),
]
BANK_PEAKS = [
    (QWEN_05B, 512, 8, 6.05),
    (QWEN_05B, 512, 16, 10.16),
    (QWEN_05B, 2048, 2, 5.33),
    (QWEN_05B, 2048, 4, 8.52),
    (LLAMA_1B, 512, 8, 8.62),
    (LLAMA_1B, 512, 16, 14.05),
    (LLAMA_1B, 2048, 2, 7.77),
    (LLAMA_1B, 2048, 4, 11.93),
    (LLAMA_8B, 512, 8, 35.51),
    (LLAMA_8B, 512, 16, 55.00),
    (LLAMA_8B, 2048, 2, 31.58),
    (LLAMA_8B, 2048, 4, 46.98),
]


def sweep_of(trial: TrialConfig = TRIAL, max_length: int = 2048, **changes: Any) -> SweepConfig:
    space = {"learning_rate": loguniform(1e-5, 1e-3)}
    values = {"data": DataConfig("rows.jsonl", max_length=max_length), "search_space": space}
    return make_sweep(trial=trial, **(values | changes))


def memory_of(base: dict[str, Any], length: int, execution: Execution) -> Memory:
    shape = ModelShape.of(base)
    assert shape is not None
    return train_memory(shape, TRIAL, length, execution)


@pytest.mark.parametrize(("base", "length", "execution", "peak"), TRAIN_PEAKS)
def test_the_estimate_of_a_trial_is_within_a_tenth_of_what_was_measured(
    base: dict[str, Any], length: int, execution: Execution, peak: float
) -> None:
    assert memory_of(base, length, execution).total / GIB == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize(("base", "length", "slots", "peak"), BANK_PEAKS)
def test_the_estimate_of_a_bank_is_within_a_tenth_of_what_was_measured(
    base: dict[str, Any], length: int, slots: int, peak: float
) -> None:
    settings = BankSettings(slots, 1, 16, False, True, False, 0.0)
    found = bank_memory(settings, sweep_of(max_length=length), base)
    assert found.total / GIB == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("max_length", [512, 2048, 8192])
@pytest.mark.parametrize("base", BASES.values(), ids=BASES.keys())
def test_what_is_chosen_fits_and_more_memory_never_makes_it_slower(
    base: dict[str, Any], max_length: int
) -> None:
    speeds = []
    for gib in USUAL:
        found = choose_execution(sweep_of(max_length=max_length), base, memory=gib * GIB)
        assert found is not None
        assert memory_of(base, max_length, found).fits(gib * GIB)
        speeds.append((not found.activation_checkpointing, found.micro_batch_size, found.resident))
    assert speeds == sorted(speeds)


def test_an_8b_base_is_recomputed_on_24_gb_and_dequantised_on_80() -> None:
    small, large = (
        choose_execution(sweep_of(), LLAMA_8B, memory=gib * GIB) for gib in (23.6, 79.1)
    )
    assert small is not None
    assert (small.activation_checkpointing, small.resident) == (False, False)
    assert small.micro_batch_size == 1
    assert large == Execution(4, activation_checkpointing=False, resident=True)


def test_what_a_user_has_fixed_is_kept() -> None:
    fixed = replace(TRIAL, micro_batch_size=2, activation_checkpointing=True)
    found = choose_execution(sweep_of(fixed), LLAMA_8B, memory=80 * GIB)
    assert found == Execution(2, activation_checkpointing=True, resident=True)


def test_a_base_whose_memory_is_not_known_is_run_with_care() -> None:
    experts = LLAMA_8B | {"num_local_experts": 8}
    assert ModelShape.of(experts) is None
    found = choose_execution(sweep_of(), experts, memory=80 * GIB)
    assert found == Execution(1, activation_checkpointing=True)
    assert too_large(TRIAL, experts, 2048, memory=8 * GIB) is None


def test_a_rank_that_cannot_fit_is_told_and_the_others_are_run() -> None:
    sweep = sweep_of(
        search_space={"learning_rate": loguniform(1e-5, 1e-3), "lora_r": choice([16, 1024])}
    )
    fit = fit_train(sweep, LLAMA_8B, 23.6 * GIB)
    assert fit.too_large(replace(TRIAL, lora_r=16)) is None
    reason = fit.too_large(replace(TRIAL, lora_r=1024))
    assert reason is not None
    assert "rank 1024 on rows of 2,048 tokens takes at least" in reason
    assert "the GPU has 23.6; lower lora_r" in reason


def test_a_sweep_none_of_whose_trials_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trial: rank 16 .* and the GPU has 6\.0"):
        fit_train(sweep_of(), LLAMA_8B, 6 * GIB)


def test_a_point_that_does_not_fit_is_refused() -> None:
    sweep = sweep_of(search_space={}, points=({"lora_r": 8}, {"lora_r": 1024}))
    with pytest.raises(ConfigError, match="trial: rank 1024"):
        fit_train(sweep, LLAMA_8B, 23.6 * GIB)


def test_a_plan_tells_the_memory_and_how_it_would_be_elsewhere(tmp_path: Path) -> None:
    data = DataConfig(str(FOLDER / "chats.jsonl"), max_length=512)
    sweep = make_sweep(
        data=data, trial=TrialConfig(str(FOLDER)), storage=str(tmp_path), trainer="train"
    )
    plan = make_plan(sweep, gpu_memory=80 * GIB)
    memory = plan.memory
    assert memory is not None
    parts = (memory.base, memory.adapters, memory.activations, memory.logits)
    assert memory.total == pytest.approx(sum(parts))
    text = plan_text(plan)
    assert f"memory: {memory.total / GIB:.1f} of 80 GiB a GPU (base " in text
    assert "on other GPUs" not in text  # they all run alike
    differ = {"24 GB": NO_FIT, "48 GB": "8 rows", "80 GB": "8 rows"}
    shown = plan_text(replace(plan, gpus=differ))
    assert "\non other GPUs: 24 GB does not fit; 48 GB, 80 GB 8 rows\n" in shown


# all weights trained

FULL = replace(TRIAL, finetune="full", base_precision="bf16", learning_rate=2e-5)


# benchmarks/memory.py --only full, on an H100
FULL_PEAKS = [
    (QWEN_05B, 512, Execution(8), 13.45),
    (QWEN_05B, 2048, Execution(1), 11.18),
    (QWEN_05B, 2048, Execution(4), 18.09),
    (QWEN_05B, 2048, Execution(1, activation_checkpointing=True), 8.48),
    (QWEN_05B, 2048, Execution(4, activation_checkpointing=True), 9.14),
    (LLAMA_1B, 512, Execution(8), 27.60),
    (LLAMA_1B, 2048, Execution(1), 24.57),
    (LLAMA_1B, 2048, Execution(4), 33.66),
    (LLAMA_1B, 2048, Execution(1, activation_checkpointing=True), 20.78),
    (LLAMA_1B, 2048, Execution(4, activation_checkpointing=True), 21.82),
]


@pytest.mark.parametrize(("base", "length", "execution", "peak"), FULL_PEAKS)
def test_the_estimate_where_all_weights_are_trained_is_within_a_twentieth_of_what_was_measured(
    base: dict[str, Any], length: int, execution: Execution, peak: float
) -> None:
    shape = ModelShape.of(base)
    assert shape is not None
    found = train_memory(shape, FULL, length, execution).total
    assert found / GIB == pytest.approx(peak, rel=0.05)


def test_what_trains_all_weights_takes_16_bytes_a_parameter_and_fits_where_it_is_said_to() -> None:
    shape = ModelShape.of(LLAMA_1B)
    assert shape is not None
    found = train_memory(shape, FULL, 2048, Execution(1, activation_checkpointing=True))
    assert found.base == 0
    assert found.adapters == 16 * shape.parameters
    sweep = sweep_of(FULL, trainer="train")
    chosen = [fit_train(sweep, LLAMA_1B, gib * GIB).execution for gib in USUAL[1:]]
    for gib, execution in zip(USUAL[1:], chosen, strict=True):
        assert train_memory(shape, FULL, 2048, execution).fits(gib * GIB)
    speeds = [(not one.activation_checkpointing, one.micro_batch_size) for one in chosen]
    assert speeds == sorted(speeds)


def test_a_model_all_of_whose_weights_do_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError) as refused:
        fit_train(sweep_of(FULL, trainer="train"), LLAMA_8B, 79.1 * GIB)
    assert str(refused.value).startswith(
        "trial: training all of 8.03 billion weights on rows of 2,048"
    )
    assert "(weights 119.7 + " in str(refused.value)
    assert "train an adapter with finetune='lora', or take a larger GPU" in str(refused.value)


def test_the_disk_holds_whole_models() -> None:
    splits = {"train": {"rows": 0}, "eval": {"rows": 0}}
    needed = disk_needed(sweep_of(FULL, trainer="train", num_trials=4), LLAMA_1B, splits, at_once=1)
    shape = ModelShape.of(LLAMA_1B)
    assert shape is not None
    # three best checkpoints, four of the trial that runs: 12 bytes a parameter
    assert needed.checkpoints == 12 * 7 * shape.parameters
    assert needed.bundle == 4 * shape.parameters


def test_rates_that_only_lora_bears_are_warned_of() -> None:
    high = sweep_of(FULL, search_space={"learning_rate": loguniform(3e-4, 1e-3)})
    (warning,) = check_rates(high, LLAMA_1B)
    assert warning.startswith(
        "all learning rates are 0.0003 or more; full fine-tuning usually wants"
    )
    assert list(check_rates(sweep_of(FULL), LLAMA_1B)) == []
    assert list(check_rates(replace(high, trial=TRIAL), LLAMA_1B)) == []
    small = LLAMA_1B | {"hidden_size": 64, "vocab_size": 8192}
    assert list(check_rates(high, small)) == []
