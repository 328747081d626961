"""The live view: of a recorded sweep at any moment, at 80 columns, and as plain lines in a pipe."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from events import an_event
from fake_trials import make_sweep
from rich.console import Console

from sftray.cli.main import main
from sftray.storage.journal import Journal, read_events
from sftray.views.live import shown, watch
from sftray.views.live.live_view import duration, sparkline, view
from sftray.views.live.screen import _Screen
from sftray.views.live.snapshot import State, TrialLine
from sftray.views.live.watched import Watched

RECORDED = Path(__file__).parents[2] / "recorded" / "lr_batch"
EVENTS = read_events(str(RECORDED / "journal.jsonl"))
PRUNED, CONFIRMING = 55, 134
"""Events until some trials had ended, the last of them an end, and until repetitions ran."""
BEST = json.loads((RECORDED / "leaderboard.json").read_text())["best"]


def seconds(event: Any) -> float:
    return float(event["time"] - EVENTS[0]["time"])


def line_of(event: Any) -> str:
    """A trial's end as the log has it."""
    words = f"{event['trial']}  {event['outcome']} ({event['message']})"
    return f"{seconds(event):7.1f}s  {words}"


def cut(folder: Path, events: int | None) -> Path:
    """A copy of the recorded sweep as it was after so many events."""
    lines = (RECORDED / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[:events]))
    (folder / "sweep.json").write_text((RECORDED / "sweep.json").read_text())
    return folder


def state(folder: Path, events: int, seconds: float = 3.0) -> State:
    """The state so many seconds after an event."""
    watched = Watched(str(cut(folder, events)), now=lambda: EVENTS[events - 1]["time"] + seconds)
    watched.catch_up()
    return watched.state()


