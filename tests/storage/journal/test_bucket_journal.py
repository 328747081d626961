"""The journal on object storage: two drivers, a takeover, a driver that wakes up too late."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from events import an_event, timeless
from fake_clock import FakeClock
from fake_trials import make_search, make_sweep, run
from s3_server import s3_server

from sftray.errors import JournalError, Log
from sftray.storage import files
from sftray.storage.journal import Event, Journal, held, read_events, reader
from sftray.storage.journal.bucket_journal import LEASE_SECONDS
from sftray.storage.paths import join

CLOCK = FakeClock()
"""Of all drivers of these tests."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("sweeps") as address:
        yield address


@pytest.fixture
def path(bucket: str) -> str:
    return join(bucket, uuid.uuid4().hex, "journal.jsonl")


class Dead(Journal):
    """A driver that is not heard of any more and does not know it: suspended, or cut off."""

    def __init__(self, path: str) -> None:
        super().__init__(path, clock=CLOCK)
        self._log._closed.set()  # type: ignore[union-attr]
        self._log._heart.join()  # type: ignore[union-attr]

    def close(self) -> None:
        pass


def drive(path: str, log: Log = lambda line: None) -> Journal:
    """A driver, which waits for the lease of the one before to run out."""
    return Journal(path, clock=CLOCK, log=log)


def names(events: list[Event]) -> list[str]:
    return [event["event"] for event in events]


@pytest.mark.parametrize("where", ["s3", "disk"])
def test_a_file_is_created_once_however_many_try(bucket: str, tmp_path: Path, where: str) -> None:
    path = join(bucket if where == "s3" else str(tmp_path), "once", "object")
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda n: files.create(path, b"%d" % n), range(16)))
    assert sum(written) == 1
    assert files.read_bytes(path) == b"%d" % written.index(True)


def test_events_are_read_back_and_a_later_driver_goes_on(path: str) -> None:
    with Journal(path) as journal:
        journal.append(an_event("sweep_started", name="Zürich"))
        journal.append_all([{"event": "a"}, {"event": "b"}])
    with Journal(path) as journal:  # given back, so at once
        assert journal.append(an_event("sweep_started", name="other"))["name"] == "Zürich"
        journal.append(an_event("sweep_ended"))
    events = read_events(path)
    assert names(events) == ["driver_started", "sweep_started", "a", "b", "driver_started",
                             "sweep_ended"]  # fmt: skip
    assert [e["attempt"] for e in events if e["event"] == "driver_started"] == [1, 2]


def test_a_second_driver_is_refused_and_told_who_holds_the_sweep(path: str) -> None:
    with drive(path) as journal:
        journal.append(an_event("sweep_started"))
        told = r"another driver .*process \d+ on .*, since 20.* heard of \d s ago"
        said: list[str] = []
        with pytest.raises(JournalError, match=told):
            drive(path, log=said.append)
        assert len(said) == 1
        assert "waiting up to 60 s to see whether it lives" in said[0]
        journal.append(an_event("sweep_ended"))
    assert names(read_events(path)) == ["driver_started", "sweep_started", "sweep_ended"]


def test_a_driver_that_lives_keeps_its_lease_without_writing(path: str) -> None:
    with drive(path) as journal:
        for _ in range(8):  # two leases
            with pytest.raises(JournalError, match="another driver is running"):
                drive(path)
        journal.append(an_event("sweep_started"))


def test_a_dead_driver_is_followed_and_fenced_off_when_it_wakes_up(path: str) -> None:
    old = Dead(path)
    old.append(an_event("sweep_started"))
    began = CLOCK.now()
    with drive(path) as new:
        assert CLOCK.now() - began == pytest.approx(LEASE_SECONDS, abs=0.01)  # as rounded
        for _ in range(2):
            with pytest.raises(JournalError, match="has taken this sweep over"):
                old.append(an_event("trial_suggested", "t0000", point={}))
        new.append(an_event("trial_suggested", "t0000", point={"lora_r": 8}))
    events = read_events(path)
    assert names(events) == ["driver_started", "sweep_started", "driver_started", "trial_suggested"]
    assert events[-1]["point"] == {"lora_r": 8}


def test_a_driver_that_wakes_up_after_its_sweep_was_deleted_writes_nothing(path: str) -> None:
    old = Dead(path)
    old.append(an_event("sweep_started"))
    CLOCK.pause(LEASE_SECONDS)
    with held(path, clock=CLOCK):
        files.remove(path)  # the lease stays
    with pytest.raises(JournalError, match="This driver stops here, and claims no result"):
        old.append(an_event("trial_suggested", "t0000", point={}))
    with pytest.raises(JournalError, match="This driver stops here"):
        old.require_same()
    with drive(path) as new:
        assert new.events()[0]["attempt"] == 2  # a later epoch, by which the old one knows it
        with pytest.raises(JournalError):
            old.append(an_event("trial_suggested", "t0000", point={}))
        new.append(an_event("sweep_started"))
        new.require_same()
    assert names(read_events(path)) == ["driver_started", "sweep_started"]


def test_a_journal_whose_driver_lives_is_not_held_by_another(path: str) -> None:
    with drive(path) as journal:
        with pytest.raises(JournalError, match="driver is running"), held(path, clock=CLOCK):
            pass
        journal.append(an_event("sweep_started"))


