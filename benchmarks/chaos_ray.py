"""Sweeps with Ray whose processes are killed again and again, by SIGKILL at random instants: what
docs/reliability.md says of it, and how to have it again.

    python benchmarks/chaos_ray.py                       # 20 kills, given points, both trainers
    python benchmarks/chaos_ray.py --demos 5             # five sweeps as `make demo` runs them
    python benchmarks/chaos_ray.py --trainer bank --kills 4 --seed 1
    python benchmarks/chaos_ray.py --seeds 5 --seed 100 --suspend 600
    python benchmarks/chaos_ray.py --trainer bank --kills 3 --full-disk --storage FOLDER

Victims in turn: the driver (and Ray with it), the bank's process or a Ray Train worker, a trial's
client, the Train controller, and, stopped instead of killed, a worker that hangs. With --suspend
the driver is stopped, too, for so many seconds (a lease lasts 360), and continues. The sweep runs
on, or its command is given again; one that has come to its end is followed by another, with the
next seed, until all have been killed. With --full-disk nobody is killed: the disk of FOLDER (a
small one: `mount -t tmpfs -o size=100m tmpfs FOLDER`) is filled until the sweep ends by itself with
a message, and emptied again. Each is checked, and a check that fails raises: every trial
ended exactly once; nothing is in the journal twice; every suggestion and decision is made again by
a search that knows the events before it; at each kill the newest whole checkpoint of every trial
was at least as new as its newest journalled evaluation, so nothing that was reported is trained
again; with given points every eval loss is, to 1e-6, that of a sweep which nobody disturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from pathlib import Path

import psutil
from console import argument_parser, say

from sftray import DataConfig, SweepConfig, TrialConfig, results
from sftray.data.packs.packs import open_packs
from sftray.demo import FOLDER
from sftray.plan.effective_batch import Execution
from sftray.plan.prior_points import prior_points
from sftray.plan.trial_plan import planner, resolve_batch_sizes
from sftray.search.search import Search
from sftray.storage import files
from sftray.storage.journal import Event, Journal, read_events
from sftray.storage.model_files import model_config
from sftray.storage.paths import SweepPaths, join
from sftray.trial.checkpoint import MANIFEST

sys.path.append(str(Path(__file__).parent.parent / "tests" / "fakes"))

from killed_sweeps import check_made_again  # noqa: E402

SECONDS_A_LIFE = 2.0
"""From the first report after a start, or after the last kill, to the next; on average."""
PATIENCE_SECONDS = 600.0
"""A sweep that reports nothing for so long hangs."""
VICTIMS = {
    "bank": ("driver", "BankProcess", "ResourceTrainable"),
    "train": (
        "driver",
        "RayTrainWorker",
        "TrainController",
        "ResourceTrainable",
        "hung RayTrainWorker",
    ),
}
"""Titles of Ray's processes; a trial's client is Tune's ResourceTrainable."""
FULL_DISK = "full disk"
SUSPENDED = "driver suspended for"
REPOSITORY = Path(__file__).parent.parent


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of each trainer's sweeps")
    parser.add_argument("--trainer", choices=sorted(VICTIMS), help="this alone")
    parser.add_argument("--demos", type=int, default=0, help="so many demo sweeps instead")
    parser.add_argument("--full-disk", action="store_true", help="fill its disk instead")
    parser.add_argument("--seed", type=int, default=0, help="of the first sweep")
    parser.add_argument("--seeds", type=int, help="so many sweeps of each trainer instead")
    parser.add_argument("--suspend", type=float, default=0, help="the driver, for so many seconds")
    parser.add_argument("--storage", default=None, help="folder for the sweeps")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.storage or scratch
        os.makedirs(folder, exist_ok=True)
        say(f"{'sweep':20} {'seed':>4} {'trials':>6} {'events':>6} {'seconds':>7}  kills")
        for number in range(given.demos):
            seed = given.seed + number
            command = ["sweeps/lr_batch.py", "--demo", "--name", f"demo-{seed}"]
            kill_through(command, folder, f"demo-{seed}", ["driver", "BankProcess"], seed)
        for trainer in [] if given.demos else [given.trainer] if given.trainer else VICTIMS:
            quiet = f"{trainer}-undisturbed"
            kill_through(sweep_file(folder, quiet, trainer), folder, quiet, [], 0)
            chosen = cycle([FULL_DISK] if given.full_disk else VICTIMS[trainer])
            first = [f"{SUSPENDED} {given.suspend:g} s"] * (given.suspend > 0)
            victims = [*first, *islice(chosen, given.kills)]
            for seed in count(given.seed):
                if seed - given.seed == given.seeds or not victims:
                    break
                loud = f"{trainer}-{seed}"
                left = kill_through(sweep_file(folder, loud, trainer), folder, loud, victims, seed)
                victims = victims if given.seeds else left
                same_losses(join(folder, quiet), join(folder, loud))


