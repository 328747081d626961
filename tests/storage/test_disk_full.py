"""A disk that fills up: what was written stays whole, one message says what to do, and with room
the same sweep goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from events import an_event
from fake_trials import make_search, make_sweep, run
from killed_sweeps import Kept, Survived, check, drive
from peft import LoraConfig
from small_disks import Limit, Tmpfs, limit, tmpfs

from sftray.config import SweepConfig
from sftray.errors import OutageError
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.storage import files
from sftray.storage.journal import Journal, read_events
from sftray.storage.paths import SweepPaths, TrialPaths
from sftray.trial import checkpoint

WORDS = (
    r"there is no room \(.*\); .*[GM]B of .*[GM]B are free.*; make room and run the same command"
)


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tmpfs | Limit]:
    make = tmpfs if request.param == "tmpfs" else limit
    with make(tmp_path / "disk") as found:
        if found is None:
            pytest.skip("no right to mount a small disk")
        yield found


def test_a_file_is_written_whole_or_stays_as_it_was(disk: Tmpfs | Limit) -> None:
    path = disk.folder / "leaderboard.json"
    files.write_text(str(path), "old")
    disk.fill()
    for write in (files.write_bytes, files.create):
        with pytest.raises(OutageError, match=rf"leaderboard\.json.*{WORDS}"):
            write(str(path) if write is files.write_bytes else f"{path}.new", bytes(5000))
    disk.make_room()
    assert path.read_text() == "old"
    assert [one.name for one in disk.folder.iterdir()] == ["leaderboard.json"]


def test_a_journal_keeps_what_it_has_and_no_half_line(disk: Tmpfs | Limit) -> None:
    path = str(disk.folder / "journal.jsonl")
    with Journal(path) as journal:
        journal.append(an_event("sweep_started", uid="one"))
        disk.fill()
        with pytest.raises(OutageError, match=WORDS):
            journal.append(an_event("result", "t0000", step=1, metrics={"curve": ["x" * 50] * 200}))
        assert [event["event"] for event in read_events(path)] == ["sweep_started"]
        disk.make_room()
        journal.append(an_event("result", "t0000", step=1, metrics={}))  # the same driver may go on
    assert [event["event"] for event in read_events(path)] == ["sweep_started", "result"]


def test_a_sweep_whose_disk_fills_up_again_and_again_loses_nothing(tmp_path: Path) -> None:
    """Its journal, trial folders and leaderboard are on a disk that is full a while later each
    time."""
    sweep = make_sweep(num_trials=6)
    for name in ("kept", "scratch"):
        (tmp_path / name).mkdir()
    said: list[str] = []
    with limit(tmp_path / "disk") as disk:
        paths = SweepPaths(str(disk.folder))
        while True:
            disk.most = 4000 + 2500 * len(said)
            disk.fill()
            try:
                live(sweep, paths, tmp_path / "kept")
                break
            except OutageError as error:
                said.append(str(error))
            finally:
                disk.make_room()
    assert len(said) > 3
    assert all("no room" in one for one in said)
    events = read_events(paths.journal)
    check(
        Survived(sweep, len(said), events, Kept(tmp_path / "kept")), tmp_path / "scratch", every=3
    )
    for trial in {event["trial"] for event in events if event["event"] == "trial_ended"}:
        assert files.exists(paths.trial(trial).outcome), "the next driver writes what is missing"
    assert files.exists(paths.leaderboard)
    assert not list(disk.folder.glob("**/*.tmp"))


def live(sweep: SweepConfig, paths: SweepPaths, kept: Path) -> None:
    with Journal(paths.journal) as journal:
        recorders: dict[Search, Recorder] = {}

        def ended(search: Search) -> None:
            if search not in recorders:
                recorders[search] = Recorder(sweep, paths, journal, lambda line: None)
            recorders[search].finish_trials()

        drive(sweep, journal, Kept(kept), order=0, ended=ended)
        Recorder(sweep, paths, journal, print).write_leaderboard()


def save(folder: Path, step: int, size: int) -> None:
    adapter = {"base_model.model.layer.lora_A.weight": torch.zeros(size // 4)}
    state = {"step": step, "best": {"step": 0, "eval_loss": 1.0}}
    config = LoraConfig(target_modules=["layer"])
    checkpoint.save(TrialPaths(str(folder)), config, adapter, {"m": torch.zeros(1)}, state)


@pytest.mark.parametrize("where", ["its own disk", "the temporary folder"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with tmpfs(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("no right to mount a small disk")
        own = where == "its own disk"
        folder = disk.folder / "trial" if own else tmp_path / "trial"
        save(folder, 1, 300_000)
        save(folder, 2, 300_000)
        if not own:
            monkeypatch.setattr("tempfile.tempdir", str(disk.folder))
            disk.fill()
            (disk.folder / "filler").write_bytes(bytes(900_000))
        with pytest.raises(OutageError, match=WORDS):
            save(folder, 3, 500_000)
        monkeypatch.setattr("tempfile.tempdir", None)
        names = files.list_names(TrialPaths(str(folder)).checkpoints)
        assert len(names) == 2, "nothing of the third is left to take up room"
        newest = checkpoint.newest(TrialPaths(str(folder)), tmp_path / "scratch")
        assert newest is not None
        assert newest.step == 2


def test_a_trial_that_meets_a_full_disk_stops_the_sweep_and_is_not_to_blame(
    tmp_path: Path,
) -> None:
    sweep, path = make_sweep(num_trials=8), str(tmp_path / "journal.jsonl")
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        first, second = search.suggest(), search.suggest()
        assert first is not None
        assert second is not None
        for one in (first, second):
            search.attempt(one.trial)
        search.end(first.trial, "outage", "/disk: no room")
        assert search.halted == ("outage", "/disk: no room")
        assert search.suggest() is None
        assert search.record(second.trial, {"step": 0, "eval_loss": 3.0}) == "stop"
        search.gave_up(second.trial)  # cut off with the sweep
        assert search.unfinished() == [first, second]
        ended = [event for event in journal.events() if event["event"] == "attempt_ended"]
        assert [(event["class"], event["message"]) for event in ended] == [
            ("outage", "/disk: no room")
        ]
    with Journal(path) as journal:
        again = make_search(sweep, journal)
        assert not again.stopped
        run(sweep, again, slots=2)
        outcomes = [e["outcome"] for e in journal.events() if e["event"] == "trial_ended"]
        suggested = [e["point"] for e in journal.events() if e["event"] == "trial_suggested"]
    assert len(outcomes) == 8
    assert set(outcomes) <= {"completed", "pruned", "diverged"}
    assert suggested[:2] == [first.point, second.point]


# a disk that turns read-only, and one without inodes


def test_a_disk_that_turns_read_only_stops_what_writes_and_leaves_all_as_it_was(
    tmp_path: Path,
) -> None:
    with tmpfs(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("no right to mount a small disk")
        paths, path = SweepPaths(str(disk.folder)), disk.folder / "leaderboard.json"
        files.write_text(str(path), "old")
        with Journal(paths.journal) as journal:
            journal.append(an_event("sweep_started", uid="one"))
        disk.remount("ro")
        words = r"its filesystem is read-only \(.*\); see why .* run the same command to continue"
        for write in (
            lambda: Journal(paths.journal),
            lambda: files.write_text(str(path), "new"),
            lambda: files.write_text(f"{path}.new", "new"),
            lambda: save(disk.folder / "trial", 1, 1000),
            lambda: files.remove(str(path)),
        ):
            with pytest.raises(OutageError, match=words):
                write()
        assert path.read_text() == "old"
        disk.remount("rw")
        with Journal(paths.journal) as journal:
            journal.append(an_event("result", "t0000", step=1, metrics={}))
        assert [e["event"] for e in read_events(paths.journal)] == ["sweep_started", "result"]


def test_a_disk_without_inodes_is_called_so(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", inodes=4) as disk:
        if disk is None:
            pytest.skip("no right to mount a small disk")
        for number in range(3):
            (disk.folder / str(number)).touch()
        words = r"its disk has no inodes left \(.*\); all 4 files that it can hold are there"
        with pytest.raises(OutageError, match=words) as full:
            files.write_text(str(disk.folder / "x"), "")
        assert "MB" not in str(full.value)
