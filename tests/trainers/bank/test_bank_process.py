"""A bank's process, without Ray around it: leases, the queue for a slot, rungs, and what goes
wrong with one trial alone."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import import_watch
import pytest
from bank_models import settings_for, short_spec
from small_disks import tmpfs

from sftray.cluster.preemption import PreemptionWatch
from sftray.config import SweepConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.errors import BankError
from sftray.plan.effective_batch import Execution
from sftray.storage import files
from sftray.storage.paths import TrialPaths
from sftray.trainers.bank.bank_process import BankProcess, Opening
from sftray.trainers.bank.leases import LEASE_SECONDS
from sftray.trial.trial_spec import TrialSpec

pytestmark = pytest.mark.slow

Reports = list[dict[str, Any]]


class Bank:
    """A bank in this process, and what the clients of its trials do."""

    def __init__(self, trial: TrialConfig, packs: Packs, sweep: SweepConfig, slots: int) -> None:
        self._waiting: set[str] = set()
        """Trials whose last report was a rung's."""
        self.now = 0.0
        """Seconds on the clock of the leases."""
        self.draining: set[str] = set()
        """Machines that are about to be taken back; the bank is on "here"."""
        self.process = BankProcess(
            trial,
            use_gpu=False,
            threads=1,
            clock=lambda: self.now,
            watch=PreemptionWatch(
                {"here"}, lambda: self.draining, clock=itertools.count(0, 6).__next__
            ),
        )
        self._opening = Opening(packs.root, settings_for([trial], slots), sweep)

    def attach(self, spec: TrialSpec) -> int:
        return self.process.attach(spec, self._opening)

    def expect(self, trials: int) -> None:
        self.process.open(self._opening, trials)

    def ask(self, spec: TrialSpec) -> dict[str, Any]:
        """A trial's next report, however long it takes; it continues from the rung it waits at."""
        if spec.trial in self._waiting:
            self._waiting.remove(spec.trial)
            self.process.go_on(spec.trial)
        while (report := self.process.next_report(spec.trial)) is None:
            pass
        if report.waits:
            self._waiting.add(spec.trial)
        return report.values() | ({"taken_back": True} if report.taken_back else {})

    def ask_until(self, spec: TrialSpec, step: int) -> Reports:
        reports = [self.ask(spec)]
        while reports[-1]["step"] < step:
            reports.append(self.ask(spec))
        return reports

    def ask_to_the_end(self, spec: TrialSpec) -> Reports:
        reports = [self.ask(spec)]
        while "outcome" not in reports[-1]:
            reports.append(self.ask(spec))
        return reports


Start = Callable[[int], Bank]
"""Slots → a bank."""


@pytest.fixture
def start(
    tiny: TrialConfig, small_packs: Packs, small_sweep_config: SweepConfig
) -> Iterator[Start]:
    banks = []

    def begin(slots: int) -> Bank:
        banks.append(Bank(tiny, small_packs, small_sweep_config, slots))
        return banks[-1]

    yield begin
    for bank in banks:
        bank.process.lend(int)  # ends its thread


@pytest.fixture
def trial(tiny: TrialConfig) -> TrialConfig:
    return replace(tiny, effective_batch_size=2)


def checkpoints(spec: TrialSpec) -> list[str]:
    return files.list_names(TrialPaths(spec.folder).checkpoints)


