"""Bases of every kind, small, trained on a GPU as they are: the proof passes, the loss falls, and
the adapter has that loss again where plain PEFT loads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bank_models import short_spec
from expert_bases import EXPERT_KINDS, small_expert_base
from multimodal_bases import CONFIGS, multimodal_base
from reported import into
from saved_bases import copy_of_the_base, in_bits, in_fp8

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial.eval_loss import default_device, evaluate_adapter

pytestmark = pytest.mark.gpu

EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
ENTROPY = 9.0
"""ln 8192: what a base of random weights has for an eval loss."""


def _in_fp8(folder: Path) -> Path:
    in_fp8(folder, "fp8")
    return folder


def _small(make: Callable[[Path, str], Path], kind: str, **fields: Any) -> Any:
    return lambda folder: TrialConfig(str(make(folder, kind)), **fields)


TRIALS: dict[str, Callable[[Path], TrialConfig]] = {
    **{f"text of {kind}": _small(multimodal_base, kind) for kind in CONFIGS},
    **{f"{kind}, experts left": _small(small_expert_base, kind) for kind in EXPERT_KINDS},
    **{
        f"{kind}, experts adapted": _small(
            small_expert_base, kind, base_precision="bf16", lora_target_parameters=EXPERTS
        )
        for kind in EXPERT_KINDS
    },
    **{
        f"{kind} in bf16": _small(small_expert_base, kind, base_precision="bf16")
        for kind in ("mamba", "mamba2", "jamba")
    },
    **{f"saved in {kind}": _small(in_bits, kind, base_precision=kind) for kind in ("int8", "fp4")},
    "saved in fp8": lambda folder: TrialConfig(str(_in_fp8(folder)), base_precision="bf16"),
    "pad = eos": lambda folder: TrialConfig(str(copy_of_the_base(folder, pad_token_id=2))),
}


@pytest.mark.parametrize("kind", TRIALS)
def test_a_base_is_trained_on_a_gpu(kind: str, small_packs: Packs, tmp_path: Path) -> None:
    trial = replace(
        TRIALS[kind](tmp_path / "base"), learning_rate=1e-2, lora_r=4, effective_batch_size=2
    )
    spec = short_spec(small_packs, trial, tmp_path / "trial")
    reports: list[dict[str, Any]] = []
    run_trial(spec, into(reports), default_device())
    first, last = reports[0], reports[-1]
    print(f"\n{kind}: {first['attention']}: {first['equality']}; {first['eval_loss']:.4f} → "  # noqa: T201
          f"{last['eval_loss']:.4f}")  # fmt: skip
    assert first["equality"].startswith("equal to eager attention in float32")
    assert first["eval_loss"] < ENTROPY + 4
    assert last["eval_loss"] < first["eval_loss"] - 0.02
    checkpoint = Path(TrialPaths(spec.folder).checkpoint(last["step"]))
    again = evaluate_adapter(checkpoint, trial, small_packs.dataset("eval"))
    assert again == pytest.approx(last["eval_loss"], abs=5e-3)
