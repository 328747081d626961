import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from events import an_event

from sftray.errors import JournalError
from sftray.storage.journal import Journal, held, read_events, reader
from sftray.storage.journal.event_types import trial_ended
from sftray.storage.journal.events import decode


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sweep" / "journal.jsonl")


def write_some(path: str) -> None:
    with Journal(path) as journal:
        journal.append(an_event("sweep_started", name="Zürich"))
        journal.append(an_event("trial_suggested", "t0000", point={"learning_rate": 1e-4}))
        journal.append(an_event("result", "t0000", step=5, metrics={"eval_loss": 2.5}))


def test_events_are_read_back_in_order(path: str) -> None:
    write_some(path)
    events = read_events(path)
    assert [event["event"] for event in events] == ["sweep_started", "trial_suggested", "result"]
    assert events[0]["trial"] is None
    assert events[2]["metrics"] == {"eval_loss": 2.5}
    with Journal(path) as journal:
        assert journal.events() == events


def test_an_event_is_recorded_once_per_trial_and_step(path: str) -> None:
    with Journal(path) as journal:
        first = journal.append(an_event("result", "t0000", step=5, metrics={"eval_loss": 2.5}))
        again = journal.append(an_event("result", "t0000", step=5, metrics={"eval_loss": 9.0}))
        journal.append(an_event("result", "t0001", step=5, metrics={"eval_loss": 9.0}))
        journal.append(an_event("attempt_started", "t0001", attempt=1))
        journal.append(an_event("attempt_started", "t0001", attempt=2))
    assert again == first
    assert len(read_events(path)) == 4
    with Journal(path) as journal:
        assert journal.append(an_event("result", "t0000", step=5, metrics={})) == first


def test_floats_come_back_bit_for_bit_and_the_file_is_strict_json(path: str) -> None:
    metrics = {"a": math.nan, "b": math.inf, "c": [-math.inf, 0.1 + 0.2], "d": 1e-300, "e": 3}
    with Journal(path) as journal:
        recorded = journal.append(an_event("result", "t0000", step=1, metrics=metrics))

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(Path(path).read_text(), parse_constant=refuse)
    for event in (recorded, read_events(path)[0]):
        assert math.isnan(event["metrics"].pop("a"))
        assert event["metrics"] == {"b": math.inf, "c": [-math.inf, 0.1 + 0.2], "d": 1e-300, "e": 3}


def test_half_a_character_neither_stops_a_driver_nor_a_reader(path: str) -> None:
    """As the name of a file that is no UTF-8 has it."""
    said = "no such file: a\udcff.txt, 👩"
    with Journal(path) as journal:
        (event,) = journal.append_all([trial_ended("t0000", "failed", said)])
    assert event["message"] == "no such file: a?.txt, 👩"
    line = json.dumps({"event": "trial_ended", "message": said}).encode()
    assert decode(line)["message"] == event["message"]


def test_numpy_scalars_are_written_as_numbers(path: str) -> None:
    numpy = pytest.importorskip("numpy")
    with Journal(path) as journal:
        journal.append(
            an_event("result", "t0000", step=numpy.int64(3), metrics={"a": numpy.float32(0.5)})
        )
    assert read_events(path)[0]["step"] == 3
    assert read_events(path)[0]["metrics"] == {"a": 0.5}


def test_a_journal_cut_after_any_byte_keeps_its_whole_lines(path: str) -> None:
    write_some(path)
    data, events = Path(path).read_bytes(), read_events(path)
    for length in range(len(data) + 1):
        Path(path).write_bytes(data[:length])
        whole = data[:length].count(b"\n")
        assert read_events(path) == events[:whole]
        with Journal(path) as journal:
            assert journal.events() == events[:whole]
            journal.append(an_event("sweep_ended"))
        assert [event["event"] for event in read_events(path)][whole:] == ["sweep_ended"]


def test_the_end_of_a_torn_line_without_its_beginning_is_dropped(path: str) -> None:
    write_some(path)
    with open(path, "ab") as file:
        file.write(b"\0" * 40 + b'"eval_loss": 2.0}}\n')
    with Journal(path) as journal:
        assert len(journal.events()) == 3


def test_damage_in_the_middle_names_the_line(path: str) -> None:
    write_some(path)
    lines = Path(path).read_bytes().splitlines(keepends=True)
    for damaged in (b'{"event": \n', b"\xff\xfe\n", b"[]\n", b'{"event": 3}\n', b'{"a": NaN}\n'):
        Path(path).write_bytes(lines[0] + damaged + lines[2])
        with pytest.raises(JournalError, match="line 2"):
            read_events(path)
        with pytest.raises(JournalError, match="line 2"):
            Journal(path)
    Path(path).write_bytes(b"".join(lines))
    Journal(path).close()  # the refused openings hold no lock


def test_a_second_driver_is_refused_and_told_who_holds_it(path: str) -> None:
    with Journal(path) as journal:
        journal.append(an_event("sweep_started"))
        with pytest.raises(JournalError, match=r"another driver .*process \d+ on"):
            Journal(path)
        assert len(read_events(path)) == 1  # readers need no lock
    Journal(path).close()


