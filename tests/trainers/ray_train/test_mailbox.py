"""What passes between a trial's client and its workers, without Ray and without waiting."""

from __future__ import annotations

import functools
import math

import pytest

from sftray.cluster.awake_clock import AwakeClock
from sftray.config import TrialConfig
from sftray.errors import WorkersError
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.ray_train import mailbox
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec

TRIAL = TrialConfig("none", effective_batch_size=4)
PLAN = plan_trial(TRIAL, 100, ladder=(), evals_per_trial=2, execution=ONE_ROW)
ONE, TWO = (TrialSpec(name, TRIAL, PLAN, "packs", name) for name in ("t0000", "t0001"))
Mailbox = functools.partial(mailbox.Mailbox, poll_seconds=0.0)


def report(step: int, *, waits: bool = False) -> Report:
    return Report({"step": step}, waits=waits)


def test_all_workers_get_the_trials_in_order_and_none_before_the_first_worker() -> None:
    box = Mailbox(max_failures=2)
    assert box.take(0, 0) is None
    box.send(ONE)
    assert box.take(1, 0) is None
    assert box.take(0, 0) == box.take(1, 0) == (1, ONE)
    box.send(TWO)
    assert box.take(1, 1) is None
    box.finished(1)
    assert box.take(1, 1) is None
    assert box.take(0, 1) == box.take(1, 1) == (2, TWO)
    box.close()
    assert box.take(0, 2) == box.take(1, 2) == "closed"


def test_reports_come_in_order_and_only_to_their_trial() -> None:
    box = Mailbox(2)
    box.send(ONE)
    assert box.next_report("t0000") is None
    box.take(0, 0)
    assert [box.put(1, report(step)) for step in (0, 5)] == [True, True]
    assert box.next_report("t0001") is None
    assert [box.next_report("t0000") for _ in range(3)] == [report(0), report(5), None]


def test_a_trial_waits_at_a_rung_until_its_client_has_the_report_and_lets_it_go_on() -> None:
    box = Mailbox(2)
    box.send(ONE)
    box.take(0, 0)
    box.put(1, report(5, waits=True))
    assert box.decided(1) is None
    box.go_on("t0000")  # it had not got the rung's report: that decides nothing
    assert box.decided(1) is None
    assert box.next_report("t0000") == report(5, waits=True)
    assert box.next_report("t0000") is None  # nor does asking for the next one
    assert box.decided(1) is None
    box.go_on("t0000")
    assert box.decided(1) is True


def test_a_trial_that_was_stopped_hears_so_at_its_rung_and_at_its_next_report() -> None:
    box = Mailbox(2)
    box.send(ONE)
    box.take(0, 0)
    box.put(1, report(5, waits=True))
    box.drop("t0000")
    assert box.decided(1) is False
    assert box.put(1, report(9)) is False
    box.send(TWO)
    assert box.take(0, 0) is not None  # nobody is told of the next before the workers are free
    box.finished(1)
    assert box.take(0, 1) == (2, TWO)
    assert box.next_report("t0001") is None


def test_a_trial_that_is_dropped_before_it_began_is_never_begun() -> None:
    box = Mailbox(2)
    box.send(ONE)
    box.drop("t0000")
    box.send(TWO)
    assert box.take(0, 0) == (1, TWO)


def test_new_workers_get_the_trial_in_whose_middle_the_old_ones_died() -> None:
    box = Mailbox(max_failures=1)
    box.send(ONE)
    for rank in (0, 1):
        box.take(rank, 0)
    # both are new; whoever comes first waits for rank 0
    assert box.take(1, 0) is None
    assert box.take(0, 0) == box.take(1, 0) == (1, ONE)
    assert box.put(1, report(5))
    # and the second death is one too many
    assert box.take(1, 0) is None
    died = Report(interrupted="failed", message="its worker died without a message")
    assert [box.next_report("t0000") for _ in range(4)] == [
        died,
        report(5),
        died,
        Report(outcome="failed", message="its worker died without a message"),
    ]
    box.send(TWO)
    assert box.take(0, 0) == box.take(1, 0) == (2, TWO)


