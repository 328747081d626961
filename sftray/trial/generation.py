"""Greedy answers of a model, one prompt at a time, by transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sftray.metrics import ANSWER_TOKENS
from sftray.trial.samples import Reply


@torch.no_grad()
def reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, object]],
    end_of_turn: int,
    max_new_tokens: int = ANSWER_TOKENS,
) -> Reply:
    """The greedy answer to `messages` (role, content), through the chat template, until the token
    `end_of_turn` or what the model's own configuration names; and whether it came to that end."""
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
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    end_of_turn: int,
    prompts: Sequence[Sequence[Mapping[str, object]]],
) -> list[Reply]:
    """`reply` of the base, by itself or beneath an adapter, to each conversation of messages."""
    with model.disable_adapter() if isinstance(model, PeftModel) else contextlib.nullcontext():
        return [reply(model, tokenizer, messages, end_of_turn) for messages in prompts]


def end_tokens(model: PreTrainedModel, end_of_turn: int) -> set[int]:
    """What ends an answer: the end of a turn, and what the model's own configuration names."""
    own = model.generation_config.eos_token_id
    return {end_of_turn, *([own] if isinstance(own, int) else own or [])}


def end_with_turns(model: PreTrainedModel, end_of_turn: int) -> None:
    """Have the model's own configuration end answers with a turn: a base that was not trained to
    chat does not know what ends one."""
    ends = end_tokens(model, end_of_turn)
    model.generation_config.eos_token_id = sorted(ends) if len(ends) > 1 else end_of_turn