def test_the_lock_goes_with_a_killed_process(path: str) -> None:
    code = f"""
import time
from sftray.storage.journal.journal import Journal
journal = Journal({path!r})
journal.append({{"event": "sweep_started", "trial": None}})
print("ready", flush=True)
time.sleep(600)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    with pytest.raises(JournalError, match=str(child.pid)):
        Journal(path)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with Journal(path) as journal:
        assert len(journal.events()) == 1


def test_whose_lock_was_deleted_is_still_the_only_driver_and_stops(path: str) -> None:
    with Journal(path) as first:
        first.append(an_event("sweep_started"))
        Path(f"{path}.lock").unlink()
        with pytest.raises(JournalError, match="another driver is running this sweep"):
            Journal(path)
        with pytest.raises(
            JournalError, match=r"journal\.jsonl\.lock is not what .* opened"
        ) as error:
            first.append(an_event("sweep_ended"))
        assert error.value.hint
    assert [event["event"] for event in read_events(path)] == ["sweep_started"]


def moved(folder: Path) -> None:
    """The sweep's folder is renamed, and another sweep begins in its place."""
    folder.rename(folder.with_name("moved"))
    write_some(str(folder / "journal.jsonl"))


def saved_by_an_editor(folder: Path) -> None:
    text = (folder / "journal.jsonl").read_text()
    (folder / "new").write_text(text)
    (folder / "new").replace(folder / "journal.jsonl")


def appended_to(folder: Path) -> None:
    with open(folder / "journal.jsonl", "a") as file:
        file.write("{}\n")


@pytest.mark.parametrize("change", [shutil.rmtree, moved, saved_by_an_editor, appended_to])
def test_a_driver_whose_sweep_is_no_longer_there_writes_nothing(
    path: str, change: Callable[[Path], object]
) -> None:
    folder = Path(path).parent
    with Journal(path) as journal:
        journal.append(an_event("sweep_started"))
        journal.require_same()
        change(folder)
        before = Path(path).read_bytes() if folder.exists() else None
        for _ in range(2):
            with pytest.raises(JournalError, match="This driver stops here, and claims no result"):
                journal.append(an_event("sweep_ended"))
            with pytest.raises(JournalError, match="This driver stops here"):
                journal.require_same()
    assert (Path(path).read_bytes() if folder.exists() else None) == before


def test_a_journal_that_cannot_be_read_is_held_all_the_same(path: str) -> None:
    write_some(path)
    Path(path).write_text("no JSON\n{}\n")
    with held(path), pytest.raises(JournalError, match="another driver is running"), held(path):
        pass
    with held(path):
        pass


def test_a_write_that_fails_halfway_leaves_whole_lines(path: str) -> None:
    write_some(path)
    size = Path(path).stat().st_size
    code = f"""
import resource
from sftray.storage.journal.journal import Journal
journal = Journal({path!r})
result = {{"event": "result", "trial": "t0000", "step": 6}}
resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 100}, resource.RLIM_INFINITY))
try:
    journal.append({{**result, "metrics": {{"text": "x" * 500}}}})
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert len(journal.events()) == 3
journal.append({{**result, "metrics": {{"text": "y"}}}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert [event.get("metrics") for event in read_events(path)][3:] == [{"text": "y"}]


def test_a_journal_that_is_not_there_has_no_events(path: str) -> None:
    assert read_events(path) == []
    assert read_events(f"file://{path}") == []


def test_on_a_uri_every_write_is_an_object_of_its_own(path: str) -> None:
    uri = f"file://{path}"
    write_some(uri)
    with Journal(uri) as journal:
        journal.append_all([{"event": "sweep_ended"}, {"event": "sweep_ended"}, {"event": "x"}])
    assert sorted(one.name for one in Path(path).iterdir()) == [
        f"{number:08d}.jsonl" for number in range(6)
    ]
    assert len(Path(path, "00000005.jsonl").read_text().splitlines()) == 2
    assert [event["event"] for event in read_events(uri)][-2:] == ["sweep_ended", "x"]


def test_a_journal_is_followed_as_it_grows(path: str) -> None:
    follower = reader(path)
    assert follower.new() == []
    with Journal(path) as journal:
        first = journal.append(an_event("sweep_started"))
        assert follower.new() == [first]
        assert follower.new() == []
        with open(path, "ab") as file:
            file.write(b'{"event": "torn')
        assert follower.new() == []
    with Journal(path) as journal:
        second = journal.append(an_event("trial_suggested", "t0000", point={}))
        assert journal.events(since=1) == follower.new() == [second]
    lines = Path(path).read_bytes()
    Path(path).write_bytes(lines + b"no event\n{}\n")
    with pytest.raises(JournalError, match="line 3"):
        follower.new()


def test_a_journal_waits_where_its_storage_is_away_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A write that fails in its middle, on a network disk say, is made again and whole."""
    path = str(tmp_path / "journal.jsonl")
    with Journal(path) as journal:
        journal.append(an_event("sweep_started", uid="one"))
        real, failures = os.write, iter([7])

        def write(descriptor: int, data: bytes) -> int:
            for sent in failures:
                real(descriptor, data[:sent])
                raise OSError(errno.EIO, "Input/output error")
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", write)
        journal.append(an_event("result", "t0000", step=1, metrics={}))
    assert [event["event"] for event in read_events(path)] == ["sweep_started", "result"]
    assert "does not answer (Input/output error)" in caplog.text
    assert "answers again" in caplog.text