def sweep_file(folder: str, name: str, trainer: str) -> list[str]:
    """A sweep of given points, as its user would have it: a file."""
    path = Path(folder, f"{name}.py")
    path.write_text(
        "from sftray import launch\nfrom chaos_ray import small_sweep\n\n"
        f"launch(small_sweep({name!r}, {trainer!r}))\n",
        encoding="utf-8",
    )
    return [str(path)]


def small_sweep(name: str, trainer: str) -> SweepConfig:
    """A few trials of 25 to 50 steps, evaluated six times each."""
    return SweepConfig(
        name=name,
        data=DataConfig(
            str(FOLDER / "chats.jsonl"),
            max_length=256,
            max_conversations=140,
            eval_fraction=0.15,
            num_eval_conversations=20,
        ),
        trial=TrialConfig(
            str(FOLDER), base_precision="fp32", lora_r=4, lora_dropout=0.1, num_train_epochs=1
        ),
        points=tuple(
            {"learning_rate": 10 ** -(1.5 + number / 4), "effective_batch_size": 1 + number % 2}
            for number in range(6)
        ),
        scheduler="none",
        evals_per_trial=6,
        trainer=trainer,
        max_failures=100,
        hang_minutes=0.75,
        num_samples_generated=0,
        wandb="disabled",
    )


