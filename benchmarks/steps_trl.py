"""TRL's side of bank.py: SFTTrainer with LoRA over pre-packed rows, one optimizer step a
micro-batch, the fastest attention that is proved to compute the base. Its fused head makes logits
only where a token is trained on.

Its adapters are made float32 after construction: TRL casts them to bfloat16, in which updates of
1e-5 are lost, and the bank trains float32. Everything else is TRL's default.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoraConfig
from shapes import base_of, tokenizer_of
from timing import WARM_UP, Clock, Speed, free_memory, speed
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.integrations.liger import apply_liger_kernel
from trl import SFTConfig, SFTTrainer

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.trainers.ray_train.sft_arguments import liger_works
from sftray.trial.gpu_memory import is_out_of_memory, peak_memory_gb
from sftray.trial.proof import prove

MICRO_BATCHES = (4096, 8192, 16384, 32768)
"""Positions of the micro-batches that are tried for TRL's fastest."""
TRIED = 4
"""Steps that a configuration is tried for."""


@dataclass(frozen=True)
class Flags:
    """What a user can set that makes TRL faster or slower."""

    micro_batch_size: int
    liger: bool
    activation_checkpointing: bool

    def __str__(self) -> str:
        checkpointing = "checkpointing" if self.activation_checkpointing else "no checkpointing"
        rows = "1 row" if self.micro_batch_size == 1 else f"{self.micro_batch_size} rows"
        return f"{rows}, {'Liger, ' if self.liger else ''}{checkpointing}"


class Trl:
    """One base, trained under one set of flags after another."""

    def __init__(
        self, shape: str, packs: Packs, device: torch.device, precision: str = "nf4"
    ) -> None:
        trial = TrialConfig(shape, base_precision=precision)
        self._rows, self._length, self._device = packs.dataset("train"), packs.max_length, device
        self._model = base_of(trial, device)
        # the fastest that computes this base: a broken kernel would be fast, too
        self.attention = prove(self._model, trial, packs.max_length).attention.name
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer_of(shape))

    def as_taught(self, repeats: int) -> Speed:
        """Micro-batches of one row under activation checkpointing, as tutorials have it."""
        return self.measure(Flags(1, liger=False, activation_checkpointing=True), repeats)

    def fastest(self, repeats: int) -> tuple[Speed, list[Speed]]:
        """The fastest micro-batch and flags, and all that were tried.

        Micro-batches grow until that makes nothing faster. One that does not fit is tried again
        with activation checkpointing, which only costs time where a micro-batch fits without.
        """
        on_gpu = self._device.type == "cuda"
        liger = liger_works(self._model)
        checkpointing = False
        tried: list[tuple[Speed, Flags]] = []
        for positions in MICRO_BATCHES if on_gpu else (512,):
            flags = Flags(max(1, positions // self._length), liger, checkpointing)
            measured = self._try(flags, TRIED)
            if measured is None and not checkpointing:
                checkpointing = True
                flags = replace(flags, activation_checkpointing=True)
                measured = self._try(flags, TRIED)
            if measured is None:
                break
            tried.append((measured, flags))
            if len(tried) > 1 and measured.positions_per_second < tried[-2][0].positions_per_second:
                break
        tried.sort(key=lambda pair: pair[0].positions_per_second, reverse=True)
        for _, flags in tried:
            best = self._try(flags, repeats)
            if best is not None:
                return best, [measured for measured, _ in tried]
        raise RuntimeError(f"TRL: no micro-batch of {MICRO_BATCHES[0]} positions fits this GPU")

    def _try(self, flags: Flags, repeats: int) -> Speed | None:
        """None where it does not fit the GPU."""
        try:
            return self.measure(flags, repeats)
        except RuntimeError as error:
            if is_out_of_memory(error):
                return None
            raise

    def measure(self, flags: Flags, repeats: int) -> Speed:
        """Its speed under these flags."""
        free_memory()
        steps, size = WARM_UP + repeats, flags.micro_batch_size
        rows = self._rows.select([i % len(self._rows) for i in range(steps * size)])
        on_gpu = self._device.type == "cuda"
        clock = Clock(self._device)
        with tempfile.TemporaryDirectory() as scratch:
            arguments = SFTConfig(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=size,
                learning_rate=1e-4,
                max_grad_norm=1.0,
                train_sampling_strategy="sequential",
                bf16=on_gpu,
                use_cpu=not on_gpu,
                packing=True,
                max_length=self._length,
                dataset_kwargs={"skip_prepare_dataset": True},  # rows are packed already
                activation_checkpointing=flags.activation_checkpointing,
                logging_steps=10,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            trainer = SFTTrainer(
                self._model,
                args=arguments,
                train_dataset=rows,
                processing_class=self._tokenizer,
                peft_config=LoraConfig(
                    r=16,
                    lora_alpha=32,
                    lora_dropout=0.0,
                    target_modules="all-linear",
                    task_type="CAUSAL_LM",
                ),
                callbacks=[_Ticks(clock)],
            )
            trainer.remove_callback(PrinterCallback)
            if flags.liger:  # its own head would take the place of TRL's
                apply_liger_kernel(trainer.model, {"fused_linear_cross_entropy": False})
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
            try:
                trainer.train()
            finally:
                self._unwrap(trainer)
        return speed(
            str(flags),
            clock,
            rows=size,
            length=self._length,
            supervised=sum(_supervised(row) for row in rows),
            peak_gib=peak_memory_gb(self._device),
        )

    def _unwrap(self, trainer: Any) -> None:
        """Take the adapter off the base, so that the next flags begin where these began."""
        self._model = trainer.model.unload()
        self._model.activation_checkpointing_disable()


class _Ticks(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._clock.tick()


def _supervised(row: dict[str, Any]) -> int:
    return sum(label != -100 for label in row["labels"])
