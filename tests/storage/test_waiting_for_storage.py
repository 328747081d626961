"""Storage that is away for a while: it is waited for, said once, and nothing is lost or twice."""

from __future__ import annotations

import errno
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from events import an_event, timeless
from fake_trials import make_search, make_sweep, run
from flaky import Line, line_to_s3
from s3_server import s3_server

from sftray.errors import ConfigError, JournalError, OutageError
from sftray.storage import files, outages
from sftray.storage.journal import Event, Journal, read_events
from sftray.storage.journal.events import encode
from sftray.storage.paths import join

# as pyarrow 26, obstore 0.12 and NFS say it
AWAY = (
    OSError(
        "When reading information for key 'a/x' in bucket 'b': AWS Error NETWORK_CONNECTION during "
        "HeadObject operation: curlCode: 7, Could not connect to server"
    ),
    OSError("When listing: AWS Error SLOW_DOWN during ListObjectsV2 operation: reduce your rate"),
    OSError("AWS Error UNKNOWN (HTTP status 503) during PutObject operation: No response body."),
    OSError(
        "s3://b/a/y: Generic S3 error: Error performing PUT http://127.0.0.1/b/a/y in 2.8s, after "
        "1 retries - HTTP error: error sending request"
    ),
    OSError(
        "google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of "
        "PerformWork() - CURL error [7]=Could not connect to server error_info={reason=, domain="
    ),
    *(
        OSError(number, os.strerror(number))
        for number in (
            *(errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EREMOTEIO, errno.ENODEV, errno.ENOLCK),
            *(errno.EMFILE, errno.ENOMEM),
        )
    ),
)
FOR_GOOD = (
    OSError("When reading: AWS Error ACCESS_DENIED during HeadObject operation: No response body."),
    OSError("Bucket 'none' not found. To create buckets, enable the allow_bucket_creation option."),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PermissionError(errno.EACCES, "Permission denied"),
    OSError(errno.EROFS, "Read-only file system"),
    ConfigError("storage: connection closed"),
)


