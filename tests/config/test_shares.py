"""The share of a source as an axis: what it leaves the others, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice, uniform
from sftray.config.config_json import sweep_from_json, to_json
from sftray.config.overrides import override
from sftray.config.points import reachable, setting_of
from sftray.config.shares import at_shares
from sftray.errors import ConfigError

DATA = DataConfig(sources=[("a.jsonl", 3), ("b/*.parquet", 1), ("c.csv", 0)])


def sweep_of(data: DataConfig = DATA, **changes: Any) -> SweepConfig:
    space = {} if "points" in changes else {"mixture.b": uniform(0, 0.5)}
    values = {"search_space": space, **changes}
    return SweepConfig("x", data, **{"trial": TrialConfig("base"), **values})


def test_the_others_divide_the_rest_by_their_weights_and_the_weights_stay() -> None:
    data = DataConfig(sources=[("a.jsonl", 3), ("b.jsonl", 1), ("c.jsonl", 4)])
    drawn = at_shares(data.mixture, {"c": 0.2})
    assert [one.share for one in drawn] == pytest.approx([0.6, 0.2, 0.2])
    assert [one.weight for one in drawn] == [3 / 8, 1 / 8, 4 / 8]
    none = at_shares(data.mixture, {"a": 0, "c": 0.25})
    assert [one.share for one in none] == pytest.approx([0, 0.75, 0.25])
    assert at_shares(data.mixture, {}) == data.mixture


def test_a_point_sets_the_shares_that_it_names() -> None:
    sweep = sweep_of(trial=TrialConfig("base", mixture={"c": 0.1}))
    trial = sweep.trial.at({"mixture.b": 0.5, "lora_r": 4})
    assert (trial.mixture, trial.lora_r) == ({"c": 0.1, "b": 0.5}, 4)
    assert setting_of(sweep, trial, "mixture.a") == pytest.approx(0.4)
    assert setting_of(sweep, trial, "mixture.d") is None
    assert setting_of(sweep, sweep.trial.at({"lora_r": 4}), "mixture.b") == pytest.approx(0.225)
    assert reachable(sweep, "mixture.b") == [0, 0.5]


def test_a_sweep_over_shares_comes_back_from_json_and_is_set_from_the_command_line() -> None:
    sweep = sweep_of(points=[{"mixture.b": 0.25}, {"mixture.b": 0}])
    assert sweep_from_json(json.loads(json.dumps(to_json(sweep)))).points == sweep.points
    wider = override(sweep_of(), "search_space.mixture.b=choice([0, 0.2, 0.9])")
    assert wider.search_space == {"mixture.b": choice([0, 0.2, 0.9])}
    fixed = override(sweep_of(), 'trial.mixture={"b": 0.4}')
    assert fixed.trial.mixture == {"b": 0.4}


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (DATA, {"search_space": {"mixture.d": uniform(0, 0.5)}}, "the name of a source: a, b, c"),
        (DATA, {"trial": TrialConfig("base", mixture={"bb": 0.1})}, "did you mean mixture.b?"),
        (DATA, {"points": [{"mixture.B": 0.5}]}, "mixture.B: got 'B', must be the name of"),
        (
            DATA,
            {"search_space": {"mixture": choice([0.1])}},
            "an axis a source, as in mixture.NAME",
        ),
        (DATA, {"search_space": {"mixture.b": uniform(0, 1)}}, "names with shares 0 <= x < 1"),
        (DATA, {"points": [{"mixture.b": -0.1}]}, "names with shares 0 <= x < 1"),
        (DATA, {"points": [{"mixture.b": "half"}]}, "names with shares 0 <= x < 1"),
        (
            DATA,
            {"search_space": {"mixture.b": uniform(0, 0.6), "mixture.c": uniform(0, 0.5)}},
            "the largest shares together: got 1.1 (mixture.b = 0.6, mixture.c = 0.5), must be",
        ),
        (
            DATA,
            {"points": [{"mixture.a": 0.5, "mixture.b": 0.2}]},
            "mixture: got mixture.a = 0.5, mixture.b = 0.2, must be given with a source without",
        ),
        (DataConfig("a.jsonl"), {}, "mixture.b: got one source, a.jsonl, must be a share of sever"),
        (DataConfig(sources=[("b.jsonl", 1)]), {}, "mixture.b: got one source, b.jsonl, must be"),
        (
            DataConfig(sources=[("x/b.jsonl", 1), ("y/b.jsonl", 1)]),
            {},
            "mixture.b: got a name of x/b.jsonl, y/b.jsonl, must be one source's",
        ),
    ],
)
def test_a_share_that_no_trial_could_have_is_refused(
    data: DataConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        sweep_of(data, **changes)
    assert message in str(error.value)