@pytest.mark.parametrize("way", ["open", "lend"])
def test_while_the_base_is_loaded_one_thread_imports_transformers(
    tiny: TrialConfig, small_packs: Packs, way: str
) -> None:
    """Its lazy modules fail a second one: a winner could not be checked by a bank just started."""
    command = [sys.executable, import_watch.__file__, tiny.model, small_packs.root, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr


def test_a_client_gets_all_reports_of_its_trial_in_order_to_its_outcome(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(2)
    specs = [
        short_spec(small_packs, replace(trial, learning_rate=rate), tmp_path / name)
        for name, rate in (("a", 1e-3), ("b", 1e-2))
    ]
    assert [bank.attach(spec) for spec in specs] == [1, 2]
    for spec in specs:
        reports = bank.ask_to_the_end(spec)
        steps, last = spec.plan.eval_steps, spec.plan.steps
        assert [report["step"] for report in reports] == [0, *steps, last]
        assert [report.get("outcome") for report in reports] == [
            *[None] * (len(steps) + 1),
            "completed",
        ]
        curve = [entry for report in reports for entry in report.get("curve", [])]
        assert [entry[0] for entry in curve] == list(range(1, last + 1))
        assert reports[-1]["eval_loss"] < reports[0]["eval_loss"]
        assert TrialPaths(spec.folder).checkpoint(last).endswith(checkpoints(spec)[-1])
        bank.process.drop(spec.trial)
    assert bank.process.leases() == 0
    usage = bank.process.usage()
    assert usage["admitted"] == 2
    assert usage["slot_steps"] == sum(spec.plan.steps * spec.plan.accumulation for spec in specs)


def test_batches_of_2_and_16_meet_at_a_rung_with_the_same_supervised_tokens(
    start: Start, tiny: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    """The comparison that a sweep over batch sizes rests on; the rung lies in a later epoch."""
    bank, rung = start(2), 80
    epochs = 192 / small_packs.rows("train")
    specs = [
        short_spec(
            small_packs,
            replace(tiny, effective_batch_size=batch, num_train_epochs=epochs),
            tmp_path / str(batch),
            ladder=(rung,),
        )
        for batch in (2, 16)
    ]
    for spec in specs:
        bank.attach(spec)
    small, large = (bank.ask_until(spec, spec.plan.rungs[0].step)[-1] for spec in specs)
    assert (small["step"], large["step"]) == (40, 5)
    for name in ("rows", "tokens", "supervised_tokens"):
        assert small[name] == large[name] > 0
    assert small["rows"] == rung > small_packs.rows("train")


def test_a_bank_begins_with_those_it_expects_and_takes_others_afterwards(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    """Two clients that see the same bank as the emptiest do not both go there, so that no bank
    waits for one that never comes."""
    bank = start(2)
    bank.expect(2)
    specs = [short_spec(small_packs, trial, tmp_path / name) for name in "abc"]
    assert [bank.attach(spec) for spec in specs] == [1, 2, 0]
    bank.ask(specs[0])
    assert bank.attach(specs[2]) == 3


def test_a_trial_without_a_slot_waits_until_another_is_dropped(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(1)
    first = short_spec(small_packs, trial, tmp_path / "1st", ladder=(10,))
    second, third = (short_spec(small_packs, trial, tmp_path / name) for name in ("2nd", "3rd"))
    assert [bank.attach(spec) for spec in (first, second, third)] == [1, 2, 3]
    bank.ask_until(first, first.plan.rungs[0].step)  # where it stays, with its slot
    assert bank.process.usage()["admitted"] == 1
    bank.process.drop(first.trial)
    assert bank.ask(second)["step"] == 0
    assert bank.process.leases() == 2
    assert bank.ask_to_the_end(second)[-1]["outcome"] == "completed"
    # who has ended holds no slot, whether or not its client is still there
    assert bank.ask_to_the_end(third)[-1]["outcome"] == "completed"


def test_a_trial_that_is_dropped_before_it_had_a_slot_never_gets_one(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(1)
    first = short_spec(small_packs, trial, tmp_path / "first", ladder=(10,))
    gone, last = (short_spec(small_packs, trial, tmp_path / name) for name in ("gone", "last"))
    for spec in (first, gone, last):
        bank.attach(spec)
    bank.ask_until(first, first.plan.rungs[0].step)
    bank.process.drop(gone.trial)
    bank.process.drop(first.trial)
    assert bank.ask_to_the_end(last)[-1]["outcome"] == "completed"
    assert bank.process.usage()["admitted"] == 2
    assert checkpoints(gone) == []


def test_nothing_is_trained_past_a_rung_until_its_client_asks_again(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(2)
    waiting = short_spec(small_packs, trial, tmp_path / "waiting", ladder=(10,))
    free = short_spec(small_packs, trial, tmp_path / "free")
    bank.attach(waiting)
    rung = waiting.plan.rungs[0].step
    bank.ask_until(waiting, rung)
    bank.attach(free)
    bank.ask_to_the_end(free)  # meanwhile the other would have come to its end as well
    assert checkpoints(waiting)[-1] == f"step-{rung:07d}"
    steps = bank.process.usage()["slot_steps"]
    accumulation = waiting.plan.accumulation
    assert steps <= (rung + free.plan.steps) * accumulation
    reports = bank.ask_to_the_end(waiting)
    assert reports[0]["curve"][0][0] == rung + 1
    assert reports[-1]["outcome"] == "completed"


def test_a_trial_that_is_dropped_in_the_middle_of_its_training_frees_its_slot(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(1)
    long = short_spec(small_packs, replace(trial, num_train_epochs=30.0), tmp_path / "long")
    next_ = short_spec(small_packs, trial, tmp_path / "next")
    bank.attach(long)
    assert bank.ask(long)["step"] == 0
    bank.process.drop(long.trial)
    bank.attach(next_)
    assert bank.ask_to_the_end(next_)[-1]["outcome"] == "completed"
    assert bank.process.leases() == 1
    assert bank.process.usage()["slot_steps"] < long.plan.steps
    with pytest.raises(BankError, match="long: its lease was given up"):
        bank.process.next_report(long.trial)


def test_a_lease_that_nobody_asks_for_is_given_up_and_its_slot_freed(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(1)
    silent = short_spec(small_packs, trial, tmp_path / "silent", ladder=(10,))
    other = short_spec(small_packs, trial, tmp_path / "other")
    bank.attach(silent)
    bank.ask_until(silent, silent.plan.rungs[0].step)
    bank.now = LEASE_SECONDS / 2
    bank.attach(other)
    bank.now = LEASE_SECONDS + 1
    assert bank.ask_to_the_end(other)[-1]["outcome"] == "completed"
    assert bank.process.leases() == 1
    with pytest.raises(BankError, match="silent: its lease was given up"):
        bank.process.next_report(silent.trial)


def test_a_client_that_comes_again_takes_the_place_of_the_one_that_died(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(1)
    spec = short_spec(small_packs, trial, tmp_path / "trial", ladder=(10,))
    rung = spec.plan.rungs[0].step
    bank.attach(spec)
    bank.ask_until(spec, rung)
    assert bank.attach(spec) == 1
    reports = bank.ask_to_the_end(spec)
    assert [report["step"] for report in reports if "resumed_from_step" in report] == [rung]
    assert reports[-1]["outcome"] == "completed"
    assert bank.process.usage()["admitted"] == 2


def test_all_trials_are_saved_when_their_machine_is_about_to_be_taken_back(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(2)
    specs = [
        replace(short_spec(small_packs, trial, tmp_path / name, ladder=()), trial=name)
        for name in ("t0000", "t0001")
    ]
    for spec in specs:
        bank.attach(spec)
        bank.ask(spec)
    bank.draining.add("elsewhere")
    bank.draining.add("here")
    for spec in specs:
        while "taken_back" not in bank.ask(spec):
            pass
    assert bank.attach(replace(specs[0], trial="t0002")) == 0  # it takes no others
    for spec in specs:  # and trains on while it lives
        assert bank.ask_to_the_end(spec)[-1]["outcome"] == "completed"


def test_a_trial_that_cannot_start_fails_alone(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(2)
    good = short_spec(small_packs, trial, tmp_path / "good")
    bank.attach(good)
    bank.ask_to_the_end(good)

    def spec(name: str) -> TrialSpec:
        return replace(good, trial=name, folder=str(tmp_path / name))

    other_rank = replace(spec("other_rank"), config=replace(trial, lora_r=8))
    shutil.copytree(good.folder, other_rank.folder)
    no_folder = spec("no_folder")
    Path(no_folder.folder).mkdir()
    Path(TrialPaths(no_folder.folder).checkpoints).write_text("a file")
    other_micro = replace(
        spec("other_micro"), plan=replace(good.plan, execution=Execution(2), accumulation=1)
    )
    for failing, message in (
        (other_rank, "it holds another adapter than this trial's"),
        (no_folder, "checkpoint"),
        (other_micro, "a micro-batch of 2 rows in a bank of 1"),
    ):
        bank.attach(failing)
        reports = bank.ask_to_the_end(failing)
        assert [report["outcome"] for report in reports] == ["failed"]
        assert message in reports[0]["message"]
    beside = spec("beside")
    bank.attach(beside)
    assert bank.ask_to_the_end(beside)[-1]["outcome"] == "completed"


def test_a_full_disk_is_no_failure_of_the_trial_and_with_room_it_goes_on(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(1)
    with tmpfs(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("no right to mount a small disk")
        spec = short_spec(small_packs, trial, disk.folder / "trial")
        disk.fill()
        bank.attach(spec)
        told = bank.ask_to_the_end(spec)[-1]
        assert told["outcome"] == "outage"
        assert "there is no room" in told["message"]
        disk.make_room()
        bank.attach(spec)
        assert bank.ask_to_the_end(spec)[-1]["outcome"] == "completed"


def test_a_damaged_checkpoint_is_passed_over(
    start: Start, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    bank = start(1)
    whole = short_spec(small_packs, trial, tmp_path / "whole")
    bank.attach(whole)
    expected = bank.ask_to_the_end(whole)
    damaged = replace(whole, trial="damaged", folder=str(tmp_path / "damaged"))
    shutil.copytree(whole.folder, damaged.folder)
    for name in checkpoints(damaged):
        file = Path(TrialPaths(damaged.folder).checkpoints, name, "adapter_model.safetensors")
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    bank.attach(damaged)
    found = bank.ask_to_the_end(damaged)
    assert [report["eval_loss"] for report in found] == [report["eval_loss"] for report in expected]
