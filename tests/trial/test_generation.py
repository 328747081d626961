"""Greedy means greedy, whatever a base holds; and a question is asked in parts, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from bank_models import CONFIGS, SIZES
from data_templates import format_of, template_text
from peft import get_peft_model

from sftray.config import TrialConfig
from sftray.data.chat.asking import prompt_ids, prompt_text
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.demo import FOLDER
from sftray.trial import generation
from sftray.trial.base_model import load_tokenizer
from sftray.trial.eval_loss import load_untrained
from sftray.trial.generation import base_answers, replies, reply
from sftray.trial.lora_adapter import lora_config

TRIAL = TrialConfig(str(FOLDER), base_precision="fp32")
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTIONS = ("What is the capital of Italy?", "Name three animals.", "Tell me about rain.")


@pytest.fixture(scope="module")
def base() -> Any:
    return load_untrained(TRIAL)


def demo_format(template: str | None = None) -> ChatFormat:
    tokenizer = read_tokenizer(str(FOLDER))
    return choose_format(tokenizer, template=template, date="2025-01-01", samples=[])


def asked(chat: ChatFormat, question: str) -> list[int]:
    return prompt_ids(chat, prompt_text(chat, [{"role": "user", "content": question}]))


@pytest.mark.parametrize("adapted", [False, True])
def test_a_base_s_generation_settings_change_no_answer(base: Any, adapted: bool) -> None:
    chat = demo_format()
    tokenizer = load_tokenizer(TRIAL, chat.own_template)
    prompt = asked(chat, QUESTIONS[0])
    before, _ = reply(base, tokenizer, prompt, chat.end_of_turn_id, 16)
    own = base.generation_config
    first = tokenizer(before)["input_ids"][0]
    settings = {"repetition_penalty": 9.0, "suppress_tokens": [first], "no_repeat_ngram_size": 1}
    model = get_peft_model(base, lora_config(TRIAL)) if adapted else base
    try:
        for name, value in settings.items():
            setattr(own, name, value)
        assert model.generate(
            input_ids=base.dummy_inputs["input_ids"].new_tensor([prompt]),
            max_new_tokens=16, do_sample=False,
        )[0, len(prompt)] != first  # they would have  # fmt: skip
        assert reply(model, tokenizer, prompt, chat.end_of_turn_id, 16)[0] == before
        assert model.generation_config is own
    finally:
        for name in settings:
            setattr(own, name, None)
        if adapted:
            model.unload()


def test_a_template_that_takes_parts_is_asked_the_question(base: Any) -> None:
    chat = demo_format(PARTS)
    tokenizer = load_tokenizer(TRIAL, PARTS)
    prompts = [asked(chat, question) for question in QUESTIONS]
    for question, prompt in zip(QUESTIONS, prompts, strict=True):
        assert question in tokenizer.decode(prompt)
    answers = base_answers(base, tokenizer, chat.end_of_turn_id, prompts)
    assert len({text for text, _ in answers}) == 3
    for name in ("smolvlm", "idefics3"):
        assert QUESTIONS[0] in prompt_text(
            format_of(template_text(name)), [{"role": "user", "content": QUESTIONS[0]}]
        )


LENGTHS = (3, 11, 7, 2, 11)


def random_prompts(vocabulary: int) -> list[list[int]]:
    random = np.random.default_rng(3)
    return [random.integers(5, vocabulary, size=length).tolist() for length in LENGTHS]


class _Words:
    """A tokenizer whose words are numbers."""

    pad_token_id = 0

    def decode(self, tokens: list[int], **_: object) -> str:
        return " ".join(map(str, tokens))


def _spread(model: torch.nn.Module) -> None:
    """Weights large enough that each prompt has an answer of its own."""
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.2)


OTHERS: dict[str, Any] = {
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **SIZES, head_dim=16, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "mamba": lambda: transformers.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2),
    "gpt neox": lambda: transformers.GPTNeoXConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", [*CONFIGS, *OTHERS])
def test_answers_given_together_are_those_of_generate_one_by_one(family: str) -> None:
    torch.manual_seed(1)
    config = {**CONFIGS, **OTHERS}[family]()
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    _spread(model)
    prompts = random_prompts(97)
    texts = [reply(model, _Words(), one, 4, 12)[0].split() for one in prompts]  # type: ignore[arg-type]
    end = int(texts[0][min(5, len(texts[0]) - 1)])  # which one comes upon in the middle
    alone = [reply(model, _Words(), one, end, 12) for one in prompts]  # type: ignore[arg-type]
    assert alone[0][1]
    assert len(set(alone)) > 1
    assert replies(model, _Words(), prompts, end, 12) == alone  # type: ignore[arg-type]
    assert replies(model, _Words(), [], end, 12) == []  # type: ignore[arg-type]


def test_a_model_that_does_not_heed_padding_answers_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]()).eval()
    _spread(model)
    own, sizes = model.forward, []

    def without_mask(input_ids: torch.Tensor, **rest: Any) -> Any:
        sizes.append(len(input_ids))
        return own(input_ids=input_ids, **{**rest, "attention_mask": None, "position_ids": None})

    prompts = random_prompts(97)
    monkeypatch.setattr(model, "forward", without_mask)
    alone = [reply(model, _Words(), one, 4, 12) for one in prompts]  # type: ignore[arg-type]
    assert replies(model, _Words(), prompts, 4, 12) == alone  # type: ignore[arg-type]
    monkeypatch.setattr(generation, "PADDED", 2.0)  # the most that two predictions differ by
    assert max(sizes) == 2
    assert replies(model, _Words(), prompts, 4, 12) != alone  # type: ignore[arg-type]


def test_what_there_is_no_memory_for_is_answered_in_halves(
    base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = demo_format()
    tokenizer = load_tokenizer(TRIAL, chat.own_template)
    prompts = [asked(chat, question) for question in QUESTIONS]
    whole = replies(base, tokenizer, prompts, chat.end_of_turn_id, 8)
    own, sizes = generation._generated, []

    def small(model: Any, some: Any, *rest: Any) -> Any:
        sizes.append(len(some))
        if len(some) > 2 or (len(some) == 2 and rest[1] > 1):
            raise torch.OutOfMemoryError("no more")
        return own(model, some, *rest)

    monkeypatch.setattr(generation, "_generated", small)
    assert replies(base, tokenizer, prompts, chat.end_of_turn_id, 8) == whole
    assert sizes == [2, 1, 3, 1, 2, 1, 1]
