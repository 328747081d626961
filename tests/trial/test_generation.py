"""Greedy means greedy, whatever a base holds; and a question is asked in parts, too."""

from __future__ import annotations

from typing import Any

import pytest
from data_templates import format_of, template_text
from peft import get_peft_model

from sftray.config import TrialConfig
from sftray.data.chat.asking import prompt_ids, prompt_text
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.demo import FOLDER
from sftray.trial.base_model import load_tokenizer
from sftray.trial.eval_loss import load_untrained
from sftray.trial.generation import base_answers, reply
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
