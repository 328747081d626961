"""The process that holds a bank: trials come and go by leases while one thread trains them all.

Promise: a trial's reports come in order; a lease whose client has not asked for LEASE_SECONDS is
given up and its slot freed; a trial that waits for a slot enters as soon as one is free. When its
machine is about to be taken back, all trials are saved at once and again until the end. When
memory runs out the bank is built again with settings that take less, and every trial continues from
its last checkpoint. When anything else breaks, all clients hear of it and the process ends: the
whole bank is one failure domain, and Ray starts it again.

Ray runs every method in a thread of its own; the engine belongs to one thread alone. The driver
imports this file, and torch must not come with it.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sftray.cluster.awake_clock import AwakeClock
from sftray.cluster.node_sight import require_sight
from sftray.cluster.preemption import PreemptionWatch
from sftray.cluster.ray_errors import plain
from sftray.config import SweepConfig, TrialConfig
from sftray.data.packs.packs import open_packs
from sftray.errors import BankError
from sftray.plan.bank_settings import BankSettings
from sftray.plan.out_of_memory import cheaper
from sftray.trainers.bank.leases import Lease, Leases
from sftray.trainers.report_channel import POLL_SECONDS, ReportChannel, SignsOfLife
from sftray.trial.trial_report import Report, halt_of
from sftray.trial.trial_spec import TrialSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftray.trainers.bank.engine import Engine
    from sftray.trainers.bank.slot import Slot

END_SECONDS = 900.0
"""How long the engine may take to end."""
PREPARE_SECONDS = 60.0
"""How long the first step may wait for its trials to come and for their adapters to be made."""
SWITCH_SECONDS = 2e-4
"""A thread that makes adapters gives the interpreter back after so long. Every operation that the
engine launches asks for it anew, and would wait 5 ms each time."""
WRITERS = 4
"""Threads that write checkpoints."""


@dataclass(frozen=True)
class Opening:
    """What a bank is opened with."""

    packs: str
    """Root of the packs."""
    settings: BankSettings
    sweep: SweepConfig


class BankProcess:
    """One bank on one device."""

    def __init__(
        self,
        trial: TrialConfig,
        *,
        use_gpu: bool,
        threads: int,
        hang_seconds: float = 1800.0,
        clock: Callable[[], float] | None = None,
        watch: PreemptionWatch | None = None,
    ) -> None:
        """Begin to load the base of `trial`, what the sweep's trials have in common. `threads` is
        what a CPU computes with, `hang_seconds` how long one step may take, by `clock`, which times
        leases, too, by default an AwakeClock; `watch` sees the machine's end coming."""
        import torch

        self._clock = clock = clock or AwakeClock.started()
        self._watch = watch or PreemptionWatch(_this_node())
        self._trial = trial
        self._device = torch.device("cuda", 0) if use_gpu else torch.device("cpu")
        torch.set_num_threads(threads)
        self._background = ThreadPoolExecutor(2, "sftray-prepare")
        self._writers = ThreadPoolExecutor(WRITERS, "sftray-writer")
        if use_gpu:
            self._background.submit(torch.cuda.init)  # seconds, beside the imports
        self._startup: dict[str, float] = {}
        self._model = self._background.submit(self._load)
        self._engine: Future[Engine] = Future()
        self._commands: queue.SimpleQueue[Callable[[Engine], None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._steps = SignsOfLife(hang_seconds, clock)
        self._leases = Leases(
            clock=clock,
            channel=lambda: ReportChannel(self._steps, self._hangs),
            prepare=self._prepare,
            go_on=lambda slot: self._command(lambda engine: engine.go_on(slot)),
            free=lambda slot: self._command(lambda engine: engine.drop(slot)),
        )
        self._thread: threading.Thread | None = None
        self._broken: str | None = None
        self._ending = False

    def memory(self) -> float | None:
        """Bytes of GPU memory that a bank may take; None on a CPU."""
        import torch

        if self._device.type == "cpu":
            return None
        free, _ = torch.cuda.mem_get_info()
        return float(free + torch.cuda.memory_reserved())

    def attach(self, spec: TrialSpec, opening: Opening) -> int:
        """Lease a slot to a trial, or a place in the queue for one; returns the leases there are.

        0 where another bank is to be asked: those that it begins with have all come, or its machine
        is about to be taken back.

        `opening` is what the bank was opened with, in case this process is a new one. Raises
        OutageError where this node does not see what the trial needs.
        """
        if self._broken is not None:
            raise BankError(self._broken)
        if self._watch.noticed:
            return 0
        if spec.sight is not None:
            require_sight(spec.sight)
        self.open(opening)
        return self._leases.attach(spec)

    def open(self, opening: Opening, expected: int | None = None) -> None:
        """Build the bank, unless that has been done or begun. `expected` trials are sure to come:
        its first step waits for them, and until then it takes no others."""
        with self._lock:
            if self._thread is None:
                self._leases.expect(expected)
                self._steps.alive()
                arguments = (opening,)
                self._thread = threading.Thread(target=self._live, args=arguments, daemon=True)
                self._thread.start()

    def next_report(self, trial: str) -> Report | None:
        """Raises BankError where the bank is broken, too."""
        return self._leases.next_report(trial)

    def go_on(self, trial: str) -> None:
        self._leases.go_on(trial)

    def drop(self, trial: str) -> None:
        self._leases.drop(trial)

    def usage(self) -> dict[str, float]:
        """`engine.Usage`, the seconds `since` the bank was built, and those that importing
        libraries and loading the base took before; nothing as long as it is not built."""
        if not self._engine.done():
            return {}
        engine = self._engine.result()
        return {**asdict(engine.usage), **self._startup, "since": engine.age}

    def lend(self, function: Callable[..., object], *arguments: object) -> object:
        """End the bank, free its memory, and run a function in its place."""
        import torch

        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=END_SECONDS)
        wait([self._model], timeout=END_SECONDS)
        self._leases.clear()
        self._engine = Future()
        self._model = Future()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return function(*arguments)

    def leases(self) -> int:
        """Trials that hold a slot or wait for one."""
        return len(self._leases)

    def _load(self) -> PreTrainedModel:
        """Only this thread imports transformers, whose lazy modules fail another that does, too:
        others wait for the model before they import what needs it."""
        began = self._clock()
        from sftray.trainers.bank.frozen_base import load_model

        imported = self._clock()
        model = load_model(self._trial, self._device)
        self._startup = {"importing": imported - began, "loading": self._clock() - imported}
        return model

    def _prepare(self, lease: Lease) -> Future[Slot]:
        """Read or make the trial's adapter in the background, once there is an engine."""
        engine, report = self._engine, lease.channel.put
        prepared = self._background.submit(lambda: engine.result().prepare(lease.spec, report))
        prepared.add_done_callback(lambda _: self._wake.set())
        return prepared

    def _command(self, command: Callable[[Engine], None]) -> None:
        self._commands.put(command)
        self._wake.set()

    def _live(self, opening: Opening) -> None:
        """The engine's thread: build, then train until the process ends."""
        try:
            sys.setswitchinterval(SWITCH_SECONDS)
            settings: BankSettings | None = opening.settings
            while settings is not None:
                try:
                    self._train(opening, settings)
                    return
                except RuntimeError as error:
                    from sftray.trial.gpu_memory import is_out_of_memory

                    if not is_out_of_memory(error):
                        raise
                    reason = str(error).splitlines()[0]
                # out of the handler, whose traceback holds what is to be freed
                settings = cheaper(settings, opening.sweep)
                if settings is not None:
                    logging.warning("bank: %s; continuing with %s", reason, settings)
                    self._start_over()
            raise BankError(f"no settings take little enough memory: {reason}")
        except (
            BaseException
        ) as error:  # whatever it is, the clients hear of it and the process ends
            fault = plain(error, tempfile.gettempdir()) if isinstance(error, Exception) else None
            if halt := halt_of(fault or error):
                self._leases.put(Report(outcome=halt, message=str(fault or error)))
                self._end()
            logging.exception("bank: broken")
            self._break(f"bank: {type(error).__name__}: {error}")

    def _train(self, opening: Opening, settings: BankSettings) -> None:
        packs, model = open_packs(opening.packs), self._model.result()
        from sftray.trainers.bank.engine import Engine

        engine = Engine(model, self._trial, packs, settings, self._device, self._writers)
        del model
        self._engine.set_result(engine)
        self._await_the_first()
        while not self._ending:
            self._steps.alive()
            while not self._commands.empty():
                self._commands.get()(engine)
            if self._watch.save_now():
                self._save(engine)
            self._admit(engine)
            self._leases.give_up_silent()
            if not engine.advance():
                self._wake.wait(timeout=1.0)
                self._wake.clear()

    def _save(self, engine: Engine) -> None:
        logging.warning("bank: its machine is about to be taken back; all trials are saved")
        engine.save()
        self._leases.put(Report(taken_back=True))

    def _await_the_first(self) -> None:
        """Before the first step, wait for the trials that are sure to come."""
        until = time.monotonic() + PREPARE_SECONDS
        while not (self._leases.all_there() or self._ending or time.monotonic() > until):
            self._wake.wait(timeout=0.1)
            self._wake.clear()
        self._leases.begin()

    def _admit(self, engine: Engine) -> None:
        """Let prepared trials in, oldest first, as long as there is room; before the first step
        all that have come."""
        seconds = 0.0 if engine.usage.micro_steps else PREPARE_SECONDS
        while engine.free and (slot := self._leases.next_prepared(seconds)) is not None:
            engine.admit(slot)

    def _start_over(self) -> None:
        """After running out of memory: nothing of the old engine stays, every lease waits again."""
        import torch

        def restart() -> None:
            self._engine = Future()
            torch.cuda.empty_cache()
            self._model = self._background.submit(self._load)
            self._commands = queue.SimpleQueue()

        self._leases.prepare_again(restart)

    def _hangs(self, seconds: float) -> BankError:
        """What a client hears of a step that does not end; the first who does ends the process."""
        with self._lock:
            if self._broken is None:
                self._broken = f"bank: no step for {seconds:.0f} s; its process hangs"
                threading.Thread(target=self._break, args=(self._broken,), daemon=True).start()
            return BankError(self._broken)

    def _break(self, reason: str) -> None:
        self._broken = reason
        self._leases.fail(BankError(reason))
        self._end()

    def _end(self) -> None:
        """Let the clients hear of it; then Ray starts the process again."""
        time.sleep(2 * POLL_SECONDS)
        os._exit(1)


def _this_node() -> set[str]:
    """The hex id of this process's Ray node; nothing outside of Ray."""
    import ray

    return {ray.get_runtime_context().get_node_id()} if ray.is_initialized() else set()
