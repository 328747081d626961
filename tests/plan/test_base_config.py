"""What a config.json leaves out is read as transformers reads it."""

from __future__ import annotations

from typing import Any

import pytest
from bank_models import SIZES
from fake_trials import TRIAL, make_sweep
from transformers import AutoConfig

from sftray.config import choice
from sftray.errors import ConfigError
from sftray.plan.base_config import DEFAULTS, require_attention, special_attention
from sftray.plan.model_shape import ModelShape
from sftray.plan.preflight import check_attention
from sftray.plan.trainer_choice import why_not_the_base

KEYS = sorted({key for defaults in DEFAULTS.values() for key in defaults})
MISTRAL = {"model_type": "mistral", **SIZES}
GEMMA2: dict[str, Any] = {"model_type": "gemma2", "attn_logit_softcapping": 50.0}
GEMMA2: dict[str, Any] = {"model_type": "gemma2", "attn_logit_softcapping": 50.0}


@pytest.mark.parametrize("family", DEFAULTS)
@pytest.mark.parametrize("absent", [*KEYS, "all"])
def test_a_key_that_is_left_out_is_the_loaded_configurations(family: str, absent: str) -> None:
    # transformers cannot make one of these without a window
    window = 8 if family in ("exaone4", "cwm") else None
    base: dict[str, Any] = {**SIZES, "head_dim": 16, "sliding_window": window}
    base |= {"hidden_size": 96} if family == "cwm" else {}  # which its 48 heads divide
    base = {} if absent == "all" else {k: v for k, v in base.items() if k != absent}
    loaded = AutoConfig.for_model(family, **base).to_dict()
    base["model_type"] = family
    assert ModelShape.of(base) == ModelShape.of(loaded)
    assert why_not_the_base(base) == why_not_the_base(loaded)
    assert special_attention(base) == special_attention(loaded)


def test_varlen_computes_windows_but_no_soft_caps_or_chunks() -> None:
    assert special_attention(MISTRAL) is None
    assert special_attention(GEMMA2) == "a soft cap"
    assert special_attention({"layer_types": ["chunked_attention"]}) == "chunked attention"


@pytest.mark.parametrize(
    "changes",
    [
        {"trial": TRIAL.at({"attention": "varlen"})},
        {"search_space": {"attention": choice(["sdpa", "varlen"])}},
        {"points": ({"attention": "varlen"},)},
    ],
)
def test_varlen_is_refused_before_a_start_where_the_base_has_a_soft_cap(changes: Any) -> None:
    require_attention(make_sweep(**changes), MISTRAL)
    with pytest.raises(ConfigError, match="got 'varlen', but the base has a soft cap"):
        require_attention(make_sweep(**changes), GEMMA2)


def test_a_plan_for_gpus_says_that_varlen_is_passed_over() -> None:
    (line,) = check_attention(make_sweep(), GEMMA2, gpus=True)
    assert "the base has a soft cap, which varlen attention does not compute" in line
    assert list(check_attention(make_sweep(), GEMMA2, gpus=False)) == []
    assert list(check_attention(make_sweep(), {"model_type": "llama"}, gpus=True)) == []
