"""What is said of an error that Ray has wrapped, and that is nobody's fault here."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions
from ray.tune import TuneError
from small_disks import tmpfs

from sftray.cli.doctor import spilled
from sftray.cli.terminal import with_plain_errors
from sftray.cluster.ray_errors import plain
from sftray.errors import JournalError, OutageError
from sftray.storage.faults import plainly
from sftray.trainers.ray_train.worker import _last_words

FAULTS = (
    *(errno.EROFS, errno.ENOTCONN, errno.EREMOTEIO, errno.ENODEV, errno.EACCES, errno.ENOLCK),
    *(errno.EMFILE, errno.ENOMEM, errno.EIO, errno.ESTALE),
)
"""Faults of a machine, in none of which a trial has a part."""
FULL = OSError(errno.ENOSPC, "No space left on device", "/x/y")


def wrapped(error: Exception) -> ray.exceptions.RayTaskError:
    """As `ray.get` raises it."""
    return ray.exceptions.RayTaskError(
        "task", "Traceback: a lot of it", error, proctitle="task", pid=1, ip="127.0.0.1"
    ).as_instanceof_cause()


def raised_while(error: Exception, handling: Exception) -> Exception:
    """As Tune raises one while it handles another."""
    try:
        try:
            raise handling
        except Exception:
            raise error  # noqa: B904
    except Exception as found:
        return found


@pytest.mark.parametrize("name", ["ObjectStoreFullError", "OutOfDiskError"])
def test_a_full_object_store_is_told_with_what_to_change(name: str) -> None:
    error = getattr(ray.exceptions, name)("Failed to put object")
    for one in (error, wrapped(error), raised_while(TuneError("Traceback"), error)):
        found = plain(one, "/x")
        assert isinstance(found, OutageError)
        for word in ("object store is full", "--shm-size", "--object-store-memory",
                     "--object-spilling-directory", "same command to continue"):  # fmt: skip
            assert word in str(found)
        assert "Traceback" not in str(found)


@pytest.mark.parametrize(
    "wrap", [lambda e: e, wrapped, lambda e: raised_while(TuneError("Traceback"), e)]
)
def test_a_full_disk_is_told_wherever_it_was_met(wrap: Any) -> None:
    found = plain(wrap(FULL), "/tmp")
    assert isinstance(found, OutageError)
    assert str(found).startswith("/x/y: cannot be written, there is no room (No space left on")


@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
def test_a_fault_of_the_machine_is_told_with_its_fix_and_without_a_traceback(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError(number, os.strerror(number), "/x/y")

    def faulty() -> int:
        with plainly("/x", plain):
            raise wrapped(error)

    assert with_plain_errors(faulty) == 2
    first, hint, rest = capsys.readouterr().err.split("\n")
    assert first.startswith("error: /x/y: ")
    assert f"({os.strerror(number)})" in first
    assert hint.startswith("hint: ")
    assert hint.endswith(", and run the same command to continue")
    assert rest == ""


def test_a_library_s_words_name_the_fault_too() -> None:
    found = plain(Exception("I/O error: Read-only file system (os error 30)"), "/x")
    assert isinstance(found, OutageError)
    assert str(found).startswith("/x: its filesystem is read-only")
    for refused in (
        "When listing: AWS Error ACCESS_DENIED during ListObjectsV2 operation",
        "Generic S3 error: 403 Forbidden: <Code>InvalidAccessKeyId</Code>",
    ):
        assert str(plain(OSError(refused), "s3://b/x")).startswith("s3://b/x: refused (")


def test_ones_own_errors_come_out_of_rays_as_they_were() -> None:
    error = JournalError("another driver has taken this sweep over")
    assert plain(wrapped(error), "/tmp") is error
    assert plain(raised_while(TuneError("Traceback"), error), "/tmp") is error


def test_a_bug_is_not_taken_for_the_fault_that_it_followed() -> None:
    bug = raised_while(TypeError("a bug"), FULL)
    assert plain(bug, "/tmp") is bug
    tunes = TuneError("Traceback")
    assert plain(tunes, "/tmp") is tunes


def test_a_worker_says_of_a_full_disk_that_it_is_no_failure_of_its_trial() -> None:
    for number in (errno.ENOSPC, *FAULTS):
        assert _last_words(OSError(number, os.strerror(number), "/x"))[1] == "outage"
    safetensors = Exception("Error while serializing: I/O error: No space left (os error 28)")
    assert _last_words(safetensors)[1] == "outage"
    assert _last_words(ValueError("x"))[1] == "failure"


def test_the_command_line_says_it_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full() -> int:
        with plainly(str(tmp_path), plain):
            raise raised_while(TuneError("Traceback"), FULL)

    assert with_plain_errors(full) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: /x/y: cannot be written, there is no room")
    assert "\nhint: make room and run the same command to continue\n" in said
    assert said.count("\n") == 2


def test_the_doctor_sees_a_disk_that_ray_would_not_spill_to(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "spilled") as disk:
        if disk is None:
            pytest.skip("no right to mount a small disk")
        assert spilled(str(disk.folder)).level == "ok"
        disk.fill()
        assert spilled(str(disk.folder)).level == "problem"