@dataclass
class Sweep:
    """A sweep whose command is given again whenever its driver has died."""

    command: Sequence[str]
    folder: str
    name: str
    driver: psutil.Popen | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = Path(tempfile.gettempdir(), f"{self.name}.log")  # not on a disk that gets full
        self.log.unlink(missing_ok=True)
        self.paths = SweepPaths(join(self.folder, self.name))

    def start(self) -> None:
        command = [sys.executable, *self.command, "--storage", self.folder]
        folders = [str(REPOSITORY), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, folders))
        with open(self.log, "ab") as output:
            self.driver = psutil.Popen(
                command,
                cwd=REPOSITORY,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )

    @property
    def alive(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    @property
    def events(self) -> int:
        """How many lines the journal has."""
        if not os.path.exists(self.paths.journal):
            return 0
        return Path(self.paths.journal).read_bytes().count(b"\n")

    def processes(self, title: str) -> list[psutil.Process]:
        """Ray's processes of the driver's cluster with that title."""
        assert self.driver is not None
        found = []
        for process in self.driver.children(recursive=True):
            try:
                if title in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for_more(self, events: int) -> bool:
        """Whether the driver lives until its journal has more than so many events."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.alive and self.events <= events:
            if time.monotonic() > until:
                raise RuntimeError(f"{self.name}: no event for {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.1)
        return self.alive

    def kill(self, victim: str) -> str | None:
        """Kill it, and say what was killed; nothing where there is none."""
        assert self.driver is not None
        if victim == "driver":
            self.driver.kill()
            self.driver.wait()
            return victim
        if victim == FULL_DISK:
            self.fill_its_disk()
            return victim
        if victim.startswith(SUSPENDED):
            self.driver.suspend()
            time.sleep(float(victim.removeprefix(SUSPENDED).removesuffix("s")))
            self.driver.resume()
            return victim
        hangs = victim.startswith("hung ")
        found = self.processes(victim.removeprefix("hung "))
        if not found:
            return None
        found[0].send_signal(signal.SIGSTOP if hangs else signal.SIGKILL)
        return victim

    def fill_its_disk(self) -> None:
        """Leave no byte until the driver has ended, by itself and with a message of it."""
        assert self.driver is not None
        filler = Path(self.folder, "filler")
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        status = self.driver.wait(PATIENCE_SECONDS)
        filler.unlink()
        said = self.log.read_text(encoding="utf-8")
        assert (status, "there is no room" in said) == (2, True), f"status {status}, see {self.log}"


def kill_through(
    command: Sequence[str], folder: str, name: str, victims: Sequence[str], seed: int
) -> list[str]:
    """Run a sweep to its end, kill these on the way, and check it; whom it ended before."""
    dice, done, began = random.Random(seed), Counter[str](), time.monotonic()
    victims = list(victims)
    sweep = Sweep(command, folder, name)
    sweep.start()
    while victims:
        if not sweep.wait_for_more(sweep.events):
            break  # it has come to its end
        time.sleep(dice.expovariate(1 / SECONDS_A_LIFE))
        if not sweep.alive:
            break
        killed = sweep.kill(victims[0])
        if killed is None:
            continue
        nothing_lost(sweep.paths)
        done[killed] += 1
        victims.pop(0)
        if not sweep.alive:
            sweep.start()
    assert sweep.driver is not None
    if sweep.driver.wait() != 0:
        raise RuntimeError(f"{name}: exit status {sweep.driver.returncode}, see {sweep.log}")
    events = check(sweep.paths.root)
    told = ", ".join(f"{number} × {victim}" for victim, number in done.items()) or "none"
    trials = sum(event["event"] == "trial_ended" for event in events)
    passed = time.monotonic() - began
    say(f"{name:20} {seed:4} {trials:6} {len(events):6} {passed:7.0f}  {told}")
    return victims


def nothing_lost(paths: SweepPaths) -> None:
    """Assert that every evaluation in the journal can be gone on from."""
    newest: dict[str, int] = {}
    ended = set()
    for event in read_events(paths.journal):
        if event["event"] == "result":
            newest[event["trial"]] = max(event["step"], newest.get(event["trial"], 0))
        ended |= {event["trial"]} if event["event"] == "trial_ended" else set()
    for trial, step in newest.items():
        folder = paths.trial(trial).checkpoints
        whole = [
            int(name.removeprefix("step-"))
            for name in files.list_names(folder)
            if files.exists(join(folder, name, MANIFEST))
        ]
        assert trial in ended or max(whole, default=0) >= step, f"{trial}: {step} is lost: {whole}"


def check(folder: str) -> list[Event]:
    """Assert what must hold of a sweep that has ended; its events."""
    events = read_events(SweepPaths(folder).journal)
    twice = Counter(
        (e["event"], e["trial"], e.get("step"), e.get("attempt"))
        for e in events
        if e["event"] in ("trial_suggested", "result", "decision", "attempt_started", "trial_ended")
    )
    assert max(twice.values()) == 1, twice.most_common(1)
    suggested = {e["trial"] for e in events if e["event"] == "trial_suggested"}
    ended = Counter(e["trial"] for e in events if e["event"] == "trial_ended")
    assert set(ended) == suggested
    assert any(event["event"] == "sweep_ended" for event in events)
    made_again(folder, events)
    return events


def made_again(folder: str, events: list[Event]) -> None:
    """Assert that a search which knows the events before a suggestion or decision makes it next."""
    found = results.load(folder)
    rows = open_packs(found.packs).rows("train")
    sweep = resolve_batch_sizes(found.config, rows)
    plan = planner(sweep, rows, execution=Execution(1))
    first = prior_points(sweep, model_config(sweep.trial.model, sweep.trial.model_revision))

    def search(journal: Journal) -> Search:
        return Search(sweep, journal, plan, first=first)

    with tempfile.TemporaryDirectory() as scratch:
        for number, event in enumerate(events):
            if event["event"] in ("trial_suggested", "decision"):
                check_made_again(search, events, number, Path(scratch, "prefix.jsonl"))


def same_losses(quiet: str, loud: str) -> None:
    """Assert that two sweeps have the same losses at the same places."""
    theirs, ours = (
        {
            (trial.trial, metrics["step"]): metrics["eval_loss"]
            for trial in results.load(folder).records
            for metrics in trial.results
        }
        for folder in (quiet, loud)
    )
    assert set(theirs) == set(ours), set(theirs) ^ set(ours)
    worst = max(abs(theirs[place] - ours[place]) for place in theirs)
    say(f"{len(ours)} evaluations, none is missing; largest difference of a loss {worst:.1e}")
    assert worst <= 1e-6, json.dumps({str(k): (theirs[k], ours[k]) for k in theirs})


if __name__ == "__main__":
    main()