class Time:
    """A clock that is moved by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def failing(times: float, error: Exception, time: Time | None = None) -> Callable[[], str]:
    """An operation that fails so many times, or until such a time, and then works."""
    tries = iter(range(10_000))

    def operation() -> str:
        if next(tries) < times if time is None else time.now < times:
            raise error
        return "done"

    return operation


@pytest.fixture
def place() -> str:
    return f"s3://{uuid.uuid4().hex}"


@pytest.mark.parametrize("error", AWAY, ids=lambda error: str(error)[-20:])
def test_storage_that_is_away_for_30_s_is_waited_for_and_said_once(
    place: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    moved = Time()
    done = outages.patiently(place, failing(30, error, moved), sleep=moved.sleep, clock=moved.clock)
    assert done == "done"
    assert 30 <= moved.now < 30 + outages._LONGEST_PAUSE
    assert 4 < len(moved.pauses) < 12, "neither a flood of questions nor a long sleep"
    assert len({round(pause / 2**n, 3) for n, pause in enumerate(moved.pauses)}) > 3, "by chance"
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"{place} does not answer (")
    assert first.endswith("); trying again for 5 minutes")
    assert last == f"{place} answers again, after {moved.now:.0f} s"


@pytest.mark.parametrize("error", FOR_GOOD, ids=lambda error: type(error).__name__)
def test_what_does_not_pass_is_raised_at_once(place: str, error: Exception) -> None:
    moved = Time()
    with pytest.raises(type(error)) as raised:
        outages.patiently(place, failing(1, error), sleep=moved.sleep, clock=moved.clock)
    assert raised.value is error
    assert moved.pauses == []


def test_patience_ends_in_plain_words_and_for_all_who_wait(place: str) -> None:
    moved = Time()

    def wait() -> None:
        outages.patiently(place, failing(1e9, AWAY[0]), sleep=moved.sleep, clock=moved.clock)

    words = rf"{place} does not answer \(.*NETWORK_CONNECTION.*5 minutes.*same command to continue"
    with pytest.raises(OutageError, match=words):
        wait()
    assert outages.PATIENCE_SECONDS <= moved.now < outages.PATIENCE_SECONDS + 15
    before = moved.now
    with pytest.raises(OutageError):
        wait()
    assert moved.now == before, "what ends with the sweep does not wait again"


def test_the_limit_of_pyarrows_own_tries_is_no_part_of_a_path_on_google_storage() -> None:
    filesystem, inner = files.resolve("gs://anonymous@bucket/sweeps/one")
    assert (filesystem.type_name, inner) == ("gcs", "bucket/sweeps/one")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("sweeps") as address:
        yield address


@pytest.fixture
def line(bucket: str) -> Iterator[Line]:
    with line_to_s3() as found:
        yield found


@pytest.fixture
def path(bucket: str) -> str:
    return join(bucket, uuid.uuid4().hex, "journal.jsonl")


@contextmanager
def back_when_waited_for(line: Line) -> Iterator[None]:
    """Restore the line as soon as somebody says that storage does not answer."""
    logger, handler = logging.getLogger("sftray"), logging.Handler()
    handler.emit = lambda record: line.restore()  # type: ignore[method-assign]
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


class CutOff(Journal):
    """A journal whose line is cut before its 9th and its 21st event."""

    def __init__(self, path: str, line: Line) -> None:
        super().__init__(path)
        self._line, self._cuts = line, [8, 20]

    def append_all(self, events: Sequence[Event]) -> list[Event]:
        if self._cuts and len(self.events()) >= self._cuts[0]:
            self._cuts.pop(0)
            self._line.cut_off()
        return super().append_all(events)


def test_events_are_there_once_though_storage_was_away(
    line: Line, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Journal(path) as journal, back_when_waited_for(line):
        journal.append(an_event("sweep_started", uid="one"))
        line.cut_off()
        journal.append(an_event("trial_suggested", "t0000", point={}))
        assert not line.cut
        journal.append(an_event("sweep_ended"))
    told = [event["event"] for event in read_events(path)]
    assert told == ["driver_started", "sweep_started", "trial_suggested", "sweep_ended"]
    said = [record.getMessage() for record in caplog.records if record.name == "sftray"]
    assert [one.partition(" (")[0].partition(",")[0] for one in said] == [
        "s3://sweeps does not answer",
        "s3://sweeps answers again",
    ]


def test_an_event_whose_answer_was_lost_is_there_once(line: Line, path: str) -> None:
    with Journal(path) as journal:
        line.lose_answers(1)
        journal.append(an_event("sweep_started", uid="one"))
        assert line.answers_to_lose == 0
        assert len(files.list_names(path)) == 2
        journal.append(an_event("sweep_ended"))
    told = [event["event"] for event in read_events(path)]
    assert told == ["driver_started", "sweep_started", "sweep_ended"]


def test_a_driver_that_was_cut_off_is_fenced_when_another_has_taken_over(
    line: Line, path: str
) -> None:
    """The number that it tries again when storage is back is another's by then."""
    import boto3

    journal = Journal(path)
    line.cut_off()

    def take_over() -> None:
        host, port = line.server
        bucket, _, key = join(path, "00000001.jsonl").removeprefix("s3://").partition("/")
        event = {"event": "driver_started", "trial": None, "time": 1.0, "attempt": 2, "owner": "b"}
        there = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        there.put_object(Bucket=bucket, Key=key, Body=encode(event))
        line.cut = False

    threading.Timer(0.3, take_over).start()
    with pytest.raises(JournalError, match="another driver has taken this sweep over"):
        journal.append(an_event("sweep_started", uid="one"))
    journal.close()


def test_when_patience_ends_the_journal_is_whole_and_goes_on(line: Line, path: str) -> None:
    with Journal(path) as journal:
        line.cut_off()
        with outages.patience(0.3), pytest.raises(OutageError, match="s3://sweeps does not answer"):
            journal.append(an_event("sweep_started", uid="one"))
        line.cut = False
        journal.append(an_event("sweep_started", uid="two"))
    assert [e.get("uid") for e in read_events(path) if e["event"] == "sweep_started"] == ["two"]


@pytest.mark.slow
def test_a_whole_search_whose_storage_comes_and_goes_ends_as_on_a_disk(
    line: Line, path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = make_sweep(num_trials=4)
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        run(sweep, make_search(sweep, journal), slots=1)
        expected = journal.events()
    with CutOff(path, line) as journal, back_when_waited_for(line):
        run(sweep, make_search(sweep, journal), slots=1)
    assert caplog.text.count("s3://sweeps answers again") == 2
    told = ("trial_suggested", "result", "decision", "trial_ended")
    assert timeless(read_events(path), told) == timeless(expected, told)


@pytest.mark.slow
def test_a_file_on_storage_that_comes_back_is_read(
    line: Line, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    """pyarrow itself tries for 6 s before the line is back."""
    path = join(bucket, uuid.uuid4().hex)
    files.write_text(path, "old")
    line.cut_off()
    with back_when_waited_for(line):
        assert files.read_text(path) == "old"
    assert "s3://sweeps answers again" in caplog.text


def test_a_right_that_is_missing_ends_in_plain_words_at_once() -> None:
    @files.patient
    def read(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    words = r"/x/y: it may not be used \(Permission denied\); give this user the right to it"
    with pytest.raises(OutageError, match=words):
        read("/x/y")
