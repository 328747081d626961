"""Calls and thoughts are trained as a served model writes them: what it sees is its own template's
prompt, the tokens are those of `apply_chat_template`, and all that is trained is found by a search
for the answers' words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from data_templates import bundled, format_of, template_text, tokenizer_of, trained_text
from transformers import PreTrainedTokenizerFast

from sftray.data.chat.answer_spans import not_written
from sftray.data.chat.asking import asked_of, prompt_ids, prompt_text
from sftray.data.chat.chat_format import PREFIXES, ChatFormat
from sftray.data.chat.documents import Document, Dropped
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.loss_mask import MOST_SERVED, encode
from sftray.data.chat.tokenizer import backend
from sftray.data.packs.packs import Packs
from sftray.data.source.conversations import Conversation, conversation

TODAY = date.today().isoformat()
"""transformers lets no day be given, but the one that Llama's templates print."""
SHOWN = {"date_string": date.today().strftime("%d %b %Y")}
WITH_TOOLS = [name for name in bundled() if "tools" in template_text(name)]
NO_CALLS = {"lfm2"}
"""Has a list of tools, but leaves calls out."""
ONE_CALL = {"gptoss", "llama3_1", "llama3_2"}
CALL_OR_WORDS = {"llama3_1", "llama3_2", "muse_glimmer"}
NO_THOUGHTS = {"deepseekv3", "gemma4", "gemma4_v3", "gemma4_v4"}
"""Leave thoughts out, or those of the last answer, and have no other place for them."""
KNOW_THOUGHTS = [
    name
    for name in bundled()
    if re.search("reasoning_content|message.thinking", template_text(name))
    if name not in NO_THOUGHTS
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "forecast",
            "description": "Weather of a day",
            "parameters": {
                "type": "object",
                "properties": {"town": {"type": "string", "description": "Where"}},
                "required": ["town"],
            },
        },
    }
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, *towns: str, thought: str = "") -> dict[str, Any]:
    calls = [
        {
            "type": "function",
            "id": f"call{number:05d}",
            "function": {"name": "forecast", "arguments": {"town": town}},
        }
        for number, town in enumerate(towns)
    ]
    turn: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        turn["reasoning_content"] = thought
    return turn | ({"tool_calls": calls} if calls else {})


def result(text: str, number: int = 0) -> dict[str, Any]:
    return {
        "role": "tool",
        "content": text,
        "tool_call_id": f"call{number:05d}",
        "name": "forecast",
    }


CALLS: dict[str, list[dict[str, Any]]] = {
    "one": [user("Rain in Ulm?"), answer("", "Ulmtown"), result("dry"), answer("Nowater.")],
    "two": [user("Which?"), answer("", "Ulmtown", "Bernville"), result("dry"), result("wet", 1),
            answer("Nowater.")],
    "twice": [{"role": "system", "content": "Be brief."}, user("Ulm?"), answer("", "Ulmtown"),
              result("dry"), answer("Nowater."), user("Bern?"), answer("", "Bernville"),
              result("wet"), answer("Itpours.")],
    "words beside": [user("Ulm?"), answer("Ilook.", "Ulmtown"), result("dry"), answer("Nowater."),
                     user("Thanks."), answer("Verywell.")],
    "ends on a call": [user("Ulm?"), answer("", "Ulmtown")],
}  # fmt: skip
THOUGHTS: dict[str, list[dict[str, Any]]] = {
    "one": [user("17 spiders?"), answer("Makes136.", thought="Eighteach.")],
    "several": [{"role": "system", "content": "Be brief."}, user("17 spiders?"),
                answer("Makes136.", thought="Eighteach."), user("And 2?"), answer("Makes16."),
                user("9 tricycles?"), answer("Makes27.", thought="Threeeach.")],
}  # fmt: skip
WORDS = ("Ulmtown", "Bernville", "Nowater.", "Itpours.", "Ilook.", "Verywell.")
THOUGHT_WORDS = ("Eighteach.", "Makes136.", "Makes16.", "Threeeach.", "Makes27.")


def hugging_face(template: str) -> PreTrainedTokenizerFast:
    given = tokenizer_of(template)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend(given.json),
        chat_template=template,
        **dict(given.special_tokens),
    )


