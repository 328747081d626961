from typing import Any

import pytest
from fake_trials import make_sweep

from sftray.config import TrialConfig, choice, loguniform, uniform
from sftray.config.points import in_space
from sftray.plan.prior_points import prior_points

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
SPACE = {
    "learning_rate": loguniform(1e-5, 1e-3),
    "effective_batch_size": choice([8, 32, 64]),
    "lora_r": choice([8, 16, 32]),
    "warmup_ratio": uniform(0, 0.03),
}


def test_an_8b_base_begins_at_both_published_rates_and_the_usual_values() -> None:
    points = prior_points(make_sweep(search_space=SPACE), LLAMA_8B)
    assert [point["learning_rate"] for point in points] == pytest.approx([2.86e-4, 2e-4], rel=0.01)
    for point in points:
        assert in_space(SPACE, point)
        # 16 lies as far from 8 as from 32; warm-up is 0.05, outside the range
        assert {**point, "learning_rate": 0} == {
            "learning_rate": 0,
            "effective_batch_size": 8,
            "lora_r": 16,
            "warmup_ratio": 0.03,
        }


def test_a_qwen_base_hardly_depends_on_its_size() -> None:
    small = {**LLAMA_8B, "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24}
    (point, *_) = prior_points(make_sweep(search_space=SPACE), small)
    assert point["learning_rate"] == pytest.approx(5.3e-4, rel=0.01)


def test_a_range_far_from_the_published_rates_is_searched_without_them() -> None:
    far = {"learning_rate": loguniform(1e-6, 2e-5)}
    assert prior_points(make_sweep(search_space=far), LLAMA_8B) == []
    near = {"learning_rate": loguniform(1e-5, 1e-4)}
    assert prior_points(make_sweep(search_space=near), LLAMA_8B) == [{"learning_rate": 1e-4}]


def test_priors_can_be_switched_off_and_are_none_for_an_unknown_base() -> None:
    assert prior_points(make_sweep(search_space=SPACE, priors=False), LLAMA_8B) == []
    assert prior_points(make_sweep(search_space=SPACE), {"model_type": "mamba"}) == []


def test_loras_rates_are_not_tried_where_all_weights_are_trained() -> None:
    space = {"learning_rate": loguniform(1e-5, 1e-3)}
    trial = TrialConfig("base", finetune="full", base_precision="bf16")
    assert prior_points(make_sweep(search_space=space), LLAMA_8B) != []
    assert prior_points(make_sweep(search_space=space, trial=trial), LLAMA_8B) == []
