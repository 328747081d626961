"""Eval loss of what a trial has trained, outside of it: the check of the winner, and of a merged
model.

Promise: plain transformers and PEFT, the logits and torch's own cross-entropy; none of the
trainer's code, so that what it reports is checked by something else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from sftray.config import TrialConfig
from sftray.trial.attention import Attention, possible_attentions, use_attention
from sftray.trial.base_model import computing_as, load_base, pretrained
from sftray.trial.collate import collate, model_inputs
from sftray.trial.kept_proofs import prove_once
from sftray.trial.proof import prove

Sources = Sequence[tuple[int, float]]
"""Rows of each source, which lie behind one another, and its weight in the eval loss."""


def default_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def evaluate_adapter(
    adapter: Path, trial: TrialConfig, rows: Dataset, sources: Sources = ()
) -> float:
    """Eval loss of the PEFT adapter in a local folder on its base, as the trial ran it."""
    model, attention = load_trained(adapter, trial, row_length(rows))
    return packed_eval_loss(model, rows, attention, trial, sources)


def load_trained(
    folder: Path, trial: TrialConfig, max_length: int
) -> tuple[PreTrainedModel, Attention]:
    """What a trial has trained and a local folder holds, as the trial ran it, in eval mode: an
    adapter on its base, loaded by plain PEFT, or a whole model; with the attention that
    is proved for rows of `max_length` tokens."""
    if trial.finetune == "lora":
        base, attention = _base_of(trial, max_length)
        model = PeftModel.from_pretrained(base, str(folder))
    else:
        model, attention = _base_of(_of_folder(trial, folder), max_length)
    return model.eval(), attention


def load_untrained(trial: TrialConfig) -> PreTrainedModel:
    """The base as the trial held it, in eval mode, to be asked with the attention of transformers'
    own choice."""
    model = load_base(trial, default_device())
    use_attention(model, possible_attentions(trial, model.device)[0])
    return model.eval()


def base_for_rows(trial: TrialConfig, max_length: int) -> tuple[PreTrainedModel, Attention]:
    """The base as the trial held it, in eval mode, for rows of `max_length` tokens."""
    model, attention = _base_of(trial, max_length)
    return model.eval(), attention


def _of_folder(trial: TrialConfig, folder: Path) -> TrialConfig:
    """The trial with the whole model in a local folder as its base."""
    return replace(trial, model=str(folder), model_revision=None)


def row_length(rows: Dataset) -> int:
    """Tokens of each packed row."""
    return len(rows[0]["input_ids"])


def _base_of(trial: TrialConfig, max_length: int) -> tuple[PreTrainedModel, Attention]:
    model = load_base(trial, default_device())
    return model, prove_once(model, trial, max_length).attention


def evaluate_model(
    folder: Path,
    trial: TrialConfig,
    rows: Dataset,
    dtype: torch.dtype | None = None,
    sources: Sources = (),
) -> float:
    """Eval loss of a whole model in a local folder, in `dtype` throughout, as one would serve it;
    None: as the trial holds its base, which is then that folder."""
    if dtype is None:
        model, attention = base_for_rows(trial, row_length(rows))
        return packed_eval_loss(model, rows, attention, trial, sources)
    precision = "fp32" if dtype == torch.float32 else "bf16"
    plain = replace(
        _of_folder(trial, folder), base_precision=precision, attention=None, shard_base=False
    )
    model = pretrained(plain, dtype, device_map={"": default_device()}, attn_implementation="eager")
    attention = prove(model, plain, row_length(rows), contextlib.nullcontext).attention
    return packed_eval_loss(model.eval(), rows, attention, plain, sources, autocast=False)


@torch.no_grad()
def packed_eval_loss(
    model: PreTrainedModel,
    rows: Dataset,
    attention: Attention,
    trial: TrialConfig,
    sources: Sources = (),
    *,
    autocast: bool = True,
) -> float:
    """Sum of token losses over the number of supervised tokens, in nats, of several `sources` their
    weighted mean; one row at a time.

    With `autocast` computed as the trial computes, else in the model's own dtype.
    """
    sources = sources or [(len(rows), 1.0)]
    of_row = np.repeat(np.arange(len(sources)), [number for number, _ in sources])
    sums = np.zeros((2, len(sources)))
    for source, row in zip(of_row, rows.with_format("numpy"), strict=True):
        for losses, _ in _losses_of(model, row, attention, trial, autocast=autocast):
            sums[:, source] += float(losses.double().sum()), len(losses)
    means = sums[0] / sums[1]
    return math.fsum(w * loss for (_, w), loss in zip(sources, means, strict=True) if w)


@torch.no_grad()
def conversation_losses(
    model: PreTrainedModel, rows: Dataset, attention: Attention, trial: TrialConfig
) -> list[tuple[int, int, float, int]]:
    """Of each document its row, the ordinal of its conversation, the sum of its token losses and
    how many there are; one row at a time."""
    found = []
    for number, row in enumerate(rows.with_format("numpy")):
        lengths, ordinals = row["seq_lengths"], row["documents"]
        marked = {**row, "kinds": np.repeat(np.arange(len(lengths)), lengths)}
        sums, counts = np.zeros(len(lengths)), np.zeros(len(lengths), int)
        for losses, documents in _losses_of(model, marked, attention, trial, marked=True):
            np.add.at(sums, documents.numpy(), losses.double().cpu().numpy())
            np.add.at(counts, documents.numpy(), 1)
        found += [
            (number, int(ordinal), float(loss), int(count))
            for ordinal, loss, count in zip(ordinals, sums, counts, strict=False)  # but padding
        ]
    return found


def _losses_of(
    model: PreTrainedModel,
    row: Mapping[str, Any],
    attention: Attention,
    trial: TrialConfig,
    *,
    autocast: bool = True,
    marked: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The losses of a row's supervised tokens, group of documents by group, and the `kinds` that
    they are marked with."""
    device = model.get_input_embeddings().weight.device
    for batch in model_inputs(collate([row], attention.layout, kinds=marked)):
        labels = batch.pop("labels")[:, 1:]
        supervised = labels != -100
        marks = batch.pop("kinds")[:, 1:][supervised] if marked else labels
        inputs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        with computing_as(trial, device) if autocast else contextlib.nullcontext():
            logits = model(**inputs, use_cache=False).logits[:, :-1]
        picked, targets = logits[supervised.to(device)], labels[supervised].to(device)
        yield functional.cross_entropy(picked.float(), targets, reduction="none"), marks
