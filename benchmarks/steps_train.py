"""sftray's side of train.py and memory.py: the `train` trainer over packed rows, one optimizer step
a micro-batch, with each of the things that make it faster taken away again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from shapes import random_model
from timing import WARM_UP, Clock, Speed, free_memory, quiet, speed
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTTrainer

from sftray.config import TrialConfig
from sftray.data.packs.packs import MappedRows, Packs
from sftray.demo import FOLDER
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import TrialPlan
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train import sft_trainer as trainer_file
from sftray.trainers.ray_train.fused_lora import make_resident
from sftray.trainers.ray_train.sft_trainer import PackedSFTTrainer
from sftray.trial.attention import possible_attentions
from sftray.trial.gpu_memory import peak_memory_gb

WAITLESS, LIGER, FUSED = "no waits for metrics", "Liger kernels", "fused LoRA"


@dataclass(frozen=True)
class Setting:
    """How steps are taken."""

    execution: Execution
    parts: Sequence[str] = (WAITLESS, LIGER, FUSED)
    spread: bool = False
    """The base over all workers."""


class Train:
    """One base, trained under one setting after another."""

    def __init__(
        self,
        shape: str,
        packs: Packs,
        device: torch.device,
        *,
        spread: bool = False,
        full: bool = False,
    ) -> None:
        self._trial = TrialConfig(shape, learning_rate=1e-4, lora_r=16)
        if full:
            self._trial = replace(self._trial, finetune="full", base_precision="bf16")
        self._attention = possible_attentions(self._trial, device)[0]
        self._packs, self._device = packs, device
        self._model = random_model(
            shape,
            device,
            self._attention,
            storage=torch.float32 if spread else None,
            quantised=not full,
        )
        self._tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self._resident = False

    def measure(self, setting: Setting, repeats: int, workers: int = 1) -> Speed:
        """Liger's kernels stay in a model, and so does a base that was dequantised: settings
        without them come first. Where all weights are trained, two micro-batches are a step, for
        gradients that wait for the next one."""
        accumulation = 2 if self._trial.finetune == "full" else 1
        rows = setting.execution.micro_batch_size * workers * accumulation
        trial = replace(
            self._trial,
            effective_batch_size=rows,
            micro_batch_size=setting.execution.micro_batch_size,
            num_workers=workers,
            shard_base=setting.spread,
        )
        plan = _plan(setting.execution, WARM_UP + repeats, rows, accumulation)
        if setting.execution.resident and not self._resident:
            make_resident(self._model)
            self._resident = True
        free_memory()
        clock = Clock(self._device)
        with tempfile.TemporaryDirectory() as scratch, _without(setting.parts):
            trainer = PackedSFTTrainer(
                self._model,
                self._tokenizer,
                trial,
                plan,
                self._packs,
                self._attention,
                TrialPaths(f"{scratch}/trial"),
                lambda report: None,
                Path(scratch),
            )
            trainer.add_callback(_Ticks(clock))
            try:
                trainer.train_from(None)
            finally:
                if not setting.spread and self._trial.finetune == "lora":  # else of no more use
                    self._model = trainer.model.unload()
                    self._model.activation_checkpointing_disable()
        found = speed(
            name(setting),
            clock,
            rows=rows,
            length=self._packs.max_length,
            supervised=_supervised(self._packs, plan.rows),
            peak_gib=peak_memory_gb(self._device),
        )
        del trainer
        return found


def measure_workers(
    shape: str, packs: Packs, setting: Setting, repeats: int, workers: int
) -> Speed:
    """The speed of so many workers, each a process with a GPU of its own, or a share of the CPU."""
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(
            target=_work, args=(shape, packs, setting, repeats, rank, workers, port, found)
        )
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    speed: Speed = found.get(timeout=WORKERS_SECONDS)
    for process in processes:
        process.join(timeout=WORKERS_SECONDS)
    return speed


WORKERS_SECONDS = 300


def _work(
    shape: str,
    packs: Packs,
    setting: Setting,
    repeats: int,
    rank: int,
    workers: int,
    port: int,
    found: Any,
) -> None:
    quiet()
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": workers, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    train = Train(shape, packs, device, spread=setting.spread)
    speed = train.measure(setting, repeats, workers)
    if rank == 0:
        found.put(speed)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _plan(execution: Execution, steps: int, rows: int, accumulation: int) -> TrialPlan:
    """So many steps of so many rows, without evaluations."""
    return TrialPlan(
        steps=steps,
        rows=steps * rows,
        rows_dropped=0,
        warmup_steps=1,
        execution=execution,
        accumulation=accumulation,
        rungs=(),
        eval_steps=(),
        bracket="",
    )


def name(setting: Setting) -> str:
    """In words."""
    execution = setting.execution
    return ", ".join(
        [
            f"{execution.micro_batch_size} rows",
            *setting.parts,
            *(["checkpointing"] if execution.activation_checkpointing else []),
            *(["dequantised once"] if execution.resident else []),
        ]
    )


@contextlib.contextmanager
def _without(parts: Sequence[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        replaced = [
            (WAITLESS, PackedSFTTrainer, "compute_loss", SFTTrainer.compute_loss),
            (WAITLESS, trainer_file, "fused_lm_head", lambda: lambda model, outputs: None),
            (LIGER, trainer_file, "liger_works", lambda model: False),
            (FUSED, trainer_file, "fuse_lora", lambda model: 0),
        ]
        for part, place, attribute, plain in replaced:
            if part not in parts:
                stack.enter_context(mock.patch.object(place, attribute, plain))
        yield


class _Ticks(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._clock.tick()


def _supervised(packs: Packs, count: int) -> int:
    rows = MappedRows(packs.dataset("train"))
    return sum(int((rows[index % len(rows)]["labels"] != -100).sum()) for index in range(count))
