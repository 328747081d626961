"""The `bank` trainer at work for a sweep: a bank on every GPU, or one on the CPUs.

Promise: the base is loading while the packs are built; a slot is given to the next trial as soon as
the last is done with it. Neither torch nor the base come to the driver.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import ray
from ray import tune
from ray.exceptions import RayActorError

from sftray.cluster.connect import Cluster, head_has_cpus
from sftray.config import SweepConfig
from sftray.errors import Log
from sftray.plan.bank_settings import BankSettings, choose_settings
from sftray.plan.device_fit import DeviceFit
from sftray.results.recorder import Recorder
from sftray.search.search import Search
from sftray.storage import files
from sftray.storage.model_files import BaseConfig
from sftray.trainers.bank.bank_client import RETRY_SECONDS, BankClient, RollCall
from sftray.trainers.bank.bank_process import BankProcess, Opening
from sftray.trainers.runner import FittedTrainer, TrialSpecs, submit_task, tune_trials

if TYPE_CHECKING:
    from ray import ObjectRef

THREADS = 256
"""Methods that a bank runs at the same time; each client's question is one."""
A_SLIVER = 0.001
"""Of a CPU."""
SPARE = 4
"""One trial more than there are slots stands ready to enter for so many slots: trials of one length
end together, and Tune brings new ones one after another."""


TELL_SECONDS = 30.0
"""While no GPU has come, this is said so often."""
LATE_SECONDS = 60.0
"""How long the first bank waits for the others: where a cloud has fewer GPUs than were asked for,
the rest may never come."""
ANSWER_SECONDS = 10.0
"""A bank that is there answers at once."""
TRIES = 2
"""How often what a bank was asked for is asked again that died over it."""


class BankRunner:
    """Starts the banks, fills them with trials and ends them."""

    def __init__(self, cluster: Cluster, sweep: SweepConfig, log: Log) -> None:
        """Raises ConfigError where not even one trial fits the cluster."""
        most = cluster.concurrency(sweep)
        use_gpu = cluster.use_gpu(sweep)
        remote = ray.remote(BankProcess).options(
            # one thread that waits for the GPU; on a CPU, nothing else runs. But a head that is to
            # train nothing has no CPU at all, and a bank that asks for none would come to lie there
            num_cpus=0 if use_gpu or head_has_cpus() else A_SLIVER,
            num_gpus=1 if use_gpu else 0,
            max_restarts=sweep.max_failures,
            max_concurrency=THREADS,
        )
        asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # the first of nested ones
        threads = int(asked) if asked.isdigit() else max(1, int(cluster.cpus))
        self._banks = [
            remote.remote(
                sweep.trial, use_gpu=use_gpu, threads=threads, hang_seconds=60 * sweep.hang_minutes
            )
            for _ in range(min(most, int(cluster.gpus)) if use_gpu else 1)
        ]
        self.gpus = len(self._banks) if use_gpu else 0
        self._log = log

    def fit(self, sweep: SweepConfig, base: BaseConfig) -> FittedTrainer | None:
        memory = self._memory()
        known = [free for free in memory if free is not None]
        settings = choose_settings(
            sweep,
            base,
            memory=min(known) if len(known) == len(memory) else None,
            banks=len(self._banks),
        )
        if settings is None:
            return None
        fit = DeviceFit(settings.execution, at_once=len(self._banks) * settings.slots)
        return FittedTrainer(fit, partial(self._run, settings))

    def _run(
        self, settings: BankSettings, specs: TrialSpecs, search: Search, recorder: Recorder
    ) -> None:
        at_once = len(self._banks) * (settings.slots + max(1, settings.slots // SPARE))
        if specs.sweep.max_concurrent_trials is not None:
            at_once = min(at_once, specs.sweep.max_concurrent_trials)
        left = search.remaining()
        opening = Opening(specs.packs, settings, specs.sweep)
        expected = max(1, min(left, at_once) // len(self._banks))
        for bank in self._banks:
            bank.open.remote(opening, expected)
        trainable = tune.with_parameters(
            BankClient, banks=self._banks, to_spec=specs.of, opening=opening
        )
        tune_trials(trainable, specs, search, recorder, at_once=at_once, free=self._free)
        used = self._usage()
        files.write_text(specs.paths.banks, json.dumps(used, indent=1))
        for usage in used:
            self._log(usage_text(usage))

    def submit(self, function: Callable[..., object], *arguments: object) -> ObjectRef:
        """In the process of a bank that is there, which has all that it takes loaded; in one of its
        own where no bank is started again."""
        roll = RollCall(self._banks)
        while not (there := roll.leases(ANSWER_SECONDS)):
            if roll.all_dead:
                return submit_task(function, *arguments, use_gpu=self.gpus > 0)
            self._log("waiting for a bank's machine to check the winner on")
            time.sleep(RETRY_SECONDS)
        return self._banks[min(there)].lend.remote(function, *arguments)

    def close(self) -> None:
        for bank in self._banks:
            ray.kill(bank)

    def _memory(self) -> list[float | None]:
        """`BankProcess.memory` of the banks that are there: of all, or of those that have come in
        time; the others join when they come."""
        waiting = [bank.memory.options(max_task_retries=TRIES).remote() for bank in self._banks]
        memory: list[float | None] = []
        began, until = time.monotonic(), float("inf")
        while waiting and time.monotonic() < until:
            ready, waiting = ray.wait(waiting, timeout=TELL_SECONDS)
            memory += ray.get(ready)
            if ready:
                until = time.monotonic() + LATE_SECONDS
            elif not memory:
                passed = (time.monotonic() - began) / 60
                self._log(f"waiting for {len(waiting)} machines, {passed:.1f} min so far")
        if waiting:
            there = f"{len(memory)} of {len(self._banks)} banks are ready"
            self._log(f"{there}; the sweep begins, and the others join when their machines come")
        return memory

    def _usage(self) -> list[dict[str, float]]:
        """`BankProcess.usage` of the banks that are there and were built."""
        used = []
        for number in RollCall(self._banks).leases(ANSWER_SECONDS):
            with contextlib.suppress(RayActorError):  # it has died since
                used.append(ray.get(self._banks[number].usage.remote()))
        return [usage for usage in used if usage]

    def _free(self, trial: str) -> None:
        """Let go of a trial that has ended, before Tune gets round to telling its client."""
        for bank in self._banks:
            bank.drop.remote(trial)


def usage_text(used: Mapping[str, float]) -> str:
    """How well a bank was used, in one line, from what `banks.json` says of it."""
    after = used["since"] - used["warm_up"]
    training, evaluation = (100 * used[name] / after for name in ("training", "evaluation"))
    filled = used["slot_steps"] / max(used["micro_steps"], 1)
    start = used["importing"] + used["loading"]
    return (
        f"bank: base loaded after {start:.1f} s, warm after {used['warm_up']:.1f} s more; "
        f"{used['micro_steps']:,} micro-steps in {after:.1f} s, "
        f"{training:.0f} % of it training and {evaluation:.0f} % evaluation, "
        f"{filled:.1f} slots busy, {1000 * used['admission'] / max(used['admitted'], 1):.0f} ms to "
        "fill a slot"
    )
