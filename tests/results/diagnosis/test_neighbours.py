"""A strange batch counts where the trial ends worse than its neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_trials import make_sweep
from test_diagnosis import BASE, CONFIG, fall, spiked, told, trial

from sftray.config import loguniform
from sftray.results.diagnosis.neighbours import after_strange_batch
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records, TrialRecord

SWEEP = make_sweep(trial=CONFIG, search_space={"learning_rate": loguniform(1e-6, 1e-2)})
Point = dict[str, float | int]


def ended(name: str, to: float, rate: float, *, spike: bool = False, **more: int) -> TrialRecord:
    config = replace(CONFIG, learning_rate=rate, **more)
    train = spiked(60, 2.5) if spike else None
    record = trial(fall(to), config=config, train=train)
    return replace(record, trial=name, point={"learning_rate": rate, **more})


@pytest.mark.parametrize(
    ("to", "others", "kind"),
    [
        (1.30, [(1.2, 5e-5, {}), (1.22, 2e-4, {})], "loss_spikes"),
        (1.21, [(1.2, 5e-5, {}), (1.22, 2e-4, {})], "strange_batch"),  # between them
        (1.23, [(1.2, 5e-5, {}), (1.22, 2e-4, {})], "strange_batch"),  # as seeds are
        (1.30, [(1.2, 5e-5, {}), (1.4, 2e-4, {})], "strange_batch"),  # the valley's slope
        (1.30, [(1.2, 5e-5, {})], "strange_batch"),  # at an edge
        (1.30, [(1.2, 1e-6, {}), (1.22, 1e-2, {})], "strange_batch"),  # too far
        (1.30, [(1.2, 1e-4, {"seed": 1}), (1.22, 1e-4, {"seed": 2})], "loss_spikes"),
        (1.30, [(1.2, 5e-5, {"lora_r": 64}), (1.22, 2e-4, {})], "strange_batch"),
    ],
)
def test_a_strange_batch_did_damage_where_both_neighbours_end_lower(
    to: float, others: list[tuple[float, float, dict[str, int]]], kind: str
) -> None:
    own = ended("t0000", to, 1e-4, spike=True)
    beside = [ended(f"t{k:04d}", *one[:2], **one[2]) for k, one in enumerate(others, start=1)]
    found = told(own)
    assert found.kind == "strange_batch"
    judged = after_strange_batch(found, own, [own, *beside], lambda one: CONFIG.at(one.point))
    assert judged.kind == kind
    if kind == "loss_spikes":
        assert "; it ends at 1.30" in judged.verdict
        assert "t0001 at 1.20" in judged.verdict
        assert judged.advice == (
            "Lower the learning rate from 0.0001 to about 3e-05; if trials of other rates have it "
            "too, look at rows 944 to 959 of the row order."
        )


def test_the_leaderboard_says_so_once_the_neighbours_have_ended() -> None:
    records = Records()
    own = ended("t0000", 1.3, 1e-4, spike=True)
    low, high = ended("t0001", 1.2, 5e-5), ended("t0002", 1.22, 2e-4)
    kinds = []
    for one in (own, low, high):
        records._trials[one.trial] = one
        board = leaderboard(SWEEP, records)
        kinds.append(next(r["diagnosis"] for r in board["trials"] if r["trial"] == "t0000"))
    assert records.base_eval_loss() == BASE
    assert kinds == ["strange_batch", "strange_batch", "loss_spikes"]
