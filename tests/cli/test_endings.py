"""How commands end: by signals, and by mistakes in a sweep file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftray.cli.terminal import Stop


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("sigint", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_interrupts_as_ctrl_c_does_and_is_143(
    sigint: signal.Handlers, capsys: pytest.CaptureFixture[str]
) -> None:
    signal.signal(signal.SIGINT, sigint)  # ignored in the background of a script
    stop = Stop(lambda: print("the leaderboard"))  # noqa: T201
    assert stop.finish_if_terminated() is None
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` does
    assert [stop.finish(), stop.finish(), stop.finish_if_terminated()] == [143] * 3
    said = capsys.readouterr()
    assert said.out == "the leaderboard\n"
    assert said.err == "\ninterrupted: run the same command to continue\n"


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert Stop(lambda: None).finish() == 130
    assert capsys.readouterr().err == "\ninterrupted: run the same command to continue\n"


WHOLE = 'SweepConfig(name="x", data=DataConfig("d"), trial=TrialConfig("m"), '
MISTAKES = {
    f"{WHOLE}num_trial=3)": "configuration: SweepConfig has no field 'num_trial'",
    'SweepConfig(name="x", data=DataConfig("d"))': "missing a required argument: 'trial'",
    'SweepConfig(name="x", data="d", trial="m")': "data: got 'd', must be a DataConfig(…)",
    f"{WHOLE}search_space=[1])": "search_space: got [1], must be names with their values",
    f"{WHOLE}search_space={{8: choice([8])}})": "TrialConfig has no field 8",
    f"{WHOLE}points=8)": "points: got 8, must be a list",
    f'{WHOLE}points={{"lora_r": 8}})': "points: got {'lora_r': 8}, must be a list",
    f"{WHOLE}points=[8])": "points: got 8, must be a list of points",
    f"{WHOLE}rungs=0.5)": "rungs: got 0.5, must be ",
    "choice(8)": "choice: got 8, must be a list, as in choice([8, 16])",
    "choice(8, 16)": "TypeError: choice() takes 1 positional argument",
    "choise([8])": "NameError: name 'choise' is not defined",
    "from sftray import choise": "ImportError: cannot import name 'choise'",
    'launch("x")': "launch: got 'x', must be a SweepConfig(…)",
}


def test_a_mistake_in_a_sweep_file_is_one_message_with_its_line(tmp_path: Path) -> None:
    """All in one process: each is run as the file that was started."""
    runner = (
        "import contextlib, runpy, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        runpy.run_path(path, run_name='__main__')\n"
        "    except Exception as error:\n"
        "        with contextlib.suppress(SystemExit):\n"
        "            sys.excepthook(type(error), error, error.__traceback__)\n"
    )
    files = []
    for number, mistake in enumerate(MISTAKES):
        file = tmp_path / f"{number}.py"
        file.write_text(f"from sftray import *\n\n{mistake}\n")
        files.append(str(file))
    done = subprocess.run(
        [sys.executable, "-c", runner, *files], capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
    for file, line, expected in zip(files, said, MISTAKES.values(), strict=True):
        assert line.startswith(f"error: {file}, line 3: ")
        assert expected in line


def test_the_process_of_a_sweep_file_with_a_mistake_ends_with_2(tmp_path: Path) -> None:
    file = tmp_path / "sweep.py"
    file.write_text("from sftray import choice\nchoice(8)\n")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {file}, line 2: choice: got 8, must be a list, as in choice([8, 16])\n"
    )
