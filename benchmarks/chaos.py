"""Sweeps whose driver is killed again and again, without Ray and with trials that are formulas
(tests/fakes/fake_trials.py): what docs/reliability.md says of it, and how to have it again.

    python benchmarks/chaos.py
    python benchmarks/chaos.py --kills 50 --seed 1
    python benchmarks/chaos.py --seeds 5 --seed 100
    python benchmarks/chaos.py --every-byte

Four ways to be disturbed. "bytes": the driver dies in this process, when a random number of bytes
of the journal has been written, so in the middle of a line or between two writes. "SIGKILL": a
process of its own, after random milliseconds, wherever it is: in the search, in a write, in the
leaderboard. "asleep": on a URI it is suspended for ten minutes, by a clock of ours, at random
bytes; every second time another driver takes the sweep over, and the one that wakes up must be
refused. "every byte": a small sweep is cut after each byte of its journal, and each is run to its
end.

Each sweep is run to its end, then the next seed is taken, until there have been --kills, or so many
--seeds. Then each is checked: every trial ended exactly once; every suggestion and decision is made
again by a search that knows the events before it; no trial was trained twice beyond one evaluation
interval a death; with given points the leaderboard is that of a driver that lived. A check that
fails raises.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from console import argument_parser, say

from sftray.config import SweepConfig
from sftray.results.recorder import Recorder
from sftray.storage.journal import Journal, read_events
from sftray.storage.paths import SweepPaths

sys.path.append(str(Path(__file__).parent.parent / "tests" / "fakes"))

from fake_trials import Kept  # noqa: E402
from killed_sweeps import (  # noqa: E402
    SWEEPS,
    Survived,
    check,
    drive,
    repeated,
    survive,
    survive_asleep,
    sweep_of,
    undisturbed,
)

BYTES_A_LIFE = 2000
SECONDS_A_LIFE = 0.03


@dataclass
class Tally:
    """What sweeps of one kind went through."""

    sweeps: int = 0
    kills: int = 0
    """Drivers that died, or were taken over."""
    suspended: int = 0
    events: int = 0
    trials: int = 0
    intervals: int = 0
    """Evaluation intervals that were trained, each counted once."""
    repeated: int = 0
    """Times that one was trained again."""

    def add(self, survived: Survived) -> None:
        self.sweeps += 1
        self.kills += survived.kills
        self.suspended += survived.suspended
        self.events += len(survived.events)
        self.trials += sum(event["event"] == "trial_ended" for event in survived.events)
        self.intervals += len(survived.kept.trained())
        self.repeated += repeated(survived)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of each kind and way")
    parser.add_argument("--seed", type=int, default=0, help="of the first sweep of each kind")
    parser.add_argument("--seeds", type=int, help="so many sweeps of each kind and way instead")
    parser.add_argument("--every-byte", action="store_true", help="this alone")
    given = parser.parse_args()
    if given.every_byte:
        every_byte(given.seed)
        return
    say(f"{'':27} {'way':8} kills asleep sweeps trials events intervals again")
    for kind in SWEEPS:
        for way, live in (("bytes", by_bytes), ("SIGKILL", by_signals), ("asleep", asleep)):
            tally = Tally()
            while tally.sweeps < given.seeds if given.seeds else tally.kills < given.kills:
                seed = given.seed + tally.sweeps
                with tempfile.TemporaryDirectory() as folder:
                    survived = live(sweep_of(kind, seed=seed), Path(folder), seed)
                    check(survived, Path(folder))
                    tally.add(survived)
            say(
                f"{kind:27} {way:8} {tally.kills:5} {tally.suspended:6} {tally.sweeps:6} "
                f"{tally.trials:6} {tally.events:6} {tally.intervals:9} {tally.repeated:5}"
            )


def by_bytes(sweep: SweepConfig, folder: Path, seed: int) -> Survived:
    return survive(sweep, folder, seed=seed, bytes_a_life=BYTES_A_LIFE)


def asleep(sweep: SweepConfig, folder: Path, seed: int) -> Survived:
    return survive_asleep(sweep, folder, seed=seed, bytes_a_life=BYTES_A_LIFE)


def by_signals(sweep: SweepConfig, folder: Path, seed: int) -> Survived:
    dice, kills = random.Random(seed), 0
    while dies(
        lambda order=kills: live(sweep, folder, order), dice.expovariate(1 / SECONDS_A_LIFE)
    ):
        kills += 1
    return Survived(sweep, kills, read_events(str(folder / "journal.jsonl")), Kept(folder))


def dies(life: Callable[[], None], seconds: float) -> bool:
    """Whether a process that lives `life` is killed, so many seconds after it began."""
    process = os.fork()
    if process == 0:
        life()
        os._exit(0)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    return True


def live(sweep: SweepConfig, folder: Path, order: int) -> None:
    """A driver with all that it writes."""
    paths, recorders = SweepPaths(str(folder)), {}
    with Journal(paths.journal) as journal:

        def ended(search: object) -> None:
            if search not in recorders:
                recorders[search] = Recorder(sweep, paths, journal, lambda line: None)
            recorders[search].finish_trials()

        drive(sweep, journal, Kept(folder), order=order, ended=ended)


def every_byte(seed: int) -> None:
    sweep = sweep_of("TPE + ASHA", seed=seed, num_trials=2)
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed(sweep, Path(scratch))
        data = (Path(scratch) / "undisturbed" / "journal.jsonl").read_bytes()
    for length in range(len(data) + 1):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "journal.jsonl")
            path.write_bytes(data[:length])
            with Journal(str(path)) as journal:
                drive(sweep, journal, Kept(Path(folder)), order=0)
                check(
                    Survived(sweep, 1, journal.events(), Kept(Path(folder))), Path(folder), every=9
                )
    say(f"{len(data) + 1} cuts of a journal of {len(data)} bytes, each run to its end")


if __name__ == "__main__":
    main()
