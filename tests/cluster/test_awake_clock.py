"""Being asleep is told from being silent by a gap in a process's own clock."""

from __future__ import annotations

from sftray.cluster.awake_clock import AwakeClock


def test_time_in_which_a_process_was_suspended_is_left_out() -> None:
    now = 100.0
    clock = AwakeClock(lambda: now)
    for _ in range(10):
        now += 20
        clock()
    assert clock() == 200.0
    assert not clock.woke_lately()
    now += 600
    assert clock() == 200.0
    assert clock.woke_lately()
    now += 20
    assert clock() == 220.0
    for _ in range(3):
        now += 20
        clock()
    assert not clock.woke_lately()


def test_a_started_clock_is_looked_at_by_a_thread_of_its_own() -> None:
    clock = AwakeClock.started()
    before = clock()
    assert clock() >= before
    assert not clock.woke_lately()
