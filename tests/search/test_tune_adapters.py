"""The search behind a real Ray Tune, with trials that report formulas."""

from __future__ import annotations

import math
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_trials import make_search, make_sweep, reports
from ray import tune

from sftray.config import SweepConfig, choice, loguniform
from sftray.config.config_json import sweep_from_json, to_json
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.storage.journal import Event, Journal, read_events
from sftray.storage.journal.event_types import Outcome

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

SWEEP = make_sweep(
    num_trials=8,
    search_space={
        "learning_rate": loguniform(1e-5, 1e-2),
        "effective_batch_size": choice([2, 4]),
    },
)


def trainable(config: dict[str, Any]) -> None:
    """Report a trial's formula; misbehave as `config` says for the trial."""
    sweep = sweep_from_json(config["sweep"])
    manner = config["manners"].get(config["trial"], "")
    if manner == "silent":
        return
    if manner == "gives up":
        tune.report({"outcome": "preempted", "message": "no step was taken"})
        return
    if manner == "full disk":
        tune.report({"outcome": "outage", "message": "/disk: there is no room"})
        return
    *earlier, last = reports(sweep, config["point"])
    for number, report in enumerate(earlier):
        tune.report(report)
        if manner == "raises" and number == 2:
            raise RuntimeError("the optimizer fell over")
        if manner == "dies once" and number == 2 and not os.path.exists(config["mark"]):
            Path(config["mark"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if manner == "waits" and number == 2:
            Path(config["mark"]).touch()
            time.sleep(600)
    outcome = manner if manner in [*Outcome] else "completed"
    tune.report(last | {"outcome": outcome, "message": "said by the trial"})


class WhenThere(tune.Stopper):
    """Ends a sweep when a file is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._path.exists()


def fit(
    path: Path,
    sweep: SweepConfig,
    manners: dict[str, str] | None = None,
    max_results: float = math.inf,
    **run: Any,
) -> list[Event]:
    """max_results: a budget."""
    from sftray.search.tune_adapters import SftrayScheduler, SftraySearcher

    journal_path = str(path / "journal.jsonl")
    extra = {"sweep": to_json(sweep), "manners": manners or {}, "mark": str(path / "mark")}
    with Journal(journal_path) as journal:

        def spent() -> str:
            results = sum(event["event"] == "result" for event in journal.events())
            return "max_results" if results >= max_results else ""

        search = make_search(sweep, journal, spent=spent)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0.5}),
            tune_config=tune.TuneConfig(
                search_alg=SftraySearcher(search, extra),
                scheduler=SftrayScheduler(search),
                num_samples=-1,
                max_concurrent_trials=2,
                trial_dirname_creator=lambda trial: str(trial.config["trial"]),
            ),
            run_config=tune.RunConfig(name="tune", storage_path=str(path), verbose=0, **run),
        ).fit()
    return read_events(journal_path)


def outcomes(events: list[Event]) -> dict[str, str]:
    return {e["trial"]: e["outcome"] for e in events if e["event"] == "trial_ended"}


def test_a_sweep_through_tune_ends_every_trial_once(tmp_path: Path) -> None:
    events = fit(tmp_path, SWEEP)
    ended = Counter(event["trial"] for event in events if event["event"] == "trial_ended")
    assert ended == {f"t{number:04d}": 1 for number in range(8)}
    assert set(outcomes(events).values()) == {"completed", "pruned"}
    stopped = {e["trial"] for e in events if e["event"] == "decision" and e["decision"] == "stop"}
    assert stopped == {trial for trial, how in outcomes(events).items() if how == "pruned"}
    metrics = next(event["metrics"] for event in events if event["event"] == "result")
    assert set(metrics) == set(next(reports(SWEEP, {})))  # and nothing of Tune's


def test_each_way_to_end_has_its_outcome_and_verdict_and_the_sweep_goes_on(tmp_path: Path) -> None:

    manners = {
        "t0000": "silent",
        "t0001": "raises",
        "t0002": "dies once",
        "t0003": "out_of_memory",
        "t0004": "gives up",
    }
    diverges = {"learning_rate": 8e-2}
    sweep = make_sweep(points=({}, {}, {}, {}, {}, diverges, {}), scheduler="none")
    events = fit(tmp_path, sweep, manners, failure_config=tune.FailureConfig(max_failures=1))
    assert outcomes(events) == {
        "t0000": "failed",
        "t0001": "failed",
        "t0002": "completed",
        "t0003": "out_of_memory",
        "t0004": "preempted",
        "t0005": "diverged",
        "t0006": "completed",
    }
    last_words = {e["trial"]: e["message"] for e in events if e["event"] == "trial_ended"}
    assert last_words["t0001"] == "RuntimeError: the optimizer fell over"
    assert last_words["t0003"] == "said by the trial"
    attempts = Counter(e["trial"] for e in events if e["event"] == "attempt_started")
    assert [attempts[f"t{number:04d}"] for number in range(7)] == [1, 2, 2, 1, 1, 1, 1]
    verdicts = {
        row["trial"]: row["diagnosis"] for row in leaderboard(sweep, Records(events))["trials"]
    }
    assert verdicts["t0002"] == verdicts["t0006"]
    assert verdicts["t0000"] == verdicts["t0001"] == "failed"
    others = [verdicts[f"t{number:04d}"] for number in (3, 4, 5)]
    assert others == ["out_of_memory", "preempted", "diverged"]


def test_damaged_data_stops_the_sweep_and_mended_it_goes_on(tmp_path: Path) -> None:
    sweep = make_sweep(points=tuple({"seed": k} for k in range(12)), scheduler="none")
    events = fit(tmp_path, sweep, {"t0000": "data_error"})
    ended = outcomes(events)
    assert ended.pop("t0000") == "data_error"
    assert set(ended.values()) <= {"completed"}, "those that ran beside it end well or not at all"
    board = leaderboard(sweep, Records(events))
    assert {row["diagnosis"] for row in board["trials"] if row["trial"] == "t0000"} == {
        "data_error"
    }
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        search = make_search(sweep, journal)  # the data has been mended
        assert search.damaged == ""
        assert search.remaining() == 11 - len(ended) >= 8


def test_a_full_disk_stops_the_sweep_and_no_trial_is_to_blame(tmp_path: Path) -> None:
    sweep = make_sweep(points=tuple({"seed": k} for k in range(12)), scheduler="none")
    ended = outcomes(fit(tmp_path, sweep, {"t0000": "full disk"}))
    assert "t0000" not in ended
    assert set(ended.values()) <= {"completed"}
    with Journal(str(tmp_path / "journal.jsonl")) as journal:
        search = make_search(sweep, journal)  # there is room again
        assert not search.stopped
        assert search.remaining() == 12 - len(ended) >= 9


def test_with_its_budget_a_sweep_through_tune_ends_and_no_trial_does(tmp_path: Path) -> None:
    points = tuple({"learning_rate": 10**-n} for n in range(2, 8))
    sweep = make_sweep(points=points, scheduler="none")
    first = fit(tmp_path, sweep, max_results=4)
    begun = {e["trial"] for e in first if e["event"] == "attempt_started"}
    assert outcomes(first) == {}
    assert len(begun) == 2  # as many as run at once
    events = fit(tmp_path, sweep)
    assert outcomes(events) == dict.fromkeys([f"t{number:04d}" for number in range(6)], "completed")
    results = Counter((e["trial"], e["step"]) for e in events if e["event"] == "result")
    assert set(results.values()) == {1}


def test_what_a_stopped_sweep_left_unfinished_is_run_first(tmp_path: Path) -> None:
    sweep = make_sweep(points=({}, {"learning_rate": 3e-4}, {"lora_r": 4}), scheduler="none")
    # a sweep's end by a stopper, like Ctrl-C, tells neither searcher nor scheduler
    first = fit(tmp_path, sweep, {"t0000": "waits"}, stop=WhenThere(tmp_path / "mark"))
    assert "t0000" not in outcomes(first)
    events = fit(tmp_path, sweep)
    assert set(outcomes(events).values()) == {"completed"}
    assert events[: len(first)] == first
    assert events[len(first)]["event"] == "attempt_started"
    assert events[len(first)]["trial"] == "t0000"
    results = Counter((e["trial"], e["step"]) for e in events if e["event"] == "result")
    assert set(results.values()) == {1}
