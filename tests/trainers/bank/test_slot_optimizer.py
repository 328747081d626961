"""A bank's optimizer against torch's: every slot as if it were alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sftray.config import TrialConfig
from sftray.plan.model_shape import PROJECTIONS
from sftray.trainers.bank.adapters import Adapters, fresh_row, lay_out
from sftray.trainers.bank.frozen_base import DecoderShape
from sftray.trainers.bank.slot_optimizer import EPSILON, Optimizer, table_row

STEPS = 20
CPU = torch.device("cpu")
SHAPE = DecoderShape(
    hidden=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    layers=2,
    vocabulary=31,
    epsilon=1e-6,
    scale=8**-0.5,
    outputs=dict(zip(PROJECTIONS, (16, 8, 8, 16, 24, 24, 16), strict=True)),
    inputs=dict(zip(PROJECTIONS, (16, 16, 16, 16, 16, 16, 24), strict=True)),
)
LAYOUT = lay_out(SHAPE, PROJECTIONS, 8)

PLAIN = TrialConfig("none", learning_rate=1e-3, lora_r=8)
TRIALS = [
    PLAIN,
    replace(PLAIN, adam_beta1=0.8, adam_beta2=0.95, weight_decay=0.3),
    replace(PLAIN, max_grad_norm=1e-3, lora_alpha_ratio=8.0),
    replace(PLAIN, max_grad_norm=1e9, weight_decay=0.0, learning_rate=3e-3, lora_alpha=4.0),
]
TOKENS = [1, 700, 33, 5000]
"""Supervised tokens a step of each slot."""
EVERY = [1, 2, 3, 1]
"""Micro-steps from step to step of each slot."""


@dataclass
class Alone:
    """One adapter under torch's AdamW and clipping."""

    trial: TrialConfig
    first: nn.Parameter
    """lora_A of all projections."""
    second: nn.Parameter
    optimizer: torch.optim.AdamW

    @classmethod
    def of(cls, trial: TrialConfig, row: Tensor) -> Alone:
        parts = (row[: LAYOUT.split], row[LAYOUT.split :])
        first, second = (nn.Parameter(part.clone()) for part in parts)
        betas = (trial.adam_beta1, trial.adam_beta2)
        decay = trial.weight_decay
        optimizer = torch.optim.AdamW([first, second], betas=betas, eps=EPSILON, weight_decay=decay)
        return cls(trial, first, second, optimizer)

    def step(self, grad: Tensor, rate: float, tokens: int) -> float:
        """Step on the gradient of the mean loss, given that of the sum as the bank keeps it:
        lora_B's without LoRA's scale. Returns its norm."""
        mean = grad / tokens
        scale = self.trial.lora_scale
        self.first.grad, self.second.grad = mean[: LAYOUT.split], mean[LAYOUT.split :] * scale
        norm = nn.utils.clip_grad_norm_([self.first, self.second], self.trial.max_grad_norm)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        return float(norm)

    @property
    def param(self) -> Tensor:
        return torch.cat([self.first, self.second]).detach()

    def moment(self, name: str) -> Tensor:
        return torch.cat([self.optimizer.state[p][name] for p in (self.first, self.second)])


