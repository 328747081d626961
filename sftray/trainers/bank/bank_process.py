"""The process that holds a bank: trials come and go by leases while one thread trains them all.

Promise: a trial's reports come in order; a lease whose client has not asked for LEASE_SECONDS is
given up and its slot freed; a trial that waits for a slot enters as soon as one is free. When its
machine is about to be taken back, all trials are saved at once and again until the end. When
memory runs out the bank is built again with settings that take less, and every trial goes on from
its last checkpoint. When anything else breaks, all clients are told and the process ends: the whole
bank is one failure domain, and Ray starts it again.

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
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sftray.cluster.preemption import PreemptionWatch
from sftray.cluster.ray_errors import plain
from sftray.config import TrialConfig
from sftray.config.config_json import sweep_from_json
from sftray.data.packs.packs import open_packs
from sftray.errors import BankError, OutageError, PacksError, SftrayError
from sftray.plan.bank_settings import BankSettings
from sftray.plan.out_of_memory import cheaper
from sftray.storage.journal.event_types import OUTAGE
from sftray.trainers.bank.leases import LEASE_SECONDS, POLL_SECONDS, Lease
from sftray.trial.trial_spec import TrialSpec

if TYPE_CHECKING:
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


class BankProcess:
    """One bank on one device."""

    def __init__(
        self,
        trial: Mapping[str, Any],
        *,
        use_gpu: bool,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
        watch: PreemptionWatch | None = None,
    ) -> None:
        """Begin to load the base of `trial`, what the sweep's trials have in common. `threads` is
        what a CPU computes with, `clock` what leases are timed by, in seconds; `watch` sees the
        machine's end coming."""
        import torch

        self._clock = clock
        self._watch = watch or PreemptionWatch(_this_node())
        self._trial = TrialConfig(**trial)
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
        self._leases: dict[str, Lease] = {}
        self._waiting: deque[tuple[Lease, Future[Slot]]] = deque()
        self._thread: threading.Thread | None = None
        self._first: int | None = None
        """Trials that it waits for before its first step; None afterwards."""
        self._moved = self._clock()
        self._hang_seconds = 0.0
        self._broken: str | None = None
        self._ending = False

    def memory(self) -> float | None:
        """Bytes of GPU memory that a bank may take; None on a CPU."""
        import torch

        if self._device.type == "cpu":
            return None
        free, _ = torch.cuda.mem_get_info()
        return float(free + torch.cuda.memory_reserved())

    def attach(self, spec: Mapping[str, Any], opening: Mapping[str, Any]) -> int:
        """Lease a slot to a trial, or a place in the queue for one; returns the leases there are.

        0 where another bank is to be asked: those that it begins with have all come, or its machine
        is about to be taken back.

        `opening` is what `Banks` opened the bank with, in case this process is a new one.
        """
        if self._broken is not None:
            raise BankError(self._broken)
        if self._watch.noticed:
            return 0
        self.open(opening)
        lease = Lease(TrialSpec.from_json(spec), self._clock())
        self.drop(lease.spec.trial)  # a client that has died may have left it here
        with self._lock:
            if self._first is not None and len(self._leases) >= self._first:
                return 0
            self._leases[lease.spec.trial] = lease
            self._waiting.append((lease, self._prepare(lease)))
            return len(self._leases)

    def open(self, opening: Mapping[str, Any], expected: int | None = None) -> None:
        """Build the bank, unless that has been done or begun. `expected` trials are sure to come:
        its first step waits for them, and until then it takes no others."""
        with self._lock:
            if self._thread is None:
                self._first, self._moved = expected, self._clock()
                self._hang_seconds = 60 * opening["sweep"]["hang_minutes"]
                arguments = (opening,)
                self._thread = threading.Thread(target=self._live, args=arguments, daemon=True)
                self._thread.start()

    def next_report(self, trial: str) -> dict[str, Any] | None:
        """A trial's next report; None if there is none yet. Asking after a rung's report means that
        the search lets the trial go on. {"taken_back"} is no report: its machine is about to go.

        Raises BankError where the bank is broken or the lease has been given up.
        """
        lease = self._leases.get(trial)
        if self._broken is not None:
            raise BankError(self._broken)
        if lease is None:
            raise BankError(f"{trial}: its lease was given up, since nobody asked for it")
        lease.seen = self._clock()
        slot = lease.slot
        if slot is not None and slot.waiting and slot.step == lease.told:
            self._command(lambda engine: engine.go_on(slot))
        self._check_progress()
        try:
            metrics = lease.reports.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None
        lease.seen = self._clock()
        if "taken_back" not in metrics:
            lease.told = metrics.get("step", -1)
        return metrics

    def drop(self, trial: str) -> None:
        """End a trial's lease, if it has one, and free its slot."""
        with self._lock:
            lease = self._leases.pop(trial, None)
        if lease is not None and lease.slot is not None:
            slot = lease.slot
            self._command(lambda engine: engine.drop(slot))

    def usage(self) -> dict[str, float]:
        """`engine.Usage`, the seconds `since` the bank was built, and those that importing
        libraries and loading the base took before; nothing as long as it is not built."""
        if not self._engine.done():
            return {}
        engine = self._engine.result()
        return {**asdict(engine.usage), **self._startup, "since": engine.age}

    def lend(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """End the bank, free its memory, and run a function in its place."""
        import torch

        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=END_SECONDS)
        with self._lock:
            self._leases.clear()
            self._waiting.clear()
        self._engine = Future()
        self._model = Future()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return function(*arguments)

    def leases(self) -> int:
        """Trials that hold a slot or wait for one."""
        return len(self._leases)

    def _load(self) -> Any:
        began = self._clock()
        from sftray.trainers.bank.engine import load_model

        imported = self._clock()
        model = load_model(self._trial, self._device)
        self._startup = {"importing": imported - began, "loading": self._clock() - imported}
        return model

    def _prepare(self, lease: Lease) -> Future[Slot]:
        """Read or make the trial's adapter in the background, once there is an engine."""
        engine, report = self._engine, lease.reports.put
        prepared = self._background.submit(lambda: engine.result().prepare(lease.spec, report))
        prepared.add_done_callback(lambda _: self._wake.set())
        return prepared

    def _command(self, command: Callable[[Engine], None]) -> None:
        self._commands.put(command)
        self._wake.set()

    def _live(self, opening: Mapping[str, Any]) -> None:
        """The engine's thread: build, then train until the process ends."""
        try:
            sys.setswitchinterval(SWITCH_SECONDS)
            settings: BankSettings | None = BankSettings(**opening["settings"])
            while settings is not None:
                try:
                    self._train(opening, settings)
                    return
                except RuntimeError as error:
                    from sftray.trial.gpu_memory import is_out_of_memory

                    if not is_out_of_memory(error):
                        raise
                    said = str(error).splitlines()[0]
                # out of the handler, whose traceback holds what is to be freed
                settings = cheaper(settings, sweep_from_json(opening["sweep"]))
                if settings is not None:
                    logging.warning("bank: %s; going on with %s", said, settings)
                    self._start_over()
            raise BankError(f"no settings take little enough memory: {said}")
        except BaseException as error:  # whatever it is, the clients are told and the process ends
            fault = plain(error, tempfile.gettempdir()) if isinstance(error, Exception) else None
            if isinstance(fault, OutageError):
                for lease in list(self._leases.values()):
                    lease.reports.put({"outcome": OUTAGE, "message": str(fault)})
                self._end()
            logging.exception("bank: broken")
            self._break(f"bank: {type(error).__name__}: {error}")

    def _train(self, opening: Mapping[str, Any], settings: BankSettings) -> None:
        from sftray.trainers.bank.engine import Engine

        packs, model = open_packs(opening["packs"]), self._model.result()
        engine = Engine(model, self._trial, packs, settings, self._device, self._writers)
        del model
        self._engine.set_result(engine)
        self._await_the_first()
        while not self._ending:
            self._moved = self._clock()
            while not self._commands.empty():
                self._commands.get()(engine)
            if self._watch.save_now():
                self._save(engine)
            self._admit(engine)
            self._give_up()
            if not engine.advance():
                self._wake.wait(timeout=1.0)
                self._wake.clear()

    def _save(self, engine: Engine) -> None:
        logging.warning("bank: its machine is about to be taken back; all trials are saved")
        engine.save()
        with self._lock:
            for lease in self._leases.values():
                lease.reports.put({"taken_back": True})

    def _await_the_first(self) -> None:
        """Before the first step, wait for the trials that are sure to come: those suggested first
        enter first, reach their rungs together and are judged together."""
        until = time.monotonic() + PREPARE_SECONDS
        while len(self._leases) < (self._first or 1) and not self._ending:
            if time.monotonic() > until:
                break
            self._wake.wait(timeout=0.1)
            self._wake.clear()
        with self._lock:
            self._first = None
            self._waiting = deque(sorted(self._waiting, key=lambda pair: pair[0].spec.trial))

    def _admit(self, engine: Engine) -> None:
        """Let prepared trials in, oldest first, as long as there is room; before the first step
        all that have come."""
        while engine.free:
            with self._lock:
                if not self._waiting:
                    return
                first = self._waiting[0][1]
            if engine.usage.micro_steps == 0:
                wait([first], timeout=PREPARE_SECONDS)
            with self._lock:
                if not (self._waiting and self._waiting[0][1].done()):
                    return
                lease, prepared = self._waiting.popleft()
                if self._leases.get(lease.spec.trial) is not lease:
                    continue
                try:  # under the lock, so that whoever drops the lease sees its slot
                    slot = lease.slot = prepared.result()
                except (SftrayError, OSError) as error:
                    lease.reports.put({"outcome": _outcome(error), "message": str(error)})
                    continue
            engine.admit(slot)

    def _give_up(self) -> None:
        """Free the slots of clients that do not ask any more."""
        limit = self._clock() - LEASE_SECONDS
        with self._lock:
            silent = [name for name, lease in self._leases.items() if lease.seen < limit]
        for trial in silent:
            logging.warning("bank: %s: nobody has asked for %g s", trial, LEASE_SECONDS)
            self.drop(trial)

    def _start_over(self) -> None:
        """After running out of memory: nothing of the old engine stays, every lease waits again."""
        import torch

        with self._lock:  # who attaches meanwhile must not take the threads that load the base
            self._engine = Future()
            torch.cuda.empty_cache()
            self._model = self._background.submit(self._load)
            self._commands = queue.SimpleQueue()
            self._waiting.clear()
            for lease in self._leases.values():
                lease.slot, lease.told = None, -1
                self._waiting.append((lease, self._prepare(lease)))

    def _check_progress(self) -> None:
        still = self._clock() - self._moved
        if still > self._hang_seconds:
            with self._lock:
                if self._broken is None:
                    self._broken = f"bank: no step for {still:.0f} s; its process hangs"
                    threading.Thread(target=self._break, args=(self._broken,), daemon=True).start()
            raise BankError(self._broken)

    def _break(self, why: str) -> None:
        self._broken = why
        self._end()

    def _end(self) -> None:
        """Let the clients hear of it; then Ray starts the process again."""
        time.sleep(2 * POLL_SECONDS)
        os._exit(1)


def _this_node() -> set[str]:
    """The hex id of this process's Ray node; nothing outside of Ray."""
    import ray

    return {ray.get_runtime_context().get_node_id()} if ray.is_initialized() else set()


def _outcome(error: Exception) -> str:
    """What becomes of a trial that could not be prepared."""
    if isinstance(error, OutageError):
        return OUTAGE
    return "data_error" if isinstance(error, PacksError) else "failed"