def test_last_words_are_told_and_running_out_of_memory_does_not_count() -> None:
    box = Mailbox(max_failures=0)
    box.send(ONE)
    for _ in range(5):
        assert box.take(0, 0) == box.take(1, 0) == (1, ONE)
        box.died(1, "OutOfMemoryError: 8 rows", "again")
    assert box.take(0, 0) == (1, ONE)
    box.died(1, "ValueError: bad", "failure")
    assert box.take(0, 0) is None
    for _ in range(5):
        again = Report(interrupted="failed", message="OutOfMemoryError: 8 rows")
        assert box.next_report("t0000") == again
    assert box.next_report("t0000") == Report(interrupted="failed", message="ValueError: bad")
    assert box.next_report("t0000") == Report(outcome="failed", message="ValueError: bad")


def test_machines_that_are_taken_back_are_no_failures() -> None:
    box = Mailbox(max_failures=0)
    box.send(ONE)
    for _ in range(3):
        assert box.take(0, 0) == (1, ONE)
        box.taken_back(1)
    assert box.take(0, 0) == (1, ONE)
    for _ in range(3):
        report = box.next_report("t0000")
        assert report is not None
        assert report.interrupted == "preempted"
        assert report.message.startswith("its machine was taken back")
    assert box.take(0, 0) is None  # that one died of itself
    assert box.next_report("t0000") == Report(
        interrupted="failed", message="its worker died without a message"
    )
    ended = box.next_report("t0000")
    assert ended is not None
    assert ended.outcome == "failed"


def test_workers_that_are_silent_too_long_are_taken_for_dead() -> None:
    now = 0.0
    box = Mailbox(max_failures=2, hang_seconds=60.0, clock=AwakeClock(lambda: now, math.inf))
    box.send(ONE)
    now = 1000.0
    assert box.next_report("t0000") is None  # no worker has come yet
    box.take(0, 0)
    now += 59
    assert box.next_report("t0000") is None
    box.alive(1)
    now += 59
    assert box.next_report("t0000") is None
    now += 2
    with pytest.raises(WorkersError, match="hang: no sign of life for 61 s"):
        box.next_report("t0000")


def test_workers_that_were_suspended_are_neither_silent_nor_counted_as_dead() -> None:
    now = 0.0
    box = Mailbox(max_failures=0, hang_seconds=60.0, clock=AwakeClock(lambda: now))
    box.send(ONE)
    for _ in range(3):
        assert box.take(0, 0) == (1, ONE)
        now += 600  # all processes of the machine are stopped
        assert box.next_report("t0000") is None
        box.died(1, "RuntimeError: connection closed", "failure")
        report = box.next_report("t0000")
        assert report is not None
        assert report.interrupted == "suspended"
    assert box.take(0, 0) == (1, ONE)
    for _ in range(7):
        now += 10
        box.alive(1)
    box.died(1, "ValueError: bad", "failure")  # and this is a failure of its own
    assert box.take(0, 0) is None
    died = box.next_report("t0000")
    assert died is not None
    assert died.interrupted == "failed"
    ended = box.next_report("t0000")
    assert ended is not None
    assert ended.outcome == "failed"


def test_a_trial_for_which_no_memory_is_little_enough_ends_and_the_next_begins() -> None:
    box = Mailbox(max_failures=2)
    box.send(ONE)
    for rank in (0, 1):
        box.take(rank, 0)
    box.died(1, "CUDA out of memory", "out_of_memory")
    assert box.next_report("t0000") == Report(outcome="out_of_memory", message="CUDA out of memory")
    box.send(TWO)
    assert box.take(1, 0) is None
    assert box.take(0, 0) == box.take(1, 0) == (2, TWO)


def test_a_full_disk_is_told_at_once_for_another_attempt_would_meet_it_too() -> None:
    box = Mailbox(2)
    box.send(ONE)
    box.take(0, 0)
    box.died(1, "/disk: no room", "outage")
    assert box.next_report("t0000") == Report(outcome="outage", message="/disk: no room")


def test_a_client_hears_that_the_run_has_ended() -> None:
    box = Mailbox(2)
    box.send(ONE)
    box.broken("no such resource")
    with pytest.raises(WorkersError, match="no such resource"):
        box.next_report("t0000")
