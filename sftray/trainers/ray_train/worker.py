"""What every worker does: one trial after another, each from loading the base to the last report.

`run_trial` is the whole of a trial and knows no Ray, so that a test or `--local` can call it in
its own process; `work_for` is the same for all trials of a mailbox, inside a Ray Train worker.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from types import TracebackType

import ray
import torch
import torch.distributed as dist
from ray.actor import ActorHandle

from sftray.cluster.node_sight import require_sight
from sftray.cluster.preemption import PreemptionWatch
from sftray.cluster.ray_errors import plain
from sftray.errors import PacksError, last_line
from sftray.trainers.ray_train.attempts import NothingLessError, run_trial
from sftray.trainers.ray_train.base_cache import Bases
from sftray.trial.gpu_memory import free_memory
from sftray.trial.progress import StoppedError
from sftray.trial.trial_report import Report, halt_of

SIGN_SECONDS = 5.0
"""From one sign of life to the next."""


def work_for(mailbox: ActorHandle) -> None:
    """What Ray Train calls on every worker: train the trials of a `mailbox.Mailbox` (a Ray actor)
    until there are no more."""
    import ray.train.torch

    rank = ray.train.get_context().get_world_rank()
    device, bases, done = ray.train.torch.get_device(), Bases(), 0
    while (taken := ray.get(mailbox.take.remote(rank, done))) != "closed":
        if taken is None:
            continue
        done, spec = taken
        stepped = _Stepped(mailbox, done, rank)
        with _LastWords(mailbox, done), contextlib.suppress(StoppedError):
            if spec.sight is not None:
                require_sight(spec.sight)
            run_trial(spec, _Reports(mailbox, done, rank), device, bases, stepped)
        if rank == 0:
            ray.get(mailbox.finished.remote(done))
        free_memory()


class _LastWords:
    """Has the mailbox hear of whatever ends a worker in the middle of a trial."""

    def __init__(self, mailbox: ActorHandle, number: int) -> None:
        self._mailbox, self._number = mailbox, number

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is not None:
            ray.get(self._mailbox.died.remote(self._number, *_last_words(error)))


def _last_words(error: BaseException) -> tuple[str, str]:
    """What a worker says before it ends, and what it means for its trial: `Mailbox.died`."""
    fault = plain(error, tempfile.gettempdir()) if isinstance(error, Exception) else None
    if halt := halt_of(fault or error):
        return str(fault or error), halt
    words = last_line(str(error))
    if isinstance(error, NothingLessError):
        return words, "out_of_memory"
    if isinstance(error, PacksError):
        return words, "data_error"
    return f"{type(error).__name__}: {words}", (
        "again" if isinstance(error, torch.OutOfMemoryError) else "failure"
    )


class _Stepped:
    """Called after every step: the mailbox hears that the worker lives, and the first hears when a
    machine is about to go."""

    def __init__(self, mailbox: ActorHandle, number: int, rank: int) -> None:
        self._mailbox, self._number = mailbox, number
        self._watch = PreemptionWatch(_nodes()) if rank == 0 else None
        self._signed = -SIGN_SECONDS

    def __call__(self) -> bool:
        """Whether the trial is to be saved now."""
        now = time.monotonic()
        if now - self._signed > SIGN_SECONDS:
            self._signed = now
            self._mailbox.alive.remote(self._number)
        if self._watch is None or not self._watch.save_now():
            return False
        self._mailbox.taken_back.remote(self._number)
        return True


class _Reports:
    """A trial's reports on their way to a mailbox. All workers make them at the same places, and
    hear from the first whether the trial continues."""

    def __init__(self, mailbox: ActorHandle, number: int, rank: int) -> None:
        self._mailbox, self._number, self._rank = mailbox, number, rank

    def __call__(self, report: Report) -> None:
        """Raises StoppedError where the trial is not wanted any more."""
        continues = [self._pass_on(report) if self._rank == 0 else True]
        if report.outcome is not None:
            return
        if dist.is_initialized():
            dist.broadcast_object_list(continues, src=0)
        if not continues[0]:
            raise StoppedError

    def _pass_on(self, report: Report) -> bool:
        wanted = bool(ray.get(self._mailbox.put.remote(self._number, report)))
        decided: bool | None = None if wanted and report.waits else wanted
        while decided is None:
            decided = ray.get(self._mailbox.decided.remote(self._number))
        return decided


def _nodes() -> set[str]:
    """The nodes of this run's workers, as hex ids."""
    from ray.util import get_current_placement_group, placement_group_table

    group = get_current_placement_group()
    if group is None:
        return {ray.get_runtime_context().get_node_id()}
    return set(placement_group_table(group)["bundles_to_node_id"].values())