def drawn(state: State, width: int, height: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view(state, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.slow
def test_a_view_is_never_wider_nor_higher_than_the_screen(tmp_path: Path) -> None:
    for events in range(1, len(EVENTS) + 1, 10):
        now = state(tmp_path, events)
        for width, height in ((80, None), (80, 24), (120, 40), (60, 24)):
            lines = drawn(now, width, height)
            assert max(map(len, lines)) <= width
            assert height is None or len(lines) <= height
            assert not any("…" in line for line in lines if line.startswith(("*t", " t")))


def test_a_view_tells_the_sweep_its_trials_and_what_was_logged(tmp_path: Path) -> None:
    lines = drawn(state(tmp_path, PRUNED), 80)
    assert lines[0].startswith("lr_batch  training")
    elapsed = duration(seconds(EVENTS[PRUNED - 1]) + 3)
    assert re.search(rf" {elapsed} elapsed, ≈ [1-9]\d?:\d\d left$", lines[0])
    assert lines[1] == "trials  5 of 22 ended, 4 running"
    assert re.fullmatch(r"tokens  [\d,]+ of ≈ [\d,]+ at [\d,]+ tok/s", lines[2])
    assert re.fullmatch(r"CPU     0\.\d\d busy on average", lines[3])
    assert re.match(
        r"best    t\d{4}: eval loss \d\.\d{4} at step \d+, \d\.\d{4} below the", lines[4]
    )
    assert lines[6].split() == [
        "trial",
        "point",
        "step",
        "rung",
        "train",
        "eval",
        "losses",
        "outcome",
    ]
    table = [line.split() for line in lines[7:16]]
    best = lines[4].split()[1].rstrip(":")
    (marked,) = [row for row in table if row[0].startswith("*")]
    assert (marked[0], marked[-1]) == (f"*{best}", "running")
    assert [row[-1] for row in table] == ["running"] * 3 + ["starting"] + ["pruned"] * 5
    ended = [float(row[-3]) for row in table[4:]]
    assert ended == sorted(ended)
    assert lines[-1] == line_of(EVENTS[PRUNED - 1])
    wide = drawn(state(tmp_path, PRUNED), 120)
    assert wide[5].split()[2:6] == ["step", "rows", "tokens", "tok/s"]
    assert re.search(rf"{best}  step +\d+  rows +\d+  train \d\.\d{{4}}  eval", "\n".join(wide))


def test_on_a_low_screen_the_worst_trials_are_counted(tmp_path: Path) -> None:
    lines = drawn(state(tmp_path, len(EVENTS)), 80, 24)
    trials = [line for line in lines if line.startswith(("*t", " t0"))]
    assert trials[0].startswith(f"*{BEST}")
    (more,) = [line for line in lines if line.startswith("… and ")]
    assert len(trials) + sum(int(word) for word in more.split() if word.isdigit()) == 22
    assert "diverged" not in more


def test_a_point_with_many_axes_is_wrapped_and_no_value_is_cut() -> None:
    point = {"learning_rate": 8.4e-05, "effective_batch_size": 16, "num_train_epochs": 2.0,
             "warmup_ratio": 0.03, "lora_r": 64, "lora_target_modules": "all-linear"}  # fmt: skip
    row = TrialLine("t0001", point, 1250, 5000, 20000, 40_960_000, 2, 3, 1.2345, 1.1234,
              (1.4, 1.2, float("nan")), 12345.0, "out_of_memory")  # fmt: skip
    lines = drawn(State("wide", "training", 4000.0, finished=(row,), total=9), 80)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for value in ("lr=8.4e-05", "batch=16", "epochs=2", "warmup=0.03", "rank=64", "1250/5000"):
        assert value in text
    assert "lora_target_modules" not in text or "all-linear" in text.replace("\n", "")
    assert "█▁×" in text
    assert "no memory" in text
    assert "1:06:40 elapsed" in text


def test_time_that_no_driver_ran_is_not_counted(tmp_path: Path) -> None:
    before, day = state(tmp_path, PRUNED), 86400.0
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    time = EVENTS[PRUNED - 1]["time"] + day
    again = {"event": "attempt_started", "trial": "t0003", "attempt": 2, "time": time}
    (tmp_path / "journal.jsonl").write_text("\n".join([*lines, json.dumps(again), ""]))
    watched = Watched(str(tmp_path), now=lambda: time + 3)
    watched.catch_up()
    after = watched.state()
    assert after.elapsed == pytest.approx(before.elapsed, abs=0.01)
    assert (after.left, after.busy) == (pytest.approx(before.left), before.busy)
    quiet = replace(before, quiet=3600.0)
    assert "; nothing was reported for 1:00:00" in drawn(quiet, 80)[1]


def test_what_is_spent_and_left_of_budgets_is_told(tmp_path: Path) -> None:
    cut(tmp_path, PRUNED)
    record = json.loads((tmp_path / "sweep.json").read_text())
    record["config"] |= {"max_hours": 2.0, "max_cost": 9.0, "price_per_gpu_hour": 2.5}
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    time, day = EVENTS[PRUNED - 1]["time"], 86400.0
    before = [one for one in EVENTS[:PRUNED] if one["event"] == "spent"]
    spent = before[-1]["wall_seconds"] + time - before[-1]["time"]
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        for attempt, at, wall, budget in (
            (11, time, spent, ""),
            (12, time + day, spent, ""),  # the next driver's first word
            (13, time + day + 60, 7250.0, "max_hours"),
        ):
            told = {"wall_seconds": wall, "gpu_seconds": 2 * wall, "budget": budget}
            journal.append(an_event("spent", attempt=attempt, **told, time=at))
    watched = Watched(str(tmp_path), now=lambda: time + day + 60)
    watched.catch_up()
    state = watched.state()
    assert watched.over
    assert state.elapsed == pytest.approx(time - EVENTS[0]["time"] + 60, abs=0.01)
    lines = drawn(state, 80)
    assert lines[0].startswith("lr_batch  max_hours is used up")
    assert lines[1] == "trials  5 of 22 ended, 4 unfinished"
    assert " left" not in lines[0]
    assert "spent   2.01 of 2 hours (0.00 left), 4.03 GPU-hours, 10.07 of 9 at 2.5 a" in lines


def test_what_is_expected_comes_down_to_what_was_trained(tmp_path: Path) -> None:
    early, late, end = (state(tmp_path, n) for n in (PRUNED, CONFIRMING, len(EVENTS)))
    assert (early.total, late.total, end.total) == (22, 22, 22)
    assert (early.doing, late.doing, end.doing) == ("training", "confirming", "ended")
    tokens = end.tokens
    assert tokens == sum(t["tokens"] for t in json.loads(
        (RECORDED / "leaderboard.json").read_text())["trials"])  # fmt: skip
    assert early.tokens_expected == pytest.approx(tokens, rel=0.1)
    assert late.tokens_expected == pytest.approx(tokens, rel=0.03)
    assert end.tokens_expected == tokens
    assert end.best is not None
    assert end.best.trial == json.loads((RECORDED / "leaderboard.json").read_text())["best"]


def test_before_the_data_is_packed_there_is_a_line(tmp_path: Path) -> None:
    watched = Watched(str(tmp_path / "new"), make_sweep(), now=lambda: 5.0)
    assert watched.catch_up() == []
    assert drawn(watched.state(("    0.1s  started Ray",)), 80) == [
        "new  packing…" + "0:00 elapsed".rjust(80 - len("new  packing…")),
        "─" * 80,
        "    0.1s  started Ray",
    ]


def test_the_last_view_stays_and_what_others_print_does_not_tear_it(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, height=30, force_terminal=True)
    watched = Watched(str(cut(tmp_path, PRUNED)), now=lambda: EVENTS[PRUNED - 1]["time"])

    def interrupted() -> None:
        with _Screen(console, watched) as screen:
            sys.stdout.write("a library's line\n")
            sys.stderr.write("another's\n")
            screen.log("warning: few steps")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for line in ("a library's line\n", "another's\n", "warning: few steps\n"):
        assert text.count(line) == 1
    last = text[text.rindex("lr_batch") :]
    assert "trials  5 of 22 ended, 4 running" in last
    assert last.rstrip().endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_view_that_fails_does_not_stop_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with _Screen(console, Watched(str(tmp_path)), deque()) as screen:
        screen.log("t0000  completed")


def test_in_a_pipe_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(make_sweep(), plain=False) as log:
        log("t0000  completed")
    assert capsys.readouterr().out.split("s  ", 1)[1] == "t0000  completed\n"


def test_watching_in_a_pipe_says_what_the_driver_said(capsys: pytest.CaptureFixture[str]) -> None:
    watch(str(RECORDED), plain=False)
    lines = capsys.readouterr().out.splitlines()
    (end,) = [one for one in EVENTS if one["event"] == "sweep_ended"]
    assert lines[-1] == f"{seconds(end):7.1f}s  the sweep has ended"
    assert line_of(EVENTS[PRUNED - 1]) in lines
    said = [line for line in lines if "t0003" in line]
    assert re.search(r"started: .*learning_rate=[\d.]+.*  \[cpu", said[0])
    assert said[1].endswith(" tok/s")


def test_a_sweep_on_a_uri_is_watched_as_well(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "sweep.json").write_text((RECORDED / "sweep.json").read_text())
    with Journal(f"file://{tmp_path}/journal.jsonl") as journal:
        journal.append_all(EVENTS)
    watch(f"file://{tmp_path}", plain=False)
    lines = capsys.readouterr().out.splitlines()
    told = [one for one in EVENTS if one["event"] in ("result", "trial_ended")]
    assert len([line for line in lines if "  t00" in line]) == len(told)
    assert lines[-1].endswith("  the sweep has ended")


def test_there_must_be_a_sweep_to_watch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["watch", str(tmp_path)])
    assert "got no sweep.json" in capsys.readouterr().err


def test_durations_and_sparklines() -> None:
    assert [duration(s) for s in (7, 187, 3787, 187_200, 400_000)] == [
        "0:07", "3:07", "1:03:07", "52:00:00", "4 d 15 h",
    ]  # fmt: skip
    assert sparkline([3.0, 2.0, 1.0, 9.0, float("inf")], 1.0, 3.0) == "█▅▁█×"
    assert sparkline([2.0], 2.0, 2.0) == "▁"
