"""One type of each kind gets the attention that docs/models.md says; the whole table where there is
time."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from pathlib import Path

import pytest
import torch

from sftray.plan.trainer_choice import why_not_the_base
from sftray.trial import attention
from sftray.trial.equality import Reference
from sftray.trial.proof import first_that_passes

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from models import TYPES, examine, in_a_process, small_config, small_model  # noqa: E402

CPU = torch.device("cpu")
KINDS = {
    "gemma3_text": "sdpa",  # windows
    "gemma2": "eager",  # a soft cap
    "gpt_oss": "apart",  # sinks
    "glm": "sdpa",  # fused projections, rotary on a part
    "granite": "sdpa",  # multipliers
    "olmo2": "sdpa",  # norms after
    "qwen3_5_text": "apart",  # recurrences among its layers
    "mixtral": "sdpa",  # experts
}
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").partition("## The types")[2]


def of_the_page(kind: str) -> str:
    """The attention on a CPU."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    (row,) = [row for row in rows if kind in re.findall(r"\w+", row[-1])]
    return row[0].split(" ")[0]


def test_the_types_that_a_bank_trains_are_bold() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    bold = set(re.findall(r"\*\*(\w+)\*\*", "".join(rows)))
    configs = {kind: small_config(kind).to_dict() for kind in TYPES.split()}
    assert bold == {kind for kind in configs if why_not_the_base(configs[kind]) is None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_gets_the_attention_of_the_page(kind: str) -> None:
    line = examine(kind, CPU)
    assert (line.failed, line.attention) == ("", KINDS[kind])
    assert of_the_page(kind) == line.attention


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", TYPES.split())
def test_every_type_gets_the_attention_of_the_page(kind: str) -> None:
    line = in_a_process(kind, "cpu")
    assert line.failed == ""
    assert of_the_page(kind) == line.attention


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3_5_text", "bamba"])
def test_a_state_that_decays_slowly_is_seen_to_leak(kind: str) -> None:
    model = small_model(kind, torch.float32, CPU)
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):
            parameter.data.fill_(math.log(0.05))
    reference = Reference(model, 256)
    candidates = [attention._SDPA, attention._APART]
    proof, refused = first_that_passes(model, candidates, reference, contextlib.nullcontext)
    assert "lets the documents of a packed row see each other" in refused[0]
    assert proof is not None
    assert (proof.attention.name, proof.isolation) == ("apart", 0)
