"""A grid with annealed branches: by the product's own, and its trunks are as without."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_rows import packs_of_rows
from reported import into

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from bank_in_150_lines import demo_rows  # noqa: E402
from branches import Grid, Trained, _spec  # noqa: E402
from shapes import grid_settings  # noqa: E402

from sftray.config import TrialConfig  # noqa: E402
from sftray.demo import FOLDER  # noqa: E402
from sftray.trainers.bank.engine import Engine  # noqa: E402
from sftray.trainers.bank.frozen_base import load_model  # noqa: E402

CPU = torch.device("cpu")
LENGTH, ROWS = 80, 30
TRIAL = TrialConfig(str(FOLDER), base_precision="fp32", warmup_ratio=0.05)
RUN = Trained({"learning_rate": 4e-3, "effective_batch_size": 1, "lora_r": 4, "lora_alpha": 8}, 0)


@pytest.mark.slow
def test_every_rung_has_a_branch_and_no_trunk_notices(tmp_path: Path) -> None:
    packs = packs_of_rows(demo_rows(ROWS, LENGTH), tmp_path / "packs", LENGTH)
    options: Any = type("Options", (), {"slots": 2, "ranks": [4]})
    model, settings = load_model(TRIAL, CPU), grid_settings(options)
    grid = Grid(model, TRIAL, packs, settings, CPU)
    spec = _spec(RUN, TRIAL, packs, ROWS)
    grid.begin(RUN, spec)
    while grid.advance():
        pass
    alone: list[dict[str, Any]] = []
    engine = Engine(load_model(TRIAL, CPU), TRIAL, packs, settings, CPU)
    plan = replace(spec.plan, rungs=())
    engine.admit(engine.prepare(replace(spec, plan=plan, folder=str(tmp_path)), into(alone)))
    while engine.advance():
        pass

    trunk = [(step, loss) for step, *_, loss in RUN.evaluations]
    undisturbed = [(one["step"], one["eval_loss"]) for one in alone if one.get("step")]
    assert RUN.outcome == "completed"
    assert [step for step, _ in trunk] == sorted({step for step, _ in undisturbed})
    assert dict(trunk) == pytest.approx(dict(undisturbed), abs=1e-6)

    assert [(left, end) for left, end, _ in RUN.branches] == [(10, 13), (13, 17)]
    annealed = RUN.branches[-1][2]
    assert annealed < dict(trunk)[13]
    assert annealed != pytest.approx(dict(trunk)[17], abs=1e-4)
