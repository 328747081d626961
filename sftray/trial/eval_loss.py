"""Eval loss of what a trial has trained, outside of it: the check of the winner, and of a merged
model.

Promise: plain transformers and PEFT, the logits and torch's own cross-entropy; none of the
trainer's code, so that what it reports is checked by something else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM

from sftray.config import TrialConfig
from sftray.metrics import ANSWER_TOKENS
from sftray.trial.attention import Attention, choose_attention, prove_isolation, settle_attention
from sftray.trial.base_model import compute_dtype, load_base
from sftray.trial.collate import collate


def default_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def evaluate_adapter(adapter: Path, trial: TrialConfig, rows: Any) -> float:
    """Eval loss of the PEFT adapter in a local folder on its base, as the trial ran it."""
    model, attention = load_adapter(adapter, trial)
    return packed_eval_loss(model, rows, attention, trial)


def load_adapter(adapter: Path, trial: TrialConfig) -> tuple[Any, Attention]:
    """The base as the trial held it, with the adapter loaded by plain PEFT, in eval mode."""
    base, attention = _base_of(trial)
    model = PeftModel.from_pretrained(base, str(adapter))
    prove_isolation(model, attention)
    return model.eval(), attention


def load_trained(folder: Path, trial: TrialConfig) -> tuple[Any, Attention]:
    """What a trial has trained and a local folder holds, as the trial ran it, in eval mode: an
    adapter on its base, or a whole model."""
    if trial.finetune == "lora":
        return load_adapter(folder, trial)
    model, attention = _base_of(replace(trial, model=str(folder), model_revision=None))
    prove_isolation(model, attention)
    return model.eval(), attention


def load_untrained(trial: TrialConfig) -> Any:
    """The base as the trial held it, in eval mode."""
    return _base_of(trial)[0].eval()


def _base_of(trial: TrialConfig) -> tuple[Any, Attention]:
    device = default_device()
    attention = choose_attention(trial, device)
    model = load_base(trial, device, attention)
    return model, settle_attention(model, attention, trial)


def evaluate_model(
    folder: Path, trial: TrialConfig, rows: Any, dtype: torch.dtype | None = None
) -> float:
    """Eval loss of a whole model in a local folder, in `dtype` throughout, as one would serve it;
    None: as the trial holds its base, which is then that folder."""
    if dtype is None:
        model, attention = _base_of(trial)
        return packed_eval_loss(model.eval(), rows, attention, trial)
    device = default_device()
    precision = "fp32" if dtype == torch.float32 else "bf16"
    plain = replace(trial, base_precision=precision, attention=None, shard_base=False)
    attention = choose_attention(plain, device)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": device},
        attn_implementation=attention.implementation,
        trust_remote_code=trial.trust_remote_code,
        use_safetensors=True,
    )
    attention = settle_attention(model, attention, plain)
    return packed_eval_loss(model.eval(), rows, attention, plain, autocast=False)


def computing_as(trial: TrialConfig, device: torch.device) -> torch.autocast:
    """A context in which weights of float32 are computed with as the trial does."""
    enabled = compute_dtype(trial, device) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@torch.no_grad()
def packed_eval_loss(
    model: Any, rows: Any, attention: Attention, trial: TrialConfig, *, autocast: bool = True
) -> float:
    """Sum of token losses over the number of supervised tokens, in nats; one row at a time.

    With `autocast` computed as the trial computes, else in the model's own dtype.
    """
    device = model.get_input_embeddings().weight.device
    total, count = 0.0, 0
    for row in rows.with_format("numpy"):
        batch = collate([row], flatten=attention.flatten)
        labels = batch.pop("labels")[0, 1:].to(device)
        inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        with computing_as(trial, device) if autocast else contextlib.nullcontext():
            logits = model(**inputs, use_cache=False).logits[0, :-1]
        supervised = labels != -100
        losses = functional.cross_entropy(
            logits[supervised].float(), labels[supervised], reduction="none"
        )
        total += float(losses.double().sum())
        count += int(supervised.sum())
    return total / count


def generate(
    model: Any, tokenizer: Any, messages: Any, end_of_turn: int, max_new_tokens: int = ANSWER_TOKENS
) -> str:
    """The greedy answer to `messages` (role, content), through the chat template, until the token
    `end_of_turn` or what the model's own configuration names."""
    return reply(model, tokenizer, messages, end_of_turn, max_new_tokens)[0]


@torch.no_grad()
def reply(
    model: Any, tokenizer: Any, messages: Any, end_of_turn: int, max_new_tokens: int = ANSWER_TOKENS
) -> tuple[str, bool]:
    """As `generate`, and whether the answer came to its end by itself."""
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    ends = end_tokens(model, end_of_turn)
    output = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(ends),
    )
    answer = output[0, inputs["input_ids"].shape[1] :].tolist()
    return str(tokenizer.decode(answer, skip_special_tokens=True)), answer[-1] in ends


def base_answers(
    model: Any, tokenizer: Any, end_of_turn: int, prompts: Sequence[Any]
) -> list[tuple[str, bool]]:
    """`reply` of the base, by itself or beneath an adapter, to each conversation of messages."""
    with model.disable_adapter() if isinstance(model, PeftModel) else contextlib.nullcontext():
        return [reply(model, tokenizer, messages, end_of_turn) for messages in prompts]


def end_tokens(model: Any, end_of_turn: int) -> set[int]:
    """What ends an answer: the end of a turn, and what the model's own configuration names."""
    own = model.generation_config.eos_token_id
    return {end_of_turn, *([own] if isinstance(own, int) else own or [])}


def end_with_turns(model: Any, end_of_turn: int) -> None:
    """Have the model's own configuration end answers with a turn: a base that was not trained to
    chat does not know what ends one."""
    ends = end_tokens(model, end_of_turn)
    model.generation_config.eos_token_id = sorted(ends) if len(ends) > 1 else end_of_turn
