import json

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftray.config import choice, loguniform, randint, uniform
from sftray.config.points import in_space
from sftray.search.optuna_space import distributions, to_params, to_point

SPACES = {
    "learning_rate": loguniform(1e-5, 1e-2),
    "warmup_ratio": uniform(0.0, 0.2),
    "lora_r": randint(4, 64),
    "effective_batch_size": choice([8, 16, 32]),
    "attention": choice([None, "sdpa"]),
    "lora_target_modules": choice(["all-linear", ("q_proj", "v_proj")]),
}


@given(st.integers(0, 10_000))
def test_every_point_survives_json_and_optuna(seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = to_point(SPACES, study.ask(distributions(SPACES)).params)
    assert in_space(SPACES, point)
    assert to_point(SPACES, to_params(SPACES, point)) == point
    written = json.loads(json.dumps(point))
    assert in_space(SPACES, written)
    assert to_point(SPACES, to_params(SPACES, written)) == point


def test_a_log_uniform_space_is_searched_in_its_logarithm() -> None:
    assert distributions(SPACES)["learning_rate"] == optuna.distributions.FloatDistribution(
        1e-5, 1e-2, log=True
    )


def test_both_ends_of_randint_can_be_drawn() -> None:
    assert distributions(SPACES)["lora_r"] == optuna.distributions.IntDistribution(4, 64)


@pytest.mark.parametrize(
    "point",
    [
        {"learning_rate": 1.0, "lora_r": 8},
        {"learning_rate": 1e-3},
        {"learning_rate": 1e-3, "lora_r": 8, "seed": 1},
    ],
)
def test_a_point_of_another_space_is_told_apart(point: dict[str, float]) -> None:
    assert not in_space({"learning_rate": SPACES["learning_rate"], "lora_r": randint(4, 64)}, point)
