"""Answers of a model, several prompts at once, by transformers.

Promise: the likeliest token at each step, or one drawn as `Sampling` says, and nothing else: what a
base's own generation configuration would do to it (repetition_penalty, suppress_tokens, …) is left
out, as a bank, which answers without transformers, leaves it out. Prompts are padded to one length
where the loaded model is seen to predict the same behind padding, and its rotary frequencies do not
depend on the longest of them; else it answers one at a time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from sftray.config.checks import require
from sftray.metrics import ANSWER_TOKENS
from sftray.trial.gpu_memory import free_memory
from sftray.trial.samples import Reply

PADDED = 0.2
"""How much of a prediction's probability padding may move. On Gemma 3 270M in bfloat16 it moves
0.02 to 0.04, and 0.4 to 1.8 where the mask is not heeded."""
ON_CPU, ON_GPU = 16, 512
"""Answers at once, at most."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is taken."""

    temperature: float = 0.0
    """What logits are divided by before one is drawn; 0 takes the likeliest."""
    top_p: float = 1.0
    """Drawn among the likeliest that have this probability together."""
    seed: int = 0

    def __post_init__(self) -> None:
        finite = 0 <= self.temperature < math.inf
        require(finite, "temperature", str(self.temperature), "0, or a number above")
        require(0 < self.top_p <= 1, "top_p", str(self.top_p), "above 0 and at most 1")


GREEDY = Sampling()


@torch.no_grad()
def reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    end_of_turn: int,
    max_new_tokens: int = ANSWER_TOKENS,
    sampling: Sampling = GREEDY,
) -> Reply:
    """The answer to a prompt's tokens, until the token `end_of_turn` or what the model's own
    configuration names; and whether it came to that end."""
    ends = end_tokens(model, end_of_turn)
    asked = torch.tensor([list(prompt)], device=model.device)
    drawn: dict[str, float] = {}
    if sampling.temperature:
        torch.manual_seed(sampling.seed)
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    with _without_own_settings(model):
        output = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=max_new_tokens,
            do_sample=bool(drawn),
            **drawn,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted(ends),
        )
    answer = output[0, len(prompt) :].tolist()
    return str(tokenizer.decode(answer, skip_special_tokens=True)), answer[-1] in ends


def replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    end_of_turn: int,
    max_new_tokens: int = ANSWER_TOKENS,
    sampling: Sampling = GREEDY,
) -> list[Reply]:
    """`reply` to each prompt, in their order."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    asked = [list(prompts[place]) for place in order]
    ends = end_tokens(model, end_of_turn)
    with _without_own_settings(model), _any_padding(model):
        longest = max(map(len, asked), default=0) + max_new_tokens
        number = _at_once(model, longest)
        together = (
            len(asked) > 1
            and number > 1
            and not sampling.temperature
            and longest <= _most_alone(model)
        )
        together = together and _pads(model, asked[0], asked[-1])
        answers: list[list[int]] = []
        for start in range(0, len(asked), number) if together else ():
            some = asked[start : start + number]
            answers += _continued(model, some, ends, max_new_tokens)
    if not together:
        return [
            reply(model, tokenizer, one, end_of_turn, max_new_tokens, sampling) for one in prompts
        ]
    found = dict(zip(order, answers, strict=True))
    return [
        (str(tokenizer.decode(found[k], skip_special_tokens=True)), found[k][-1] in ends)
        for k in range(len(prompts))
    ]


def _continued(
    model: PreTrainedModel, prompts: Sequence[list[int]], ends: set[int], most: int
) -> list[list[int]]:
    """The tokens of each answer, through its end; in halves where there is too little memory."""
    try:
        output = _generated(model, prompts, ends, most).sequences
    except torch.OutOfMemoryError:
        if len(prompts) == 1:
            raise
        output = None  # out of the handler, whose traceback holds what is to be freed
    if output is None:
        free_memory()
        half = len(prompts) // 2
        halves = (prompts[:half], prompts[half:])
        return [one for some in halves for one in _continued(model, some, ends, most)]
    tokens = output[:, max(map(len, prompts)) :].tolist()
    stops = [next((k for k, one in enumerate(row, 1) if one in ends), None) for row in tokens]
    return [row[:stop] for row, stop in zip(tokens, stops, strict=True)]


@torch.no_grad()
def _generated(
    model: PreTrainedModel, prompts: Sequence[list[int]], ends: set[int], most: int
) -> Any:
    """transformers' `generate` of prompts padded on the left; what follows an end is padding."""
    length, end = max(map(len, prompts)), min(ends)
    asked = torch.tensor([[end] * (length - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one in prompts])
    return model.generate(
        input_ids=asked.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=most,
        do_sample=False,
        use_cache=True,
        pad_token_id=end,
        eos_token_id=sorted(ends),
        return_dict_in_generate=True,
        output_logits=most == 1,
    )


def _most_alone(model: PreTrainedModel) -> float:
    """The most tokens up to which a text's rotary frequencies do not depend on the longest text
    beside it, as those of LongRoPE do (transformers.modeling_rope_utils)."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    of_types = [rope] if "rope_type" in rope else rope.values()
    return min(
        (
            one.get("original_max_position_embeddings") or config.max_position_embeddings
            for one in of_types
            if one["rope_type"] in ("longrope", "dynamic")
        ),
        default=math.inf,
    )


def _pads(model: PreTrainedModel, short: list[int], long: list[int]) -> bool:
    """Whether the model predicts behind padding what it predicts without it."""
    if len(short) == len(long):
        short = short[1:] or short
    (padded,) = _generated(model, [short, long], {0}, 1).logits
    (alone,) = _generated(model, [short], {0}, 1).logits
    change = (padded[0].float().softmax(0) - alone[0].float().softmax(0)).abs().sum()
    return bool(change < PADDED)  # not where it is no number


def _at_once(model: PreTrainedModel, length: int) -> int:
    """How many texts of so many tokens are answered at once: their keys and values may take a
    quarter of the memory that is left."""
    if model.device.type != "cuda":
        return ON_CPU
    config = model.config.get_text_config()
    free, _ = torch.cuda.mem_get_info(model.device)
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    of_text = length * 2 * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize
    return max(1, min(ON_GPU, int(free / 4 / of_text)))


@contextlib.contextmanager
def _any_padding(model: PreTrainedModel) -> Iterator[None]:
    """With attention that takes padding: of the trial's own some are for packed rows alone."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    own = base.config._attn_implementation
    if own in ("sdpa", "eager"):
        yield
        return
    base.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        base.set_attn_implementation(own)


def base_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    end_of_turn: int,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = ANSWER_TOKENS,
    sampling: Sampling = GREEDY,
) -> list[Reply]:
    """`replies` of the base, by itself or beneath an adapter."""
    with model.disable_adapter() if isinstance(model, PeftModel) else contextlib.nullcontext():
        return replies(model, tokenizer, prompts, end_of_turn, max_new_tokens, sampling)


@contextlib.contextmanager
def _without_own_settings(model: PreTrainedModel) -> Iterator[None]:
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
