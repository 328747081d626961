"""Spaces: what they refuse, in a file as from --set, and what they answer about themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
from fake_trials import make_sweep

from sftray.config import Space, SweepConfig, choice, fitting, loguniform, randint, uniform
from sftray.config.overrides import override
from sftray.errors import ConfigError

SPACES = (
    loguniform(1e-5, 1e-3),
    uniform(0.0, 0.2),
    randint(4, 64),
    choice([8, 32, 16]),
    choice([0.5, 1]),
)


@pytest.mark.parametrize(
    ("name", "make", "text", "message"),
    [
        (
            "learning_rate",
            lambda: loguniform("5e-5", 1e-3),
            'loguniform("5e-5", 1e-3)',
            "loguniform: got low='5e-5', must be a finite number; write 5e-5 without quotes",
        ),
        (
            "weight_decay",
            lambda: uniform(0, math.inf),
            "uniform(0, inf)",
            "uniform: got high=inf, must be a finite number; take the last value worth a trial",
        ),
        (
            "lora_r",
            lambda: randint(4, 8.5),
            "randint(4, 8.5)",
            "randint: got high=8.5, must be a whole number; use uniform for other numbers",
        ),
        (
            "lora_r",
            lambda: randint(8, 4),
            "randint(8, 4)",
            "randint: got low=8, high=4, must be low < high; swap them, or hold one value",
        ),
        (
            "lora_r",
            lambda: choice([1, True]),
            "choice([1, true])",
            "choice: got 1 and True, must be different values; leave one of them out",
        ),
        (
            "lora_r",
            lambda: choice([8, 16, 8]),
            "choice([8, 16, 8])",
            "choice: got 8 and 8, must be different values; leave one of them out",
        ),
        (
            "lora_r",
            lambda: loguniform(4, 64),
            "loguniform(4, 64)",
            "search_space['lora_r']: got loguniform(4, 64), must be whole numbers; "
            "use randint(4, 64), or choice([…])",
        ),
    ],
)
def test_a_space_that_cannot_be_meant_is_one_line_with_the_fix(
    name: str, make: Callable[[], Space], text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make_sweep(search_space={name: make()})
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        override(make_sweep(), f"search_space.{name}={text}")


@pytest.mark.parametrize("text", ["choice([None, 'sdpa'])", 'choice([null, "sdpa"])'])
def test_a_space_is_set_in_the_words_of_python_and_of_json(text: str) -> None:
    sweep: SweepConfig = override(make_sweep(), f"search_space.attention={text}")
    assert sweep.search_space["attention"] == choice([None, "sdpa"])


@pytest.mark.parametrize("space", [*SPACES, fitting([8, 16])])
def test_a_space_written_as_code_is_the_same_space(space: Space) -> None:
    name = "effective_batch_size" if space.fitting else "weight_decay"
    if space == randint(4, 64):
        name = "lora_r"
    trials = make_sweep(search_space={"learning_rate": loguniform(1e-5, 1e-3)})
    assert override(trials, f"search_space.{name}={space.as_code()}").search_space[name] == space


@pytest.mark.parametrize("space", SPACES)
def test_ends_values_and_shares_of_a_space_agree(space: Space) -> None:
    ends = space.ends()
    assert ends is not None
    assert [space.share(end) for end in ends] == [0, 1]
    assert all(map(space.contains, ends))
    for share in (0.0, 0.3, 0.99):
        value = space.at(share)
        assert space.contains(value)
        assert space.nearest(value) == value
    for upper in (False, True):
        beyond = space.beyond(upper=upper)
        wider = space.widened(beyond, upper=upper).ends()
        assert wider is not None
        assert wider[upper] == beyond
        assert not space.contains(beyond)


def test_a_choice_has_ends_and_an_order_only_among_numbers() -> None:
    assert choice(["nf4", "bf16", "fp32"]).ends() is None
    assert not choice(["nf4", "bf16", "fp32"]).order()
    assert choice([32, 8, 16]).order() == [8, 16, 32]
    assert not choice([32, 8]).order()  # a sampler learns nothing from an order of two
    assert choice([8, 16, 32]).nearest(11) == 8
    assert choice([8, 16, 32]).nearest(40) == 32
    assert choice(["nf4", "bf16"]).nearest("bf16") == "bf16"
    assert choice(["nf4", "bf16"]).nearest("int8") == "nf4"
    assert choice([("q_proj",), "all-linear"]).contains(["q_proj"])  # as JSON has it


def test_a_space_without_number_has_no_list_of_values() -> None:
    assert uniform(0.0, 1.0).finite_values() is None
    assert list(randint(2, 4).finite_values()) == [2, 3, 4]
    assert choice([4, 2]).finite_values() == (4, 2)
