"""A sweep whose storage is away for 30 s in its middle, and whose driver is suspended for ten
minutes now and then (by a clock of ours): what docs/reliability.md says of it, and how to have it
again.

    python benchmarks/outage.py
    python benchmarks/outage.py --seconds 100 --times 2
    python benchmarks/outage.py --seeds 5 --seed 100

Searcher, scheduler, journal, recorder and leaderboard as they are, with trials that are formulas
(tests/fakes/fake_trials.py), on an S3 server on this machine (moto) that is reached by a line which
is cut. Afterwards: every trial ended once, every suggestion and decision is made again by a search
that knows the events before it, and all trials, their points and outcomes are those of a sweep on a
disk. A check that fails raises.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

from console import argument_parser, say

from sftray.config import SweepConfig
from sftray.results.recorder import Recorder
from sftray.storage.journal import Journal, read_events
from sftray.storage.paths import SweepPaths, join

sys.path.append(str(Path(__file__).parent.parent / "tests" / "fakes"))

from fake_trials import Kept  # noqa: E402
from flaky import Line, line_to_s3  # noqa: E402
from killed_sweeps import Sleeper, Survived, check, drive, sweep_of, undisturbed  # noqa: E402
from s3_server import s3_server  # noqa: E402

BYTES_BETWEEN = 10_000
"""Of the journal, on average, before its driver is suspended."""
EVENTS_BEFORE = 40
"""Storage goes away when there are so many more events."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="that storage is away")
    parser.add_argument("--times", type=int, default=1, help="that it goes away")
    parser.add_argument("--seed", type=int, default=0, help="of the first sweep")
    parser.add_argument("--seeds", type=int, default=1, help="so many sweeps, one after another")
    given = parser.parse_args()
    for seed in range(given.seed, given.seed + given.seeds):
        one_sweep(sweep_of("TPE + ASHA", seed=seed), seed, given.seconds, given.times)


def one_sweep(sweep: SweepConfig, seed: int, seconds: float, times: int) -> None:
    dice = random.Random(seed)
    with s3_server("sweeps") as bucket, line_to_s3() as line, tempfile.TemporaryDirectory() as here:
        scratch, kept = Path(here), Kept(Path(here))
        paths, began = SweepPaths(join(bucket, "outage")), time.monotonic()
        lasts = partial(dice.randrange, 2 * BYTES_BETWEEN)
        with Sleeper(paths.journal, lasts, lambda: None, log=say) as journal:
            done = threading.Event()
            arguments = (line, journal, seconds, times, done)
            disturber = threading.Thread(target=come_and_go, args=arguments)
            disturber.start()
            recorders: dict[object, Recorder] = {}

            def ended(search: object) -> None:
                if search not in recorders:
                    recorders[search] = Recorder(sweep, paths, journal, lambda line: None)
                recorders[search].finish_trials()

            drive(sweep, journal, kept, order=0, ended=ended)
            done.set()
            disturber.join()
        took = time.monotonic() - began
        events = [event for event in read_events(paths.journal) if event["trial"]]
        check(Survived(sweep, 0, events, kept), scratch)
        expected = [event for event in undisturbed(sweep, scratch) if event["trial"]]
        assert told(events) == told(expected)
        say(
            f"seed {seed}: {len(told(events))} trials, {len(events)} events in {took:.1f} s, "
            f"{journal.suspended} times suspended; those of a sweep on a disk, each once"
        )


def come_and_go(
    line: Line, journal: Journal, seconds: float, times: int, done: threading.Event
) -> None:
    for number in range(1, times + 1):
        while len(journal.events()) < number * EVENTS_BEFORE and not done.is_set():
            time.sleep(0.01)
        say(f"away for {seconds:g} s, at event {len(journal.events())}")
        line.cut_off()
        time.sleep(seconds)
        line.cut = False


def told(events: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """Each trial with its point and how it ended."""
    points = {e["trial"]: e["point"] for e in events if e["event"] == "trial_suggested"}
    ended = [e for e in events if e["event"] == "trial_ended"]
    return [(e["trial"], points[e["trial"]], e["outcome"], e["message"]) for e in ended]


if __name__ == "__main__":
    main()