def test_a_driver_that_wakes_up_sees_the_higher_epoch_before_it_writes(path: str) -> None:
    old = Dead(path)
    with drive(path):
        assert old._log._is_lost()  # type: ignore[union-attr]
        written = len(files.list_names(path))
        with pytest.raises(JournalError, match="has taken this sweep over"):
            old.append(an_event("sweep_started"))
        assert len(files.list_names(path)) == written


def test_an_old_drivers_heartbeat_does_not_pass_for_the_new_ones(path: str) -> None:
    old = Dead(path)
    with drive(path) as new:
        old._log._write_lease(released=True)  # type: ignore[union-attr]
        with pytest.raises(JournalError, match="another driver is running"):
            drive(path)
        new.append(an_event("sweep_started"))


def test_a_lease_that_is_read_while_it_is_rewritten_is_read_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with drive(path) as journal:
        journal.append(an_event("sweep_started"))
        whole, cut = files.read_text, iter([True, True])

        def read(path: str) -> str:
            text = whole(path)
            return text[:-7] if path.endswith(".lease") and next(cut, False) else text

        monkeypatch.setattr(files, "read_text", read)
        with pytest.raises(JournalError, match="another driver is running"):
            drive(path)
        monkeypatch.undo()
        cut = iter([True] * 100)
        monkeypatch.setattr(files, "read_text", read)
        with pytest.raises(JournalError, match=r"journal\.jsonl\.lease: damaged; delete it"):
            drive(path)
        monkeypatch.undo()


def test_of_drivers_that_start_together_one_runs(path: str) -> None:
    barrier = threading.Barrier(6)

    def start(number: int) -> Journal | JournalError:
        barrier.wait()
        try:
            return drive(path)
        except JournalError as error:
            return error

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(start, range(6)))
    refused = [str(one) for one in found if isinstance(one, JournalError)]
    assert all("another driver" in one for one in refused)
    assert sum(writes(one) for one in found if isinstance(one, Journal)) == 1


def writes(journal: Journal) -> bool:
    """Whether this driver runs: another has not taken over before its first heartbeat."""
    with journal:
        try:
            journal.append(an_event("sweep_started"))
        except JournalError:
            return False
    return True


def test_a_store_that_overwrites_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(path: str, data: bytes) -> bool:
        files.write_bytes(path, data)
        return True

    monkeypatch.setattr(files, "create", overwrite)
    with pytest.raises(JournalError, match=r"wrote it twice, must refuse to \(If-None-Match\)"):
        Journal(path)


def test_a_put_whose_answer_was_lost_is_known_as_ones_own(path: str) -> None:
    with Journal(path) as journal:
        log = journal._log
        data = b'{"event": "a", "trial": null, "time": 1.0}\n'
        files.write_bytes(join(path, "00000001.jsonl"), data)
        log.write(data)
        journal.append(an_event("sweep_ended"))
    assert names(read_events(path)) == ["driver_started", "a", "sweep_ended"]


def test_a_missing_cut_or_damaged_object_is_named(path: str) -> None:
    with Journal(path) as journal:
        for name in ("a", "b", "c"):
            journal.append(an_event(name))
    last, middle = join(path, "00000003.jsonl"), join(path, "00000002.jsonl")
    whole = files.read_bytes(last)
    for damaged in (whole[:-1], b"", whole[:5] + b"\n" + whole[5:], b"\xff" + whole[1:]):
        files.write_bytes(last, damaged)
        with pytest.raises(JournalError, match=r"00000003\.jsonl"):
            Journal(path)
    files.write_bytes(last, whole)
    filesystem, inner = files.resolve(middle)
    filesystem.delete_file(inner)
    with pytest.raises(JournalError, match=r"00000002\.jsonl: missing"):
        read_events(path)


@pytest.mark.slow
def test_a_thousand_events_replay_and_are_followed(path: str) -> None:
    follower = reader(path)
    with Journal(path) as journal:
        for number in range(50):
            journal.append_all([{"event": f"e{number}-{k}"} for k in range(20)])
            if number == 20:
                assert len(follower.new()) == 1 + 20 * 21
        written = journal.events()
    assert len(written) == 1001
    assert follower.new() == written[-20 * 29 :]
    assert follower.new() == []
    with Journal(path) as journal:
        assert journal.events()[:-1] == written


@pytest.mark.slow
def test_a_whole_search_on_s3_ends_as_on_a_disk_however_often_its_driver_dies(
    path: str, tmp_path: Path
) -> None:
    """The reports come in the same order, so a disk's journal must have the same events."""
    sweep = make_sweep(num_trials=6)
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        run(sweep, make_search(sweep, journal), slots=1)
        expected = journal.events()
    for death in (2, 9, 14):
        journal = Dead(path)
        with pytest.raises(InterruptedError):
            run(sweep, make_search(sweep, journal), slots=1, reports_left=death)
    with drive(path) as journal:
        run(sweep, make_search(sweep, journal), slots=1)
    told = ("trial_suggested", "result", "decision", "trial_ended")
    assert timeless(read_events(path), told) == timeless(expected, told)
