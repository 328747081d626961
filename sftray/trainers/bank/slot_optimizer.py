"""AdamW, clipping and learning rate of every slot, as rows of a table.

Promise: a slot's step is that of torch's AdamW on the gradient of its mean loss, clipped to its own
norm by max / (norm + 1e-6); slots that are not due are not touched; a slot whose loss or gradient
is not finite stays as it was, and its neighbours never see it. Nothing waits for the device: loss
and norm come back when they are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import torch

from sftray.config import TrialConfig
from sftray.trainers.bank import torch_ops as ops
from sftray.trainers.bank.adapters import Adapters
from sftray.trainers.bank.backend import fastest
from sftray.trainers.bank.transfer import Downloads, Upload

TOKENS, DUE = 9, 10
"""Columns of the table that the step itself uses, after those of `torch_ops`."""
COLUMNS = 11
EPSILON = 1e-8
"""AdamW's, as transformers sets it."""


Note = TypeVar("Note")


class Optimizer(Generic[Note]):
    """Steps the slots of a bank."""

    def __init__(self, adapters: Adapters) -> None:
        self._adapters = adapters
        device = adapters.param.device
        self.loss = torch.zeros(adapters.slots, device=device)
        """The sum of token losses since each slot's last step, float32 [K]."""
        self._upload = Upload(adapters.slots * COLUMNS, torch.float32, device)
        self._downloads: Downloads[dict[int, Note]] = Downloads()
        self._ops = fastest(device)

    @torch.no_grad()
    def step(self, due: Mapping[int, tuple[list[float], Note]]) -> None:
        """Step the slots that are due: slot → (its `table_row`, a note that comes back)."""
        host = self._upload.host().view(-1, COLUMNS)
        host[:] = torch.tensor(_NOT_DUE)
        for slot, (row, _) in due.items():
            host[slot] = torch.tensor(row)
        self._upload.send()
        adapters, table = self._adapters, self._upload.device.view(-1, COLUMNS)
        split, tokens, wanted = adapters.layout.split, table[:, TOKENS], table[:, DUE] > 0
        norms = self._ops.row_norms(adapters.grad, table, split) / tokens
        clip = (table[:, ops.MAX_NORM] / (norms + 1e-6)).clamp(max=1)
        finite = torch.isfinite(norms) & torch.isfinite(self.loss)
        self._ops.adamw_(
            adapters.param,
            adapters.grad,
            adapters.moments,
            adapters.work,
            table,
            clip / tokens,
            wanted & finite,
            split,
        )
        notes = {slot: note for slot, (_, note) in due.items()}
        self._downloads.start(torch.stack([self.loss / tokens, norms], dim=1), notes)
        self.loss.masked_fill_(wanted, 0)

    def done(self, *, wait: bool) -> list[tuple[Note, float, float]]:
        """The steps that have come back, oldest first, all of them with `wait`: the note, the mean
        loss per supervised token, and the gradient's norm before clipping."""
        return [
            (note, float(values[slot, 0]), float(values[slot, 1]))
            for values, notes in self._downloads.arrived(wait=wait)
            for slot, note in notes.items()
        ]


def table_row(trial: TrialConfig, step: int, rate: float, tokens: int) -> list[float]:
    """What the table holds for optimizer step `step` (from 1) at `rate`, over `tokens` supervised
    tokens."""
    row = [0.0] * COLUMNS
    row[ops.LR], row[ops.EPS], row[ops.DECAY] = rate, EPSILON, trial.weight_decay
    row[ops.BETA1], row[ops.BETA2] = trial.adam_beta1, trial.adam_beta2
    row[ops.CORRECTION1] = 1 - trial.adam_beta1**step
    row[ops.CORRECTION2] = 1 - trial.adam_beta2**step
    row[ops.LORA_SCALE], row[ops.MAX_NORM] = trial.lora_scale, trial.max_grad_norm
    row[TOKENS], row[DUE] = max(tokens, 1), 1.0
    return row


_NOT_DUE = [1.0] * DUE + [0.0]
