"""`init --minutes` proposes what fits, and gives up trials before data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sftray.demo import CHATS, FOLDER
from sftray.errors import ConfigError
from sftray.plan.gpu_speed import Speed
from sftray.plan.preview import Preview
from sftray.plan.proposal import Proposal, propose


def proposed(minutes: float | None, rate: float | None = 3000.0, gpus: int = 0) -> Proposal:
    def measure(plan: Preview) -> Preview:
        return replace(plan, speed=rate and Speed(0.7 * rate, rate, "measured"))

    memory = 80e9 if gpus else None
    return propose(
        "x",
        [str(CHATS)],
        str(FOLDER),
        split="train",
        gpus=gpus,
        gpu_memory=memory,
        minutes=minutes,
        measure=measure,
    )


def most(proposal: Proposal) -> float:
    assert proposal.plan.duration
    return proposal.plan.duration.most / 60


def test_what_is_proposed_fits_and_says_what_it_gave_up() -> None:
    free = proposed(None)
    roomy, tight, tiny = (proposed(minutes) for minutes in (2 * most(free), 20, 3))
    assert roomy.sweep == free.sweep
    assert most(tight) <= 20 < most(free)
    assert tight.sweep.num_trials < free.sweep.num_trials
    assert tight.sweep.data.max_conversations is None
    assert "at most 20 minutes" in tight.reasons["num_trials"]
    assert most(tiny) <= 3
    assert tiny.sweep.confirm_top == 0
    assert tiny.sweep.data.max_conversations
    assert "at most 3 minutes" in tiny.reasons["data.max_conversations"]


def test_on_a_gpu_further_epochs_are_given_up_too() -> None:
    free = proposed(None, 30_000.0, gpus=1)
    tight = proposed(most(free) / 5, 30_000.0, gpus=1)
    assert most(tight) <= most(free) / 5
    assert "num_train_epochs" not in tight.sweep.search_space
    assert tight.sweep.trial.num_train_epochs == 1


def test_too_few_minutes_and_a_speed_that_is_not_known_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--minutes: got 1, must be at least \d+"):
        proposed(1)
    with pytest.raises(ConfigError, match="the speed of this machine is not known"):
        proposed(30, None)
