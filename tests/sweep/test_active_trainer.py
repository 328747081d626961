"""A bank that does not compute the base gives way to `train`, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_trials import ROWS, make_search, make_sweep

from sftray.plan.device_fit import DeviceFit
from sftray.plan.effective_batch import ONE_ROW
from sftray.search.search import Search
from sftray.storage.journal import Journal
from sftray.sweep.active_trainer import ActiveTrainer
from sftray.trainers.runner import FittedTrainer, TrialSpecs

REASON = "in the bank's decoder the output of layer 0 differs"


class FakeRunner:
    """`train`, which completes every trial."""

    gpus = 0

    def fit(self, sweep: Any, base: Any) -> FittedTrainer:
        return FittedTrainer(DeviceFit(at_once=1, execution=ONE_ROW), complete)

    def close(self) -> None:
        pass


class Trainers(ActiveTrainer):
    def _started(self, sweep: Any) -> Any:
        return FakeRunner()


def complete(specs: Any, search: Search, recorder: Any) -> None:
    waiting = search.unfinished()
    while (suggestion := waiting.pop(0) if waiting else search.suggest()) is not None:
        search.attempt(suggestion.trial)
        search.end(suggestion.trial, "completed")


def unfit(specs: Any, search: Search, recorder: Any) -> None:
    suggestion = search.suggest()
    assert suggestion is not None
    search.attempt(suggestion.trial)
    search.end(suggestion.trial, "unfit_trainer", REASON)


@pytest.mark.parametrize("trainer", ["auto", "bank"])
def test_a_bank_that_is_unfit_gives_way_unless_it_is_asked_for(
    trainer: str, tmp_path: Path
) -> None:
    sweep = make_sweep(trainer=trainer, num_trials=3)
    lines: list[str] = []
    active = Trainers(("bank", "fits"), sweep, {}, None, False, lines.append)  # type: ignore[arg-type]
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        search = make_search(sweep, journal)
        specs = TrialSpecs(sweep, None, "", lambda trial: None)  # type: ignore[arg-type, return-value]
        bank = FittedTrainer(DeviceFit(at_once=1, execution=ONE_ROW), unfit)
        active.run(bank, specs, ROWS, search, None)  # type: ignore[arg-type]
        if trainer == "bank":
            assert search.halted == ("unfit_trainer", REASON)
            return
        assert search.halted is None
        assert search.remaining() == 0
        assert search.outcome_of("t0000") == "completed"
        assert lines == [f"trainer: train instead of the bank: {REASON}"]