def spelled_for_all(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A thought under each of its names: templates take the one that they know."""
    return [
        {**turn, **(dict.fromkeys(("thinking", "reasoning"), turn["reasoning_content"])
                    if "reasoning_content" in turn else {})}
        for turn in turns
    ]  # fmt: skip


def documents(chat: ChatFormat, turns: list[dict[str, Any]], tools: Any = ()) -> list[Document]:
    talk, _ = conversation({"messages": turns, "tools": list(tools)}, "messages")
    (found,) = encode(chat, [talk], 4096)
    assert isinstance(found, Document), found
    return [found, *found.more]


def text_of(chat: ChatFormat, found: Document) -> str:
    return backend(chat.tokenizer).decode(found.input_ids.tolist(), skip_special_tokens=False)


def check_search(chat: ChatFormat, found: list[Document], words: tuple[str, ...]) -> None:
    """Each answer's words are trained once over all documents, and nothing that others said is."""
    trained = [run for one in found for run in trained_text(chat, one)]
    texts = "".join(text_of(chat, one) for one in found)
    for word in words:
        in_runs = sum(run.count(word) for run in trained)
        assert in_runs == (word in texts), (word, trained)
    for run in trained:
        assert not re.search(r"\bdry\b|\bwet\b|spiders|Be brief|Which|Thanks", run)
        assert run.endswith(chat.control_tokens)


@pytest.mark.parametrize("name", [name for name in WITH_TOOLS if name not in NO_CALLS])
@pytest.mark.parametrize("kind", CALLS)
def test_calls_have_the_tokens_of_apply_chat_template_and_are_trained(name: str, kind: str) -> None:
    chat, turns = format_of(template_text(name), date=TODAY), CALLS[kind]
    assert chat.shape.tools
    assert chat.shape.calls
    talk, _ = conversation({"messages": turns, "tools": TOOLS}, "messages")
    if (kind == "two" and name in ONE_CALL) or (kind == "words beside" and name in CALL_OR_WORDS):
        assert isinstance(encode(chat, [talk], 4096)[0], Dropped)
        return
    found = documents(chat, turns, TOOLS)
    check_search(chat, found, WORDS)
    theirs = hugging_face(chat.template)
    asked = {"tools": TOOLS, "tokenize": True, "return_dict": False, **SHOWN}
    assert found[0].input_ids.tolist() == theirs.apply_chat_template(turns, **asked)
    places = [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]
    for one in found[1:]:  # earlier answers as they are when they are the last
        ids = one.input_ids.tolist()
        if name == "gptoss":  # takes a thought off as soon as there is an answer
            prompts = [theirs.apply_chat_template(turns[:k], add_generation_prompt=True, **asked)
                       for k in places]  # fmt: skip
            assert any(ids[: len(prompt)] == prompt for prompt in prompts)
        else:
            assert ids in [theirs.apply_chat_template(turns[: k + 1], **asked) for k in places]


@pytest.mark.parametrize("name", [name for name in bundled() if name not in NO_THOUGHTS])
@pytest.mark.parametrize("kind", THOUGHTS)
def test_thoughts_are_trained_behind_what_the_served_model_sees(name: str, kind: str) -> None:
    chat, turns = format_of(template_text(name), date=TODAY), THOUGHTS[kind]
    if turns[0]["role"] == "system" and name == "gemma":
        turns = turns[1:]  # which refuses one
    found = documents(chat, turns)
    check_search(chat, found, THOUGHT_WORDS)
    theirs = hugging_face(chat.own_template)
    shown = spelled_for_all(turns)
    if name not in KNOW_THOUGHTS:
        shown = [
            {"role": turn["role"], "content": (
                f"<think>\n{turn['reasoning_content']}\n</think>\n\n" if "reasoning_content" in turn
                else "") + turn["content"]}
            for turn in turns
        ]  # fmt: skip
    if chat.shape.as_parts:
        shown = [{**t, "content": [{"type": "text", "text": t["content"]}]} for t in shown]
    prompts = [
        theirs.apply_chat_template(shown[:k], tokenize=False, add_generation_prompt=True, **SHOWN)
        for k, turn in enumerate(turns)
        if turn["role"] == "assistant" and "reasoning_content" in turn
    ]
    texts = [text_of(chat, one) for one in found]
    if name != "deepseek_r1_distill":  # writes no thought at all, whatever it asks for
        whole = theirs.apply_chat_template(shown, tokenize=False, **SHOWN)
        assert texts[0].startswith(whole)
        assert texts[0].removeprefix(whole) in ("", "<|user|>")  # GLM's end, which the next turn is
    asks = [any(text.startswith(prompt) for text in texts) for prompt in prompts]
    assert asks == [name != "qwen3_5_nothink"] * len(prompts)


def test_a_prompt_that_closes_thoughts_is_a_difference_and_a_setting_opens_them() -> None:
    differences = format_of(template_text("qwen3_5_nothink")).differences
    assert any("data.enable_thinking=True" in text for text in differences)
    tokenizer = tokenizer_of(template_text("qwen3_5_nothink"))
    chat = choose_format(tokenizer, template=None, date=TODAY, samples=[], enable_thinking=True)
    assert not any("enable_thinking" in text for text in chat.differences)
    shown = spelled_for_all(THOUGHTS["one"])
    prompt = hugging_face(chat.own_template).apply_chat_template(
        shown[:1], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    assert text_of(chat, documents(chat, THOUGHTS["one"])[0]).startswith(prompt)


@pytest.mark.parametrize("name", [n for n in bundled() if n not in WITH_TOOLS])
def test_a_template_without_tools_refuses_them_by_name(name: str) -> None:
    chat = format_of(template_text(name))
    talk, _ = conversation({"messages": CALLS["one"], "tools": TOOLS}, "messages")
    assert encode(chat, [talk], 4096) == [Dropped(not_written("tools"))]
    if name not in ("deepseekv3", "deepseek_r1_distill"):  # know calls, but no list of tools
        bare = Conversation(talk)
        assert encode(chat, [bare], 4096) == [Dropped(not_written("tool_calls"))]


def test_what_a_template_leaves_out_of_an_answer_drops_the_row() -> None:
    chat = format_of(template_text("gemma4"))
    talk, _ = conversation({"messages": THOUGHTS["one"]}, "messages")
    assert encode(chat, [talk], 4096) == [Dropped(not_written("reasoning"))]


def test_an_earlier_answer_is_shown_without_its_thought_and_trained_with_it() -> None:
    chat = format_of(template_text("qwen3"))
    last, first = documents(chat, THOUGHTS["several"])[:1], documents(chat, THOUGHTS["several"])[1:]
    assert "Eighteach." not in text_of(chat, last[0])
    assert trained_text(chat, last[0]) == ["<think>\nThreeeach.\n</think>\n\nMakes27.<|im_end|>"]
    assert [trained_text(chat, one) for one in first] == [
        ["<think>\n\n</think>\n\nMakes16.<|im_end|>"],
        ["<think>\nEighteach.\n</think>\n\nMakes136.<|im_end|>"],
    ]


def test_thoughts_are_kept_for_the_last_answer_or_dropped() -> None:
    chat = format_of(template_text("qwen3"))
    (last,) = documents(replace(chat, thinking="last"), THOUGHTS["several"])
    assert trained_text(chat, last) == ["<think>\nThreeeach.\n</think>\n\nMakes27.<|im_end|>"]
    (plain,) = documents(replace(chat, thinking="drop"), THOUGHTS["several"])
    words = [run.split("</think>\n\n")[1] for run in trained_text(chat, plain)]
    assert words == ["Makes136.<|im_end|>", "Makes16.<|im_end|>", "Makes27.<|im_end|>"]
    assert "each" not in text_of(chat, plain)


@pytest.mark.parametrize("name", KNOW_THOUGHTS)
def test_a_thought_in_the_words_is_the_thought_of_its_key(name: str) -> None:
    chat = format_of(template_text(name))
    spelled = [user("17 spiders?"), answer("<think>\nEighteach.\n</think>\n\nMakes136.")]
    one, other = documents(chat, THOUGHTS["one"]), documents(chat, spelled)
    assert one[0].input_ids.tolist() == other[0].input_ids.tolist()
    assert one[0].trained.tolist() == other[0].trained.tolist()


@pytest.mark.parametrize("max_length", range(30, 140, 10))
def test_documents_that_are_too_long_are_lost_and_counted(max_length: int) -> None:
    chat = format_of(template_text("qwen3"))
    talk, _ = conversation({"messages": THOUGHTS["several"]}, "messages")
    lengths = [len(one.input_ids) for one in documents(chat, THOUGHTS["several"])]
    (found,) = encode(chat, [talk], max_length)
    fit = [length for length in lengths if length <= max_length]
    if not fit:
        assert isinstance(found, Dropped)
        return
    assert isinstance(found, Document)
    assert [len(one.input_ids) for one in (found, *found.more)] == fit
    assert found.lost_exchanges == 3 - len(fit)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_vl", "gptoss"])
def test_markers_and_single_renderings_train_calls_alike(name: str) -> None:
    """Long conversations are told by markers, whose work grows with their length."""
    chat = format_of(template_text(name))
    turns = [turn for k in range(MOST_SERVED) for turn in CALLS["one"]]
    long, _ = conversation({"messages": turns, "tools": TOOLS}, "messages")
    short, _ = conversation({"messages": turns[:40], "tools": TOOLS}, "messages")
    (whole,), (part,) = encode(chat, [long], 2**20), encode(chat, [short], 2**20)
    assert isinstance(whole, Document)
    assert isinstance(part, Document)
    runs = trained_text(chat, part)
    assert trained_text(chat, whole)[: len(runs) - 1] == runs[:-1]


@pytest.mark.parametrize("train_on", ["assistant", "last"])
@pytest.mark.parametrize("name", ["qwen3", "llama3_1", "chatml"])
def test_flags_and_train_on_leave_answers_untrained(name: str, train_on: str) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    chat = format_of(template if name == "chatml" else template_text(name))
    chat = replace(chat, train_on=train_on)
    turns = [user("A?"), answer("Aye.") | {"weight": 0}, user("B?"), answer("Bee."),
             user("C?"), answer("Sea.")]  # fmt: skip
    (found,) = documents(chat, turns)
    words = ["Sea."] if train_on == "last" else ["Bee.", "Sea."]
    assert [re.sub("<.*>|\\s", "", run) for run in trained_text(chat, found)] == words


@pytest.mark.parametrize("name", bundled())
def test_a_prompt_is_the_beginning_of_its_row_token_for_token(name: str) -> None:
    chat = format_of(template_text(name))
    plain = [user("A?"), answer("Aye."), user("B?"), answer("B")]
    rows: list[dict[str, Any]] = [{"messages": plain}]
    rows += [{"messages": turns} for turns in THOUGHTS.values()]
    rows += [{"messages": turns, "tools": TOOLS} for turns in CALLS.values()]
    for row in rows:
        talk, _ = conversation(row, "messages")
        (found,) = encode(chat, [talk], 4096)
        asked = asked_of(chat, [talk])
        if isinstance(found, Dropped):
            assert asked == []
            continue
        ids, place = prompt_ids(chat, asked[0].prompt), int(found.trained.nonzero()[0][-1])
        while found.trained[place]:
            place -= 1
        assert ids == found.input_ids[: place + 1].tolist()
        assert asked[0].turns == talk[:-1]


@pytest.mark.parametrize("name", bundled())
@pytest.mark.parametrize("thinks", [False, True])
def test_a_question_by_itself_is_asked_as_rows_are_trained(name: str, thinks: bool) -> None:
    chat = replace(format_of(template_text(name)), asks_thoughts=thinks)
    if thinks and name in NO_THOUGHTS:
        return
    row = [user("17 spiders?"), answer("Makes136.", thought="Eighteach." * thinks)]
    (found, *_) = documents(chat, row)
    ids = prompt_ids(chat, prompt_text(chat, [{"role": "user", "content": "17 spiders?"}]))
    assert ids == found.input_ids[: len(ids)].tolist()
    assert found.trained[len(ids)]
    assert not found.trained[: len(ids)].any()


def test_whether_to_think_reaches_rows_and_questions() -> None:
    tokenizer = tokenizer_of(template_text("qwen3"))
    given = {"template": None, "date": "2025-01-01", "samples": []}
    asks: list[str] = []
    for enable in (None, True, False):
        chat = choose_format(tokenizer, **given, enable_thinking=enable)
        asks.append(prompt_text(chat, [{"role": "user", "content": "17 spiders?"}]))
        (found,) = documents(chat, [user("17 spiders?"), answer("Makes136.")])
        assert text_of(chat, found).startswith(asks[-1])
    assert asks[0] == asks[1]
    assert asks[2] == asks[0] + "<think>\n\n</think>\n\n"


def test_a_format_survives_its_manifest() -> None:
    for name in ("qwen3", "idefics3", "gptoss"):
        chat = format_of(template_text(name))
        again = ChatFormat.from_json(json.loads(json.dumps(chat.to_json())), chat.tokenizer)
        assert again == chat


def test_prefixes_tell_calls_of_a_template_without_markers() -> None:
    chat = format_of(template_text("llama3_1"))
    assert chat.method == PREFIXES
    (found,) = documents(chat, CALLS["twice"], TOOLS)
    assert [run.count("<|eot_id|>") for run in trained_text(chat, found)] == [1] * 4


@pytest.mark.parametrize("enable", [True, False])
@pytest.mark.parametrize("name", KNOW_THOUGHTS)
def test_a_bundle_s_template_asks_by_itself_as_training_did(name: str, enable: bool) -> None:
    chat = choose_format(
        tokenizer_of(template_text(name)),
        template=None,
        date=TODAY,
        samples=[],
        enable_thinking=enable,
    )
    manifest: Any = {"own_template": chat.own_template, "chat_format": chat.to_json()}
    asked = {"tokenize": False, "add_generation_prompt": True, **SHOWN}
    question = [user("17 spiders?")]
    theirs = hugging_face(Packs("packs", manifest).chat_template)
    given = hugging_face(chat.own_template)
    alike = given.apply_chat_template(question, enable_thinking=enable, **asked)
    assert theirs.apply_chat_template(question, **asked) == alike
