"""Greedy answers of a model, one prompt at a time, by transformers.

Promise: the likeliest token at each step and nothing else: what a base's own generation
configuration would do to it (repetition_penalty, suppress_tokens, …) is left out, as a bank, which
answers without transformers, leaves it out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from sftray.metrics import ANSWER_TOKENS
from sftray.trial.samples import Reply


@torch.no_grad()
def reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    end_of_turn: int,
    max_new_tokens: int = ANSWER_TOKENS,
) -> Reply:
    """The greedy answer to a prompt's tokens, until the token `end_of_turn` or what the model's own
    configuration names; and whether it came to that end."""
    ends = end_tokens(model, end_of_turn)
    asked = torch.tensor([list(prompt)], device=model.device)
    with _greedy(model):
        output = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted(ends),
        )
    answer = output[0, len(prompt) :].tolist()
    return str(tokenizer.decode(answer, skip_special_tokens=True)), answer[-1] in ends


def base_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    end_of_turn: int,
    prompts: Sequence[Sequence[int]],
) -> list[Reply]:
    """`reply` of the base, by itself or beneath an adapter, to each prompt."""
    with model.disable_adapter() if isinstance(model, PeftModel) else contextlib.nullcontext():
        return [reply(model, tokenizer, prompt, end_of_turn) for prompt in prompts]


@contextlib.contextmanager
def _greedy(model: PreTrainedModel) -> Iterator[None]:
    """Without the model's own generation configuration, of which `generate` takes whatever it is
    not given."""
    models = [model, *([model.get_base_model()] if isinstance(model, PeftModel) else [])]
    own = [one.generation_config for one in models]
    for one in models:
        one.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for one, config in zip(models, own, strict=True):
            one.generation_config = config


def end_tokens(model: PreTrainedModel, end_of_turn: int) -> set[int]:
    """What ends an answer: the end of a turn, and what the model's own configuration names."""
    own = model.generation_config.eos_token_id
    return {end_of_turn, *([own] if isinstance(own, int) else own or [])}


def end_with_turns(model: PreTrainedModel, end_of_turn: int) -> None:
    """Have the model's own configuration end answers with a turn: a base that was not trained to
    chat does not know what ends one."""
    ends = end_tokens(model, end_of_turn)
    model.generation_config.eos_token_id = sorted(ends) if len(ends) > 1 else end_of_turn
