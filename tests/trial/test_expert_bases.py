"""Experts are left alone or adapted, as a trial says; the adapter loads, merges and comes off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_models import short_spec
from expert_bases import EXPERT_KINDS, small_expert_base
from more_cases import shortened
from peft import PeftModel
from reported import into
from safetensors.torch import load_file

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trainers.ray_train.base_cache import Bases
from sftray.trial.attention import Attention
from sftray.trial.base_model import pretrained
from sftray.trial.eval_loss import evaluate_adapter, packed_eval_loss
from sftray.winner.adapter_format import WEIGHTS, peft_problems, read_adapter, vllm_problems

EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
APART = Attention("apart", "eager", "apart")


@pytest.mark.slow
@pytest.mark.parametrize("kind", shortened(["mamba", "mamba2", "jamba"]))
def test_every_adapter_of_all_linear_is_trained_on_mamba_too(
    kind: str, small_packs: Packs, tmp_path: Path
) -> None:
    base = small_expert_base(tmp_path / "base", kind)
    trial = TrialConfig(str(base), base_precision="fp32", lora_r=4, effective_batch_size=2)
    spec = short_spec(small_packs, trial, tmp_path / "trial")
    reports: list[dict[str, Any]] = []
    run_trial(spec, into(reports), torch.device("cpu"))
    checkpoint = Path(TrialPaths(spec.folder).checkpoint(reports[-1]["step"]))
    ups = {n: v for n, v in load_file(checkpoint / WEIGHTS).items() if "lora_B" in n}
    assert len(ups) >= 2
    assert [name for name, weight in ups.items() if not weight.any()] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", shortened(EXPERT_KINDS))
def test_experts_are_adapted_on_request_alone(
    kind: str, small_packs: Packs, tmp_path: Path
) -> None:
    base = small_expert_base(tmp_path / "base", kind)
    plain = TrialConfig(
        str(base), base_precision="fp32", learning_rate=1e-2, lora_r=4, effective_batch_size=2
    )
    rows, bases, last = small_packs.dataset("eval"), Bases(), []
    for number, names in enumerate(((), EXPERTS, ())):
        trial = replace(plain, lora_target_parameters=names)
        spec = short_spec(small_packs, trial, tmp_path / str(number))
        reports: list[dict[str, Any]] = []
        run_trial(spec, into(reports), torch.device("cpu"), bases)
        loss = reports[-1]["eval_loss"]
        last.append(loss)
        checkpoint = Path(TrialPaths(spec.folder).checkpoint(reports[-1]["step"]))
        assert evaluate_adapter(checkpoint, trial, rows) == pytest.approx(loss, abs=1e-6)
        config, tensors = read_adapter(checkpoint)
        assert any("experts" in name for name in tensors) == bool(names)
        assert not any(".gate." in name for name in tensors)  # the router
        assert peft_problems(config, tensors) == []
        assert bool(vllm_problems(config, tensors)) == bool(names)
        model = pretrained(trial, torch.float32)
        merged = PeftModel.from_pretrained(model, str(checkpoint)).merge_and_unload()
        again = packed_eval_loss(merged.eval(), rows, APART, trial)
        assert again == pytest.approx(loss, abs=1e-5)
        assert not json.loads((checkpoint / "adapter_config.json").read_text())["rank_pattern"]
    assert last[0] == last[2]  # the experts' adapters have left nothing in the base
    assert last[1] < last[0] - 0.02
