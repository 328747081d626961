"""Eval loss of what a trial has trained, outside of it: the check of the winner, and of a merged
model.

Promise: plain transformers and PEFT, the logits and torch's own cross-entropy; none of the
trainer's code, so that what it reports is checked by something else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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
        model, attention = _base_of(trial, row_length(rows))
        return packed_eval_loss(model.eval(), rows, attention, trial, sources)
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
    device = model.get_input_embeddings().weight.device
    sources = sources or [(len(rows), 1.0)]
    of_row = np.repeat(np.arange(len(sources)), [number for number, _ in sources])
    sums = np.zeros((2, len(sources)))
    for source, row in zip(of_row, rows.with_format("numpy"), strict=True):
        for batch in model_inputs(collate([row], attention.layout)):
            labels = batch.pop("labels")[:, 1:].to(device)
            inputs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            with computing_as(trial, device) if autocast else contextlib.nullcontext():
                logits = model(**inputs, use_cache=False).logits[:, :-1]
            supervised = labels != -100
            losses = functional.cross_entropy(
                logits[supervised].float(), labels[supervised], reduction="none"
            )
            sums[:, source] += float(losses.double().sum()), int(supervised.sum())
    means = sums[0] / sums[1]
    return math.fsum(w * loss for (_, w), loss in zip(sources, means, strict=True) if w)