def test_every_slot_takes_the_steps_of_torchs_adamw_and_clipping() -> None:
    adapters, optimizer = bank(TRIALS)
    alone = [
        Alone.of(trial, row.clone()) for trial, row in zip(TRIALS, adapters.param, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    steps, losses = [0] * len(TRIALS), [0.0] * len(TRIALS)
    clipped = set()
    for micro in range(1, STEPS * max(EVERY) + 1):
        adapters.grad.add_(torch.randn(adapters.grad.shape, generator=generator))
        sums = torch.rand(len(TRIALS), generator=generator) * 100
        optimizer.loss.add_(sums)
        losses = [before + float(more) for before, more in zip(losses, sums, strict=True)]
        due: dict[int, Any] = {}
        norms: dict[int, float] = {}
        for slot, trial in enumerate(TRIALS):
            if micro % EVERY[slot]:
                continue
            steps[slot] += 1
            rate = trial.learning_rate * (1 + math.cos(steps[slot])) / 2
            due[slot] = (table_row(trial, steps[slot], rate, TOKENS[slot]), slot)
            norms[slot] = alone[slot].step(adapters.grad[slot].clone(), rate, TOKENS[slot])
            if norms[slot] > trial.max_grad_norm:
                clipped.add(slot)
        optimizer.step(due)
        for slot, loss, norm in optimizer.done(wait=True):
            assert loss == pytest.approx(losses[slot] / TOKENS[slot], rel=1e-5)
            assert norm == pytest.approx(norms.pop(slot), rel=1e-5)
            losses[slot] = 0.0
        assert norms == {}
    assert clipped == {0, 2}
    for slot, expected in enumerate(alone):
        close(adapters.param[slot], expected.param)
        for moments, name in zip(adapters.moments, ("exp_avg", "exp_avg_sq"), strict=True):
            close(moments[slot], expected.moment(name))
        scale = TRIALS[slot].lora_scale
        split = LAYOUT.split
        assert torch.equal(adapters.work[slot, :split], adapters.param[slot, :split])
        assert torch.equal(adapters.work[slot, split:], adapters.param[slot, split:] * scale)
        assert steps[slot] >= STEPS


def test_a_step_empties_the_gradient_and_the_loss_of_the_slots_that_took_it() -> None:
    adapters, optimizer = bank(TRIALS[:2])
    fill(adapters, optimizer)
    before = adapters.grad[1].clone()
    optimizer.step({0: (table_row(PLAIN, 1, 1e-3, 10), None)})
    assert adapters.grad[0].abs().max() == 0
    assert torch.equal(adapters.grad[1], before)
    assert optimizer.loss.tolist() == [0.0, 4.0]


def test_slots_that_are_not_due_keep_every_bit() -> None:
    adapters, optimizer = bank(TRIALS)
    fill(adapters, optimizer)
    before = bits(adapters, optimizer)
    optimizer.step({1: (table_row(TRIALS[1], 1, 1e-3, 10), None)})
    after = bits(adapters, optimizer)
    for slot in (0, 2, 3):
        assert_same(before[slot], after[slot])
    assert not torch.equal(before[1][0], after[1][0])


@pytest.mark.parametrize("poison", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_slot_that_is_not_finite_stays_and_its_neighbours_do_not_notice(
    poison: str, value: float
) -> None:
    ends = []
    for poisoned in (False, True):
        adapters, optimizer = bank(TRIALS)
        fill(adapters, optimizer)
        if poisoned and poison == "loss":
            optimizer.loss[2] = value
        elif poisoned:
            adapters.grad[2, 5] = value
        before = bits(adapters, optimizer)[2]
        for step in (1, 2, 3):
            due = {k: (table_row(t, step, 1e-3, 10), k) for k, t in enumerate(TRIALS)}
            optimizer.step(due)
            if step == 1:
                after = bits(adapters, optimizer)[2]
                frozen = [torch.equal(*both) for both in zip(before[:4], after[:4], strict=True)]
                assert frozen == [poisoned] * 4  # parameters, moments, working copy
                done = {slot: numbers for slot, *numbers in optimizer.done(wait=True)}
            adapters.grad.add_(1.0)
        loss, norm = done[2]
        assert math.isfinite(loss) == (not poisoned or poison == "gradient")
        assert math.isfinite(norm) == (not poisoned or poison == "loss")
        ends.append(bits(adapters, optimizer))
    for slot in (0, 1, 3):
        assert_same(ends[0][slot], ends[1][slot])
        assert math.isfinite(sum(done[slot]))


def test_losses_and_norms_come_back_with_their_notes_in_order() -> None:
    adapters, optimizer = bank(TRIALS)
    asked = []
    for step, slots in enumerate([(0,), (3, 1), (), (0, 2)], start=1):
        optimizer.loss.fill_(float(step))
        adapters.grad.zero_()
        adapters.grad[:, 0] = 8.0 * step
        optimizer.step({k: (table_row(TRIALS[k], step, 1e-3, 4), ("note", step, k)) for k in slots})
        asked += [(slot, step) for slot in slots]
    assert optimizer.done(wait=False) == [  # on a CPU nothing is on its way
        (("note", step, slot), step / 4, 2.0 * step) for slot, step in asked
    ]
    assert optimizer.done(wait=True) == []


def test_a_step_without_supervised_tokens_is_no_division_by_zero() -> None:
    adapters, optimizer = bank([PLAIN])
    optimizer.step({0: (table_row(PLAIN, 1, 1e-3, 0), None)})
    assert optimizer.done(wait=True) == [(None, 0.0, 0.0)]
    assert torch.isfinite(adapters.param).all()


def test_what_pads_a_rank_stays_zero() -> None:
    narrow = replace(PLAIN, lora_r=3, weight_decay=0.1)
    adapters, optimizer = bank([narrow])
    padding = adapters.param[0] == 0
    padding[LAYOUT.split :] = False
    adapters.grad[0, ~padding] = 1.0
    for step in (1, 2, 3):
        optimizer.step({0: (table_row(narrow, step, 1e-2, 1), None)})
        adapters.grad[0, ~padding] = 1.0
    assert padding.sum() == LAYOUT.split * 5 / 8
    assert adapters.param[0, padding].abs().max() == 0
    assert adapters.work[0, padding].abs().max() == 0


def bank(trials: list[TrialConfig]) -> tuple[Adapters, Optimizer]:
    """A slot a trial, lora_B random too."""
    adapters = Adapters(LAYOUT, len(trials), torch.float32, CPU)
    generator = torch.Generator().manual_seed(1)
    for slot, trial in enumerate(trials):
        row = fresh_row(LAYOUT, trial.lora_r, slot, PROJECTIONS)
        row.param[LAYOUT.split :].normal_(0, 0.1, generator=generator)
        adapters.admit(slot, row, trial.lora_scale)
    return adapters, Optimizer(adapters)


def fill(adapters: Adapters, optimizer: Optimizer) -> None:
    """Gradients, moments and losses of a bank that has been running."""
    generator = torch.Generator().manual_seed(2)
    adapters.grad.normal_(0, 1, generator=generator)
    adapters.moments[0].normal_(0, 0.1, generator=generator)
    adapters.moments[1].uniform_(0.1, 1, generator=generator)
    optimizer.loss.fill_(4.0)


def bits(adapters: Adapters, optimizer: Optimizer) -> list[tuple[Tensor, ...]]:
    """Copies of all that a slot has: parameters, moments, working copy, gradient, loss."""
    rows = (adapters.param, *adapters.moments, adapters.work, adapters.grad, optimizer.loss)
    return [tuple(row[slot].clone() for row in rows) for slot in range(adapters.slots)]


def assert_same(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
