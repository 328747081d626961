from typing import Any

import pytest
from fake_trials import make_sweep

from sftray.config import TrialConfig, choice, loguniform, uniform
from sftray.config.points import in_space
from sftray.plan.prior_points import prior_points, published_rate

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


def test_an_8b_base_begins_around_the_published_rate_at_the_largest_rank() -> None:
    points = prior_points(make_sweep(search_space=SPACE), LLAMA_8B)
    rates = [point["learning_rate"] for point in points]
    assert rates == pytest.approx([7.65e-4, 3.82e-4, 1e-3], rel=0.01)  # twice is out of the range
    for point in points:
        assert in_space(SPACE, point)
        # the batch of 16 lies next to 8; warm-up is 0.05, outside the range
        assert {**point, "learning_rate": 0} == {
            "learning_rate": 0,
            "effective_batch_size": 8,
            "lora_r": 32,
            "warmup_ratio": 0.03,
        }


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        ({}, 6.3e-4),
        ({"lora_r": 64}, 9.3e-4),
        ({"lora_alpha_ratio": 2.0, "lora_r": 64}, 3.3e-4),  # alpha 128
        ({"use_rslora": True}, 2.2e-4),  # as alpha 128, too
    ],
)
def test_the_published_rate_follows_rank_and_alpha(changes: dict[str, Any], rate: float) -> None:
    trial = TrialConfig("base", **changes)
    assert published_rate(LLAMA_8B, trial) == pytest.approx(rate, rel=0.02)


def test_of_given_rates_the_three_nearest_to_the_published_one_come_first() -> None:
    space = {"learning_rate": choice([1e-5, 1e-4, 3e-4, 1e-3, 3e-3])}
    points = prior_points(make_sweep(search_space=space), LLAMA_8B)
    assert [point["learning_rate"] for point in points] == [1e-3, 3e-4, 3e-3]


def test_a_qwen_base_hardly_depends_on_its_size() -> None:
    small = {**LLAMA_8B, "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24}
    (point, *_) = prior_points(make_sweep(search_space=SPACE), small)
    assert point["learning_rate"] == pytest.approx(5.3e-4, rel=0.01)


def test_a_range_far_from_the_published_rates_is_searched_without_them() -> None:
    far = {"learning_rate": loguniform(1e-6, 2e-5)}
    assert prior_points(make_sweep(search_space=far), LLAMA_8B) == []
    near = {"learning_rate": loguniform(1e-5, 3e-4)}
    assert prior_points(make_sweep(search_space=near), LLAMA_8B) == [{"learning_rate": 3e-4}]


def test_priors_can_be_switched_off_and_are_none_for_an_unknown_base() -> None:
    assert prior_points(make_sweep(search_space=SPACE, priors=False), LLAMA_8B) == []
    assert prior_points(make_sweep(search_space=SPACE), {"model_type": "mamba"}) == []


def test_loras_rates_are_not_tried_where_all_weights_are_trained() -> None:
    space = {"learning_rate": loguniform(1e-5, 1e-3)}
    trial = TrialConfig("base", finetune="full", base_precision="bf16")
    assert prior_points(make_sweep(search_space=space), LLAMA_8B) != []
    assert prior_points(make_sweep(search_space=space, trial=trial), LLAMA_8B) == []
