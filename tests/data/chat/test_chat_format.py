"""Only the assistant's tokens are trained on, end of turn included, whatever the template."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from data_templates import (
    CONVERSATIONS,
    DEMO,
    GOLDEN,
    bundled,
    format_of,
    masks,
    template_text,
    tokenizer_of,
    trained_text,
)
from tokenizers import Tokenizer

from sftray.data.chat import answer_spans, documents
from sftray.data.chat import loss_mask as reasons
from sftray.data.chat.chat_format import MARKERS, PREFIXES, ChatFormat, render, training_template
from sftray.data.chat.documents import Document, Dropped
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.loss_mask import encode
from sftray.data.chat.template_process import RefusedError
from sftray.data.chat.tokenizer import ModelTokenizer, backend, load_tokenizer, read_tokenizer
from sftray.data.source.turns import Message
from sftray.errors import TemplateError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TWO = CONVERSATIONS["two exchanges"]
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
GIVEN = {"variables": {"eos_token": "</s>"}, "date": "2024-02-29"}
ANSWERS = ["Four.<|im_end|>", "Yes, quite sure: 2 + 2 = 4.<|im_end|>"]


def document(chat: ChatFormat, turns: list[Message], max_length: int = 4096) -> Document:
    (found,) = encode(chat, [turns], max_length)
    assert isinstance(found, Document), found
    return found


def text_of(chat: ChatFormat, ids: np.ndarray) -> str:
    return backend(chat.tokenizer).decode(ids.tolist(), skip_special_tokens=False)


@pytest.fixture(scope="module")
def demo() -> ChatFormat:
    return choose_format(read_tokenizer(str(DEMO)), template=None, date="2025-01-01", samples=[])


@pytest.mark.parametrize("name", bundled())
def test_masks_of_the_templates_that_trl_bundles_are_the_golden_ones(name: str) -> None:
    assert masks(name) == json.loads(GOLDEN.read_text(encoding="utf-8"))[name]


@pytest.mark.parametrize("name", bundled())
def test_training_templates_are_those_that_trl_itself_chooses(name: str) -> None:
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import get_training_chat_template

    template = template_text(name)
    backed = backend(tokenizer_of(template).json)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backed, chat_template=template)
    try:
        wanted = get_training_chat_template(tokenizer)
    except ValueError:
        wanted = None
    assert training_template(template) == wanted


def test_the_demo_trains_answers_through_the_end_of_turn(demo: ChatFormat) -> None:
    found = document(demo, TWO)
    assert demo.method == MARKERS
    assert trained_text(demo, found) == ANSWERS
    assert found.input_ids[found.trained][-1] == demo.end_of_turn_id


@pytest.mark.parametrize(
    "marked",
    [
        "{% generation %}{{ m['content'] }}{% endgeneration %}<|im_end|>\n",
        "{% generation %}{{ m['content'] }}<|im_end|>\n{% endgeneration %}",
        "{% generation %}{{ m['content'] }}{% endgeneration %}"
        "{% generation %}<|im_end|>\n{% endgeneration %}",
    ],
    ids=["end of turn outside", "line break inside", "two spans"],
)
def test_markers_are_taken_from_the_generation_prompt_through_the_end_of_turn(marked: str) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
        + marked
        + "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    chat = format_of(template)
    assert chat.method == MARKERS
    assert trained_text(chat, document(chat, TWO)) == ANSWERS


def test_a_marker_around_the_header_leaves_the_header_untrained() -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}<|im_start|>"
        "assistant\n{{ m['content'] }}<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>user\n"
        "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    chat = format_of(template)
    assert trained_text(chat, document(chat, TWO)) == ANSWERS


def test_a_template_without_markers_is_masked_by_its_prefixes() -> None:
    chat = format_of(CHATML)
    assert chat.method == PREFIXES
    assert trained_text(chat, document(chat, TWO)) == ANSWERS


def test_prefixes_and_markers_give_the_demo_the_same_mask(demo: ChatFormat) -> None:
    unmarked = CHATML
    by_prefix = choose_format(
        read_tokenizer(str(DEMO)), template=unmarked, date="2025-01-01", samples=[]
    )
    for turns in CONVERSATIONS.values():
        a, b = document(demo, turns), document(by_prefix, turns)
        assert a.input_ids.tolist() == b.input_ids.tolist()
        assert a.trained.tolist() == b.trained.tolist()


def talk(exchanges: int) -> list[Message]:
    texts = (f"{'Say' if k % 2 else 'No.'} {k // 2}" for k in range(1, 2 * exchanges + 1))
    roles = itertools.cycle(("user", "assistant"))
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


@pytest.mark.parametrize("template", [CHATML, template_text("gemma"), template_text("phi3")])
@pytest.mark.parametrize("max_length", [4096, 150])
def test_few_prompts_give_a_long_conversation_the_mask_that_all_prompts_give(
    template: str, max_length: int
) -> None:
    chat = replace(format_of(template), template=template, method=PREFIXES)
    (few,) = encode(chat, [talk(40)], max_length, asked=3)
    (all_of_them,) = encode(chat, [talk(40)], max_length, asked=40)
    assert isinstance(few, Document)
    assert isinstance(all_of_them, Document)
    assert few.lost_exchanges == all_of_them.lost_exchanges
    assert few.input_ids.tolist() == all_of_them.input_ids.tolist()
    assert few.trained.tolist() == all_of_them.trained.tolist()


def test_a_long_conversation_whose_prompts_differ_has_them_all_rendered() -> None:
    template = CHATML.replace("m['role'] }}", "m['role'] }} {{ loop.index }}")
    template = template.replace("assistant\n", "assistant {{ messages|length + 1 }}\n")
    chat = format_of(template)
    assert chat.method == PREFIXES
    few, many = talk(40), talk(600)
    assert trained_text(chat, document(chat, few, 8192))[39] == "No. 40<|im_end|>"
    assert encode(chat, [many], 2**20) == [Dropped(answer_spans.UNCERTAIN)]


def test_words_of_a_user_that_are_the_end_of_a_prompt_do_not_move_the_mask() -> None:
    template = (
        "{% for m in messages %}{{ '### ' + m['role'] + ':\n' + m['content'] + '</s>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
    )
    chat = format_of(template)
    turns = talk(20)
    turns[20]["content"] = "Why '### assistant:\n' here?"
    few, all_of_them = (encode(chat, [turns], 8192, asked=asked)[0] for asked in (3, 20))
    assert isinstance(few, Document)
    assert isinstance(all_of_them, Document)
    assert few.trained.tolist() == all_of_them.trained.tolist()
    assert trained_text(chat, few)[10] == "No. 11</s>"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chatml", "qwen3"])
def test_a_conversation_of_20_000_exchanges_is_tokenised(name: str) -> None:
    """Which took over 4 minutes when its work grew with the square of its length."""
    turns = talk(20_000)
    tokenizer = tokenizer_of(CHATML if name == "chatml" else template_text(name))
    chat = choose_format(tokenizer, template=None, date="2025-01-01", samples=[turns])
    assert document(chat, turns, 2**20).lost_exchanges == 0
    assert document(chat, turns, 2048).lost_exchanges > 19_000


def test_a_token_that_straddles_the_end_of_the_prompt_is_an_error() -> None:
    template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(TemplateError, match="straddles the end of the generation prompt"):
        format_of(template)


def test_an_answer_whose_first_token_swallows_the_prompt_is_dropped() -> None:
    tokenizer = Tokenizer.from_str(tokenizer_of(CHATML).json)
    tokenizer.add_tokens(["\n\n"])
    chat = choose_format(
        ModelTokenizer("test", tokenizer.to_str(), CHATML, (("eos_token", "</s>"),)),
        template=None,
        date="2025-01-01",
        samples=[],
    )
    turns = [TWO[0], {"role": "assistant", "content": "\nFour."}]
    (found,) = encode(chat, [turns], 512)
    assert isinstance(found, Dropped)
    assert found.reason == documents.STRADDLES


@pytest.mark.parametrize(
    ("earlier", "message"),
    [
        ("{{ m['content'] if loop.last else 'omitted' }}", "does not write the answers"),
        ("{{ m['content'] }}{% if not loop.last %} (old){% endif %}", "rewrites earlier turns"),
    ],
)
def test_a_template_that_rewrites_earlier_answers_is_an_error(earlier: str, message: str) -> None:
    template = CHATML.replace("{{ m['content'] }}", earlier)
    with pytest.raises(TemplateError, match=message):
        format_of(template)


def test_a_template_that_rewrites_its_prompt_is_an_error() -> None:
    template = CHATML.replace(
        "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>{% endif %}"
    )
    with pytest.raises(TemplateError, match="rewrites earlier turns or its generation prompt"):
        format_of(template)


def test_a_template_that_turns_out_to_rewrite_answers_is_an_error() -> None:
    template = CHATML.replace("m['content']", "m['content'].split('</think>')[-1]")
    chat = format_of(template)
    thought = [TWO[0], {"role": "assistant", "content": "<think>Two and two.</think>Four."}]
    with pytest.raises(TemplateError, match="rewrites earlier answers"):
        encode(chat, [TWO, thought], 512)


def test_a_template_that_never_ends_a_turn_is_an_error() -> None:
    template = CHATML.replace("<|im_end|>\n", "\n")
    with pytest.raises(TemplateError, match="must be an end-of-turn token"):
        format_of(template)


def test_a_tokenizer_without_a_template_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(TemplateError, match=r"has no chat template; set data\.chat_template"):
        choose_format(
            ModelTokenizer("base", tokenizer_of(CHATML).json, None, ()),
            template=None,
            date="2025-01-01",
            samples=[],
        )


def test_an_answer_that_is_not_closed_before_the_next_turn_is_dropped() -> None:
    template = (DEMO / "chat_template.jinja").read_text(encoding="utf-8")
    open_ended = template.replace(
        "m['content']+'<|im_end|>'}}{% endgeneration",
        "m['content']+('' if 'Four' in m['content'] else '<|im_end|>')}}{% endgeneration",
    )
    assert open_ended != template
    assert encode(format_of(open_ended), [TWO], 512) == [Dropped(answer_spans.NO_END)]


def test_a_special_token_in_a_question_is_text(demo: ChatFormat) -> None:
    turns = [{"role": "user", "content": "Say <|im_end|>"}, TWO[1]]
    found = document(demo, turns)
    assert text_of(demo, found.input_ids).count("<|im_end|>") == 3
    assert found.input_ids.tolist().count(demo.end_of_turn_id) == 2


def test_a_conversation_that_the_template_refuses_is_dropped_alone() -> None:
    chat = format_of(template_text("gemma"))
    found = encode(chat, [CONVERSATIONS["system"], TWO], 512)
    assert found[0] == Dropped(reasons.REFUSED)
    assert isinstance(found[1], Document)


def test_nothing_is_trained_where_the_markers_leave_all_out() -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and "
        "'Apple' in messages[1]['content'] %}{% generation %}{{ m['content'] }}<|im_end|>"
        "{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert encode(format_of(template), [TWO], 512) == [Dropped(documents.NOTHING)]


def test_a_long_conversation_loses_whole_trailing_exchanges(demo: ChatFormat) -> None:
    turns = [*TWO, {"role": "user", "content": "And 3 + 3?"}, TWO[1]]
    whole, two = document(demo, turns), document(demo, TWO)
    for max_length in range(len(two.input_ids), len(whole.input_ids)):
        shorter = document(demo, turns, max_length)
        assert shorter.input_ids.tolist() == two.input_ids.tolist()
        assert shorter.trained.tolist() == two.trained.tolist()
        assert (shorter.lost_exchanges, shorter.full_length) == (1, len(whole.input_ids))
    one = document(demo, turns, len(two.input_ids) - 1)
    assert one.lost_exchanges == 2
    assert trained_text(demo, one) == ANSWERS[:1]


def test_a_first_exchange_that_does_not_fit_drops_the_conversation(demo: ChatFormat) -> None:
    (found,) = encode(demo, [TWO], 12)
    assert isinstance(found, Dropped)
    assert found.reason == reasons.TOO_LONG
    assert found.full_length == len(document(demo, TWO).input_ids)


def test_tokens_do_not_depend_on_the_neighbours(demo: ChatFormat) -> None:
    together = encode(demo, list(CONVERSATIONS.values()), 512)
    for turns, found in zip(CONVERSATIONS.values(), together, strict=True):
        assert isinstance(found, Document)
        assert found.input_ids.tolist() == document(demo, turns).input_ids.tolist()


def test_dates_in_templates_are_frozen() -> None:
    template = CHATML.replace(
        "{% for", "{{ strftime_now('%d %B %Y') }} {{ date_string }}</s>\n{% for", 1
    )
    chat = format_of(template, date="2024-02-29")
    assert text_of(chat, document(chat, TWO).input_ids).startswith(
        "29 February 2024 29 Feb 2024</s>"
    )


def test_differences_of_a_training_template_are_shown() -> None:
    differences = format_of(template_text("qwen3")).differences
    assert any("own" in text and "training" in text for text in differences)
    assert format_of(template_text("gemma")).differences == ()


def test_a_prompt_that_training_does_not_show_is_a_difference() -> None:
    (difference,) = format_of(template_text("deepseekv3")).differences
    assert "<think>" in difference


@pytest.mark.parametrize(
    ("named", "token"),
    [
        ((("pad_token", "<pad>"), ("eos_token", "</s>")), "<pad>"),
        ((("unk_token", "<s>"), ("eos_token", "</s>")), "<s>"),
        ((("eos_token", "</s>"),), "</s>"),
    ],
)
def test_a_missing_pad_token_is_replaced(named: tuple[tuple[str, str], ...], token: str) -> None:
    tokenizer = ModelTokenizer("test", tokenizer_of(CHATML).json, CHATML, named)
    chat = choose_format(tokenizer, template=None, date="2025-01-01", samples=[])
    assert chat.pad_token_id == backend(tokenizer.json).token_to_id(token)


def test_a_tokenizer_read_without_torch_is_the_one_that_transformers_loads() -> None:
    ours, theirs = read_tokenizer(str(DEMO)), load_tokenizer(str(DEMO))
    assert ours.chat_template == theirs.chat_template
    assert ours.special_tokens == theirs.special_tokens
    text = "Grüße, 你好 🙂 <|im_end|>\n  x"
    assert backend(ours.json).encode(text).ids == backend(theirs.json).encode(text).ids


def test_formats_are_chosen_without_torch_or_ray() -> None:
    code = (
        "import sys; from data_templates import *; format_of(template_text('qwen3'));"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    folder = GOLDEN.parent.parent / "fakes"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, timeout=600)


def written(template: str) -> str:
    (text,), _ = render(template, [TURNS], **GIVEN)
    return text


@pytest.mark.parametrize("date", ["2024-02-29", "2025-12-01"])
def test_a_template_prints_the_day_that_is_given(date: str) -> None:
    template = "{{ strftime_now('%Y-%m-%d') }} {{ date_string }}"
    (text,), _ = render(template, [TURNS], variables={}, date=date)
    assert text.startswith(date)
    assert text.endswith(date[:4])


def test_a_template_has_the_tokenizer_s_tokens_and_no_tools() -> None:
    assert written("{{ eos_token }} {{ tools is none }} {{ nobody is defined }}") == (
        "</s> True False"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{% set ns = namespace(_n=0) %}",
        "{{ messages[0].content.__class__.mro() }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_template_that_reaches_out_of_the_sandbox_is_refused(template: str) -> None:
    with pytest.raises(RefusedError):
        written(template)


def test_a_template_that_breaks_off_leaves_no_marks_behind() -> None:
    template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% if m.content == 'no' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    )
    refused = [{"role": "user", "content": "no"}]
    with pytest.raises(RefusedError, match="no"):
        render(template, [TURNS, refused], **GIVEN)
    assert render(template, [TURNS], **GIVEN) == (["HiHo"], [[(0, 2), (2, 4)]])


def test_workers_render_without_torch() -> None:
    code = (
        "import sys; from sftray.data.chat.chat_format import render\n"
        "from sftray.data.packs import tokenize_pass\n"
        f"template = open({str(DEMO / 'chat_template.jinja')!r}).read()\n"
        "turns = [{'role': 'user', 'content': 'Hi'}]\n"
        "render(template, [turns], variables={}, date='2024-02-29')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize("name", ["phi3", "phi3_5", "qwen3", "llama3_1", "gptoss"])
@pytest.mark.parametrize("swallows", [{"rstrip": True}, {"lstrip": True}], ids=str)
def test_turn_tokens_that_swallow_white_space_train_what_others_train(
    name: str, swallows: dict[str, bool]
) -> None:
    made = tokenizer_of(template_text(name))
    values = json.loads(made.json)
    for token in values["added_tokens"]:
        if token["content"].startswith("<|"):
            token.update(swallows)
    swallowing = replace(made, json=json.dumps(values))
    chats = [
        choose_format(one, template=None, date="2025-01-01", samples=[])
        for one in (made, swallowing)
    ]
    (plain, swallowed) = (trained_text(chat, document(chat, TWO)) for chat in chats)
    assert plain == swallowed


@pytest.mark.parametrize("word", ["k", "think", "<", "/think", "assistant"])
@pytest.mark.parametrize("name", [*bundled(), "qwen3 of one's own"])
def test_an_answer_that_the_template_s_own_words_contain_is_not_looked_for_there(
    name: str, word: str
) -> None:
    template = template_text(name.split()[0])
    chat = format_of(template if name in bundled() else "{#- edited -#}" + template)
    turns = [
        {"role": turn["role"], "content": word if turn["role"] == "assistant" else "Say it."}
        for turn in TWO
    ]
    other = [{**turn, "content": turn["content"].replace(word, "ZEBRA")} for turn in turns]
    expected = [text.replace("ZEBRA", word) for text in trained_text(chat, document(chat, other))]
    assert trained_text(chat, document(chat, turns)) == expected


@pytest.mark.parametrize("name", [name for name in bundled() if name != "gemma4"])
@pytest.mark.parametrize("train_on", ["assistant", "last"])
def test_a_long_conversation_is_cut_before_it_is_written_to_what_would_fit(
    name: str, train_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, turns = replace(format_of(template_text(name)), train_on=train_on), talk(150)
    whole, seen = encode(chat, [turns], 1200)[0], []
    monkeypatch.setattr(reasons, "LONG", 20)
    render = reasons.written
    monkeypatch.setattr(
        reasons, "written", lambda chat, ready, asked: (seen.append(ready), render(chat, ready))[1]
    )
    (cut,) = encode(chat, [turns], 1200)
    assert len(seen[0][0]) < len(turns)
    if train_on == "last":
        assert isinstance(cut, Dropped)
        assert cut.reason == whole.reason == reasons.TOO_LONG
        return
    assert isinstance(cut, Document)
    assert cut.input_ids.tolist() == whole.input_ids.tolist()
    assert cut.lost_exchanges == whole.lost_exchanges
    assert cut.full_length == pytest.approx(whole.full_length, rel=0.3)
