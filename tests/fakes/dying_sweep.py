"""A driver whose sweep loses a process in one of its phases, as a process of its own:

python dying_sweep.py CONFIG PHASE VICTIM

CONFIG is a file with the sweep; the victim dies by SIGKILL, once: a file beside CONFIG says so.
The cluster is that of RAY_ADDRESS."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

PHASES: dict[str, tuple[str, int]] = {
    "packing": ("loss mask of ", 1),
    "base": ("trainer: ", 1),
    "search": ("t0000  step     4", 1),
    "end of the search": ("the best points are run again", 1),
    "first repetition": ("t0002  step     4", 1),
    "second repetition": ("t0003  step     4", 1),
    "collect": (r"t000\d  completed", 4),
    "check": ("", 0),
    "report": ("best/: reloaded", 1),
    "mirrors' last words": ("report: ", 1),
}
"""How its line begins, and which of the lines that begin so it is. The check has none: its victim
dies in it."""
ACTORS = {"bank": "BankProcess", "worker": "RayTrainWorker"}
SECONDS = 60.0
"""How long a victim may take to be there."""


class Executioner:
    """Kills the victim in its phase, unless that has been done."""

    def __init__(self, phase: str, victim: str, mark: Path) -> None:
        self._line, self._left = PHASES[phase]
        self._phase, self._victim, self._mark = phase, victim, mark

    def log(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201
        if self._line and re.match(self._line, line) and not self._mark.exists():
            self._left -= 1
            if self._left == 0:
                self._mark.touch()
                self._end()

    def _end(self) -> None:
        if self._victim == "driver":
            kill([os.getpid()], self._mark)
        elif self._phase == "packing" and self._victim == "worker":
            kill(idle_workers(), self._mark)
        elif pids := actors(ACTORS[self._victim]):
            kill(pids, self._mark)
        else:
            arguments = (ACTORS[self._victim], self._mark)
            threading.Thread(target=kill_when_there, args=arguments, daemon=True).start()


def kill_when_there(name: str, mark: Path) -> None:
    until = time.monotonic() + SECONDS
    while not (pids := actors(name)) and time.monotonic() < until:
        time.sleep(0.05)
    kill(pids, mark)


def kill(pids: Iterable[int], mark: Path) -> None:
    """And leave their ids in `mark`."""
    for pid in pids:
        with open(mark, "a", encoding="utf-8") as file:
            file.write(f"{pid}\n")
        os.kill(pid, signal.SIGKILL)


def actors(name: str | None) -> list[int]:
    """Processes of the actors of a class, or of all."""
    import ray
    from ray.util.state import list_actors

    filters: list[Any] = [("state", "=", "ALIVE")]
    filters += [] if name is None else [("class_name", "=", name)]
    here = ray.get_runtime_context().gcs_address  # there may be another cluster on this machine
    return [int(actor.pid) for actor in list_actors(here, filters=filters, limit=1000)]


def idle_workers() -> set[int]:
    """Processes that Ray has started for tasks."""
    import ray
    from ray.util.state import list_workers

    here = ray.get_runtime_context().gcs_address
    found = list_workers(here, filters=[("worker_type", "=", "WORKER")], limit=1000)
    return {int(worker.pid) for worker in found if worker.is_alive} - set(actors(None))


def dies(check: Callable[..., object], victim: int | None, mark: Path) -> Callable[..., object]:
    """The check of the winner, in which a process dies: the one that checks, or the `victim`."""

    def dying(*arguments: object) -> object:
        if not mark.exists():
            mark.write_text(f"{victim or os.getpid()}\n", encoding="utf-8")
            os.kill(victim or os.getpid(), signal.SIGKILL)
        return check(*arguments)

    return dying


def main(arguments: Sequence[str]) -> None:
    from sftray.config.config_json import sweep_from_json
    from sftray.sweep.run import run_sweep
    from sftray.winner import collect

    path, phase, victim = arguments
    sweep = sweep_from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    mark = Path(path).with_suffix(".died")
    if phase == "check":
        pid = os.getpid() if victim == "driver" else None
        collect.assemble = dies(collect.assemble, pid, mark)  # type: ignore[assignment]
    run_sweep(sweep, log=Executioner(phase, victim, mark).log)


if __name__ == "__main__":
    main(sys.argv[1:])
