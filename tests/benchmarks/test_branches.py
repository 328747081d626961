"""Annealed branches leave their trunk as it was, and begin where it stands."""

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
from branches import Branch, Grid, Trained, _spec  # noqa: E402
from shapes import grid_settings  # noqa: E402

from sftray.config import TrialConfig  # noqa: E402
from sftray.demo import FOLDER  # noqa: E402
from sftray.plan.trial_plan import learning_rate  # noqa: E402
from sftray.trainers.bank.engine import Engine  # noqa: E402
from sftray.trainers.bank.frozen_base import load_model  # noqa: E402
from sftray.trainers.bank.slot import Slot  # noqa: E402

CPU = torch.device("cpu")
LENGTH, ROWS = 80, 30
TRIAL = TrialConfig(str(FOLDER), base_precision="fp32", warmup_ratio=0.05)
RUN = Trained({"learning_rate": 4e-3, "effective_batch_size": 1, "lora_r": 4, "lora_alpha": 8}, 0)


class Watched(Grid):
    """Keeps its branches' curves."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.left: list[tuple[Slot, Branch]] = []

    def _rejoin(self, slot: Slot, place: int, loss: float) -> None:
        self.left.append((slot, self.branches[slot]))
        super()._rejoin(slot, place, loss)


@pytest.mark.slow
def test_a_branch_anneals_from_where_its_trunk_stands(tmp_path: Path) -> None:
    packs = packs_of_rows(demo_rows(ROWS, LENGTH), tmp_path / "packs", LENGTH)
    options: Any = type("Options", (), {"slots": 2, "ranks": [4]})
    model, settings = load_model(TRIAL, CPU), grid_settings(options)
    grid = Watched(model, TRIAL, packs, settings, CPU)
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
    losses = {entry[0]: entry[1] for one in alone for entry in one.get("curve", [])}
    for slot, branch in grid.left:
        curve = slot.progress.state()["since"]["curve"] or slot.progress.last["curve"]
        begins, steps = branch.trunk.spec.plan, slot.spec.plan.steps
        left = int(curve[0][0]) - 1
        full = learning_rate(spec.config, begins, left)
        assert curve[0][1] == pytest.approx(losses[left + 1], abs=1e-6)  # the trunk's weights
        rates = [full * (1 - k / (steps - left)) for k in range(steps - left)]
        assert [rate for _, _, rate, _ in curve] == pytest.approx(rates)
    annealed = RUN.branches[-1][2]
    assert annealed < dict(trunk)[13]
    assert annealed != pytest.approx(dict(trunk)[17], abs=1e-4)
