"""What the driver itself costs a trial when there are many: searcher, journal, scheduler, recorder
and leaderboard, without Ray and with trials that take no time.

    python benchmarks/many_trials.py
    python benchmarks/many_trials.py --trials 250 500 1000 --scheduler none --folder s3://bucket/x
    python benchmarks/many_trials.py --ray

Each number of trials is a process of its own. A trial costs: milliseconds of the driver's CPU (the
disk's own time is left out), all told and by what takes them: asking the sampler; recording reports
and decisions; the trial's folder and the leaderboard. resume: milliseconds a trial until a new
driver has replayed the journal. MB: the driver's peak above what it had when it began.

With --ray the trials go through Ray Tune, four at once, and the driver is killed when half of them
have ended. Milliseconds a trial: the driver's CPU, and by the clock. MB: the driver's peak above
what it had when it began, the sweep's folder, Tune's own files. Seconds of the new driver, once Ray
is there: until the journal is replayed, until a trial reports. Last: the last line over the first.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from console import argument_parser, say

from benchmarks.empty_sweep import ROWS, reports, sweep_of
from sftray.config import SweepConfig, TrialConfig
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.storage.journal import Journal
from sftray.storage.paths import SweepPaths, join

SLOTS = 16


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--scheduler", default="asha", help="asha or none")
    parser.add_argument("--folder", help="where the sweeps are written; a temporary one by default")
    parser.add_argument("--ray", action="store_true", help="through Ray Tune, killed halfway")
    parser.add_argument("--measure", action="store_true", help="one number, in this process")
    given = parser.parse_args()
    if given.measure:
        say(json.dumps(measure(given.trials[0], given.scheduler, given.folder)))
        return
    if given.ray:
        through_ray(given.trials, given.scheduler)
        return
    say("trials  events  ms a trial:  all    ask  record  write  resume   MB")
    for trials in given.trials:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--measure", "--trials", str(trials)]
            command += ["--scheduler", given.scheduler, "--folder", given.folder or folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        each = [1000 * told[name] / trials for name in ("all", "ask", "record", "write", "resume")]
        numbers = "{:17.2f} {:6.2f} {:7.2f} {:6.2f} {:7.2f}".format(*each)
        say(f"{trials:6} {told['events']:7} {numbers} {told['megabytes']:4.0f}")


def through_ray(numbers: list[int], scheduler: str) -> None:
    from many_trials_ray import COLUMNS, measure, show

    say("trials  events  ms: cpu   clock  MB: driver folder  Tune's  s: replay  resume")
    table = []
    for trials in numbers:
        with tempfile.TemporaryDirectory(prefix="many-") as folder:
            table.append(measure(trials, scheduler, Path(folder)))
        show(trials, table[-1])
    first, last = table[0], table[-1]
    ratios = {name: last[name] / first[name] for name in COLUMNS}
    show_ratio = ", ".join(f"{name} × {ratio:.1f}" for name, ratio in ratios.items())
    say(f"trials × {numbers[-1] / numbers[0]:g}: {show_ratio}")


def measure(trials: int, scheduler: str, folder: str) -> dict[str, Any]:
    sweep = sweep_of(trials, scheduler)
    paths = SweepPaths(join(folder, f"many-{trials}"))
    plan = planner(sweep, ROWS, execution=ONE_ROW)
    clock = Clock()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with clock("all"), Journal(paths.journal) as journal:
        search = Search(sweep, journal, plan)
        recorder = Recorder(sweep, paths, journal, lambda line: None)
        drive(sweep, search, recorder, plan, clock)
        events = len(journal.events())
    with clock("resume"), Journal(paths.journal) as journal:
        search = Search(sweep, journal, plan)
        Recorder(sweep, paths, journal, lambda line: None)
        assert not search.unfinished()
        assert not search.remaining()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {**clock.seconds, "events": events, "megabytes": used / 1024}


class Clock:
    """Seconds by what took them."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.seconds[what] += time.process_time() - began


def drive(
    sweep: SweepConfig,
    search: Search,
    recorder: Recorder,
    plan: Callable[[TrialConfig], Any],
    clock: Clock,
) -> None:
    """As Tune drives them: a report at a time, and the recorder after each."""
    running: list[tuple[str, Iterator[dict[str, Any]]]] = []
    while True:
        while len(running) < SLOTS:
            with clock("ask"):
                suggestion = search.suggest()
            if suggestion is None:
                break
            search.attempt(suggestion.trial)
            trial = sweep.trial.at(suggestion.point)
            running.append((suggestion.trial, reports(trial, plan(trial))))
        if not running:
            return
        name, left = running.pop(0)
        metrics = next(left, None)
        with clock("record"):
            if metrics is None:
                search.returned(name)
            goes_on = metrics is not None and search.record(name, metrics) == "continue"
        with clock("write"):
            if metrics is not None:
                recorder.result(name, metrics)
            recorder.finish_trials()
        if goes_on:
            running.append((name, left))


if __name__ == "__main__":
    main()
