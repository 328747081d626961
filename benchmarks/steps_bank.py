"""The bank's side of bank.py: K slots, a micro-batch of one row each, an optimizer step after every
micro-step; on a GPU as CUDA graphs. Rows, buffers, replay and optimizer are driven as
`sftray.trainers.bank.engine.Engine.advance` drives them; settings are those a sweep would take.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from shapes import base_of, model_config
from timing import WARM_UP, Clock, Speed, free_memory, speed

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.data.packs.packs import MappedRows, Packs
from sftray.plan.bank_settings import BankSettings, bank_memory, choose_settings
from sftray.plan.memory import Memory
from sftray.plan.model_shape import PROJECTIONS
from sftray.trainers.bank.adapters import Adapters, fresh_row, lay_out
from sftray.trainers.bank.batches import read_row
from sftray.trainers.bank.cuda_graphs import Graphs
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.decoder_proof import begin_proof
from sftray.trainers.bank.frozen_base import take_base
from sftray.trainers.bank.micro_steps import Steps, capacities
from sftray.trainers.bank.slot_optimizer import Optimizer, table_row
from sftray.trial.base_model import compute_dtype
from sftray.trial.gpu_memory import peak_memory_gb


class Bank:
    """A bank in which every slot is due at every step."""

    def __init__(
        self,
        shape: str,
        slots: int,
        packs: Packs,
        device: torch.device,
        precision: str = "nf4",
    ) -> None:
        free_memory()
        self._trial = TrialConfig(
            shape,
            base_precision=precision,
            learning_rate=1e-4,
            effective_batch_size=1,
            micro_batch_size=1,
        )
        self._sweep = _sweep(self._trial, slots, packs.max_length)
        self.settings = _settings(self._sweep, device)
        self._rows = MappedRows(packs.dataset("train"))
        self._device, self._step = device, 0
        dtype = compute_dtype(self._trial, device)
        model, resident = base_of(self._trial, device).eval(), self.settings.resident
        end_proof = begin_proof(model, self._trial, packs.max_length, resident=resident)
        base = take_base(model, dtype, resident=resident)
        layout = lay_out(base.shape, PROJECTIONS, self._trial.lora_r)
        self._decoder = Decoder(base, layout, packs.max_length, None)
        self.proof = end_proof(self._decoder).text()
        self.attention = self._decoder.attention.name
        self._adapters = Adapters(layout, slots, dtype, device)
        self._optimizer = Optimizer(self._adapters)
        row = fresh_row(layout, self._trial.lora_r, self._trial.seed, PROJECTIONS)
        for slot in range(slots):
            self._adapters.admit(slot, row, self._trial.lora_scale)

    def memory(self) -> Memory:
        """What it should take."""
        return bank_memory(self.settings, self._sweep, model_config(self._trial.model).to_dict())

    def measure(self, repeats: int) -> Speed:
        """Its speed over `repeats` steps."""
        free_memory()
        advance = self.stepper(graphs=self._device.type == "cuda")
        clock, supervised = Clock(self._device), 0
        for _ in range(WARM_UP + repeats):
            supervised += advance()
            clock.tick()
        return speed(
            str(self),
            clock,
            rows=self._adapters.slots,
            length=self._rows.max_length,
            supervised=supervised,
            peak_gib=peak_memory_gb(self._device),
        )

    def stepper(self, *, graphs: bool) -> Callable[[], int]:
        """A function that takes a step of all slots and returns the tokens trained on."""
        slots = self._adapters.slots
        steps = Steps(
            self._decoder,
            self._adapters,
            self._optimizer.loss,
            rows=1,
            recompute=self.settings.activation_checkpointing,
            capacities=capacities(self._rows, slots) if graphs else (),
            graphs=Graphs() if graphs else None,
        )

        def advance() -> int:
            first = self._step * slots
            rows = [read_row(self._rows[i % len(self._rows)]) for i in range(first, first + slots)]
            self._step += 1
            steps.run(rows)
            tokens = [len(row.where) for row in rows]
            self._optimizer.step(
                {
                    slot: (
                        table_row(self._trial, self._step, self._trial.learning_rate, count),
                        None,
                    )
                    for slot, count in enumerate(tokens)
                }
            )
            self._optimizer.done(wait=False)
            return sum(tokens)

        return advance

    def __str__(self) -> str:
        held = "resident base" if self.settings.resident else "4-bit base"
        again = ", checkpointing" if self.settings.activation_checkpointing else ""
        return f"{self._adapters.slots} slots × 1 row, {held}{again}"


def _sweep(trial: TrialConfig, slots: int, length: int) -> SweepConfig:
    """A sweep of as many trials as there are slots."""
    return SweepConfig(
        name="bank",
        data=DataConfig("rows", max_length=length),
        trial=trial,
        points=tuple({"seed": seed} for seed in range(slots)),
        bank_slots=slots,
    )


def _settings(sweep: SweepConfig, device: torch.device) -> BankSettings:
    """What the sweep would take on this device."""
    memory = None
    if device.type == "cuda":
        memory = float(torch.cuda.mem_get_info()[0])
    shape = sweep.trial.model
    settings = choose_settings(sweep, model_config(shape).to_dict(), memory=memory)
    if settings is None:
        raise RuntimeError(f"{shape}: {sweep.bank_slots} slots do not fit this GPU")
    return settings
