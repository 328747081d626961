"""Whatever a journal says, a sweep is shown, or refused in plain words; never a traceback."""

from __future__ import annotations

import copy
import io
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_folder import RECORDED
from rich.console import Console

from sftray.errors import SftrayError
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.results import load
from sftray.results.findings import learn, text
from sftray.results.leaderboard_text import confirmed_text, table, verdicts
from sftray.search.search import Search
from sftray.storage.journal import Journal, read_events
from sftray.storage.paths import SweepPaths
from sftray.views import plots
from sftray.views.live.live_view import view
from sftray.views.live.watched import Watched
from sftray.views.tracking.tensorboard_files import EventFiles

Event = dict[str, Any]
Change = Callable[[Event], Event | list[Event] | None]
LINES: list[Event] = [
    json.loads(line) for line in (RECORDED / "journal.jsonl").read_text().splitlines()
]


def changed(change: Change) -> list[Event]:
    events: list[Event] = []
    for event in copy.deepcopy(LINES):
        new = change(event)
        events += new if isinstance(new, list) else [new] if new is not None else []
    return events


def without(*names: str) -> Change:
    return lambda event: None if event["event"] in names else event


def of(name: str, **fields: Any) -> Change:
    return lambda event: {**event, **fields} if event["event"] == name else event


def measured(**metrics: Any) -> Change:
    def change(event: Event) -> Event:
        if event["event"] == "result":
            event["metrics"] |= metrics
        return event

    return change


LATER = {"event": "quantum_leap", "trial": None, "time": 2e9}
SHOWN: dict[str, Change] = {
    "as it is": lambda event: event,
    "nothing": lambda event: None,
    "only begun": lambda event: event if event["event"] == "sweep_started" else None,
    "one trial": lambda event: event if event["trial"] in (None, "t0000") else None,
    "all failed": lambda event: without("result", "decision")(
        {**event, "outcome": "failed", "message": "x\n" * 10_000}
        if event["event"] == "trial_ended" else event
    ),
    "no end": without("trial_ended", "sweep_ended"),
    "no suggestion": without("trial_suggested"),
    "decisions without results": without("result"),
    "every event twice": lambda event: [event, copy.deepcopy(event)],
    "the clock runs backwards": lambda event: {**event, "time": -event["time"]},
    "no clock": lambda event: {name: event[name] for name in event if name != "time"},
    "a clock of 1e300": lambda event: {**event, "time": 1e300},
    "events of a later version": lambda event: [event, LATER],
    "repetitions of an unknown trial": of("trial_suggested", confirms="t9999"),
    "repetitions of themselves": lambda event: (
        {**event, "confirms": event["trial"]} if event["event"] == "trial_suggested" else event
    ),
    "an unknown outcome": of("trial_ended", outcome="transcended"),
    "losses that are not numbers": measured(eval_loss="NaN", train_loss="NaN", grad_norm="NaN"),
    "infinite losses": measured(eval_loss="Infinity", train_loss="-Infinity"),
    "losses of 1e308": measured(eval_loss=1e308, train_loss=-1e308, grad_norm=1e308),
    "losses of 0": measured(eval_loss=0, train_loss=0, grad_norm=0, learning_rate=0, seconds=0),
    "no tokens": measured(tokens=0, rows=0, supervised_tokens=0),
    "ragged curves": measured(curve=[[1], [1, 2, 3, 4], [None] * 4, ["NaN"] * 4, [2, 3, 4, 1e308]]),
    "empty curves": measured(curve=[]),
    "no device": measured(device=None, attention=None, gpu_memory_gb=None, tokens_per_second=None),
}  # fmt: skip


def look(folder: Path) -> None:
    """As the commands do."""
    found = load(str(folder))
    json.dumps(found.leaderboard)
    table(found.leaderboard)
    confirmed_text(found.leaderboard)
    verdicts(found.leaderboard)
    text(learn(found))
    for tables in (found.trials, found.curves, found.rungs, found.best):
        assert tables is not None
    plots.learning_curves(found)
    plots.timeline(found)
    files = EventFiles(SweepPaths(str(folder)), folder / "tensorboard", found.config, "1f2e3d4c")
    for event in read_events(str(folder / "journal.jsonl")):
        files.apply(event)
    files.close()
    watched = Watched(str(folder))
    watched.catch_up()
    console = Console(file=io.StringIO(), width=100)
    console.print(view(watched.state(), 100, 30))


def folder_with(events: list[Event], folder: Path) -> Path:
    shutil.copy(RECORDED / "sweep.json", folder)
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


@pytest.mark.parametrize("change", SHOWN.values(), ids=SHOWN)
def test_an_odd_sweep_is_shown(change: Change, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        look(folder_with(changed(change), tmp_path))


@pytest.mark.parametrize(
    "change",
    [measured(eval_loss=None), measured(tokens=None), of("result", metrics={})],
    ids=["loss", "tokens", "all"],
)
def test_a_result_that_lacks_what_counts_is_refused(change: Change, tmp_path: Path) -> None:
    folder = folder_with(changed(change), tmp_path)
    with pytest.raises(SftrayError, match="the result of t0000 at step 0 has no"):
        load(str(folder))


def test_the_first_of_two_ends_stands_and_a_trial_is_begun_once(tmp_path: Path) -> None:
    again = [
        {**event, "outcome": "failed"}
        for event in LINES
        if event["event"] in ("trial_suggested", "trial_ended")
    ]
    found = load(str(folder_with([*LINES, *again], tmp_path)))
    assert found.leaderboard == load(str(RECORDED)).leaderboard


@pytest.mark.parametrize("missing", ["results", "order"])
def test_a_search_does_not_continue_from_what_it_would_not_have_done(
    missing: str, tmp_path: Path
) -> None:
    events = changed(without("result")) if missing == "results" else LINES[::-1]
    folder = folder_with(events, tmp_path)
    found = load(str(folder))
    plan = planner(found.config, found.record["data"]["train"]["rows"], execution=ONE_ROW)
    words = "nothing to be judged by" if missing == "results" else "would not suggest"
    with (
        Journal(str(folder / "journal.jsonl")) as journal,
        pytest.raises(SftrayError, match=words),
    ):
        Search(found.config, journal, plan)


RECORD = json.loads((RECORDED / "sweep.json").read_text())
DAMAGED = {
    "nothing": b"", "a list": b"[]", "null": b"null", "no text": bytes(range(128, 255)),
    "half": json.dumps(RECORD).encode()[:300], "deep": b"[" * 100_000,
    **{f"no {name}": json.dumps({k: v for k, v in RECORD.items() if k != name}).encode()
       for name in ("config", "search_space", "packs", "data")},
    "a time that is none": json.dumps({**RECORD, "started": "yesterday"}).encode(),
    "packs of a number": json.dumps({**RECORD, "packs": 7}).encode(),
    "no rows": json.dumps({**RECORD, "data": {"train": {"rows": 0}}}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("record", DAMAGED.values(), ids=DAMAGED)
def test_a_record_that_is_damaged_is_refused_by_name(record: bytes, tmp_path: Path) -> None:
    folder = folder_with(LINES, tmp_path)
    (folder / "sweep.json").write_bytes(record)
    for read in (load, lambda path: Watched(path).catch_up()):
        with pytest.raises(SftrayError, match=r"sweep\.json: got"):
            read(str(folder))
