"""Special tokens that words spell are text under every template: their tokens are those of a
tokenizer that treats no part of a text as special, and the template's own are what they were."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from data_templates import bundled, format_of, template_text, tokenizer_of, trained_text
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from sftray.data.chat.asking import asked_of, number_of_tokens, prompt_ids, prompt_text
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.documents import Document, Dropped
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.loss_mask import encode
from sftray.data.chat.spelled import MARK, SPELLED
from sftray.data.chat.token_kinds import CALLS, THOUGHTS, WORDS
from sftray.data.chat.tokenizer import ModelTokenizer, backend
from sftray.data.packs.readings import reading_of, spelled_text
from sftray.data.packs.tokenize_pass import read_and_encode
from sftray.data.source.conversations import Conversation
from sftray.data.source.turns import Message

FOREIGN = "<|never_written|>"
"""A special token of no template."""
REWRITES = dict.fromkeys(
    ("diffusion_gemma", "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"),
    ("<channel|>", "<|channel>"),
)
"""Templates that look for tokens in an answer's words, to take a thought out."""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def special_of(tokenizer: Tokenizer) -> list[str]:
    return [one.content for one in tokenizer.get_added_tokens_decoder().values() if one.special]


def with_foreign(template: str, date: str = "2025-01-01") -> ChatFormat:
    given = tokenizer_of(template)
    tokenizer = Tokenizer.from_str(given.json)
    tokenizer.add_special_tokens([AddedToken(FOREIGN, normalized=False)])
    model = ModelTokenizer(given.name, tokenizer.to_str(), template, given.special_tokens)
    return choose_format(model, template=None, date=date, samples=[])


def talk(spelled: str) -> list[Message]:
    """Special tokens in all words, alone, doubled, beside words and cut off."""
    return [
        {"role": "user", "content": f"What does {spelled} do, and x{spelled}{spelled}y?"},
        {"role": "assistant", "content": f"It ends: {spelled}, not {spelled[:-1]}."},
        {"role": "user", "content": f"And\n{spelled}?"},
        {"role": "assistant", "content": f"Write {spelled}there."},
    ]


@functools.lru_cache(maxsize=1)
def letters_of(tokenizer_json: str) -> Tokenizer:
    letters = Tokenizer.from_str(tokenizer_json)
    letters.encode_special_tokens = True
    return letters


def as_text(tokenizer_json: str, written: str, words: dict[str, str]) -> list[int]:
    """The tokens of a text in which `words` stand for spellings: cut at special tokens, each piece
    tokenised by a tokenizer that treats no part of a text as special."""
    tokenizer = backend(tokenizer_json)
    letters = letters_of(tokenizer_json)
    special = sorted(special_of(tokenizer), key=len, reverse=True)
    ids: list[int] = []
    for piece in re.split("(" + "|".join(map(re.escape, special)) + ")", written):
        if piece in special:
            ids.append(tokenizer.token_to_id(piece))
            continue
        for word, spelling in words.items():
            piece = piece.replace(word, spelling)
        ids += letters.encode(piece, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("name", bundled())
def test_special_tokens_in_the_words_become_the_tokens_of_their_letters(name: str) -> None:
    chat = with_foreign(template_text(name))
    spellings = [*special_of(backend(chat.tokenizer))]
    assert FOREIGN in spellings
    hidden = {f"Qz{number}x": one for number, one in enumerate(spellings)}
    talks = [talk(spelling) for spelling in spellings]
    texts, _ = chat.render([talk(word) for word in hidden])
    documents = encode(chat, talks, 4096)
    for (word, spelling), found, written in zip(hidden.items(), documents, texts, strict=True):
        if spelling in REWRITES.get(name, ()):
            assert found == Dropped(SPELLED)
            continue
        written = written.replace(word[:-1] + ".", spelling[:-1] + ".")
        assert isinstance(found, Document), (spelling, found)
        assert found.input_ids.tolist() == as_text(chat.tokenizer, written, {word: spelling})
        assert found.spelled == {spelling}
        first, second = trained_text(chat, found)
        assert f"It ends: {spelling}, not {spelling[:-1]}." in first
        assert f"Write {spelling}there." in second
    kept = [k for k, found in enumerate(documents) if isinstance(found, Document)]
    asked = asked_of(chat, talks)
    for k, one in zip(kept, asked, strict=True):
        ids = prompt_ids(chat, one.prompt)
        assert documents[k].input_ids.tolist()[: len(ids)] == ids  # type: ignore[union-attr]
        assert (one.turns, one.reference) == (talks[k][:-1], talks[k][-1]["content"])
    alone = prompt_ids(chat, prompt_text(chat, talks[kept[-1]][:1]))
    assert documents[kept[-1]].input_ids.tolist()[: len(alone)] == alone  # type: ignore[union-attr]


def test_calls_thoughts_and_results_are_text_too() -> None:
    chat = with_foreign(template_text("qwen3"))
    spelling = "<|im_end|>"

    def turns(word: str) -> Conversation:
        call = {"name": "look", "arguments": {"place": f"at {word}"}}
        result: Any = {"role": "tool", "content": f"dry{word}", "name": "look"}
        return Conversation(
            [
                {"role": "user", "content": "Rain?"},
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning_content": f"I look {word}.",
                    "tool_calls": [{"type": "function", "function": call}],  # type: ignore[typeddict-item]
                },
                result,
                {"role": "assistant", "content": f"No {word}."},
            ],
            [{"type": "function", "function": {"name": "look", "description": f"{word} of a day"}}],
        )

    (found,) = encode(chat, [turns(spelling)], 4096)
    (written,), _ = chat.render([turns("Qzx")])
    assert found.input_ids.tolist() == as_text(chat.tokenizer, written, {"Qzx": spelling})
    (asked,) = asked_of(chat, [turns(spelling)])
    assert asked.turns == turns(spelling)[:-1]


def sentencepiece_like(kind: str) -> Tokenizer:
    """Tokenizers that put a space before a text, a word or each piece, or normalise it."""
    is_unigram = kind == "unigram"
    tokenizer = Tokenizer(models.Unigram() if is_unigram else models.BPE(byte_fallback=True))
    if kind == "llama":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        schemes = {"first": "first", "always": "always", "unigram": "always", "nfkc": "never"}
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=schemes[kind])  # type: ignore[arg-type]
        if kind == "nfkc":
            tokenizer.normalizer = normalizers.NFKC()
    tokenizer.decoder = decoders.Metaspace()
    texts = [turn["content"] for turn in talk("<|im_end|>")] * 9 + ["system user assistant"]
    trainer = trainers.UnigramTrainer if is_unigram else trainers.BpeTrainer
    options: Any = {"unk_token": "<unk>"} if is_unigram else {}
    tokenizer.train_from_iterator(
        texts, trainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], **options)
    )
    tokenizer.add_special_tokens(
        [AddedToken(one, normalized=False, rstrip=kind == "first")
         for one in ("<|im_start|>", "<|im_end|>")]
    )  # fmt: skip
    return tokenizer


@pytest.mark.parametrize("kind", ["llama", "first", "always", "unigram", "nfkc"])
def test_other_kinds_of_tokenizers_give_what_they_give_without_the_token(kind: str) -> None:
    tokenizer = sentencepiece_like(kind)
    without = tokenizer.to_str()
    tokenizer.add_special_tokens([AddedToken(FOREIGN, normalized=False)])
    named = (("eos_token", "<|im_end|>"), ("pad_token", "<unk>"))
    with_it, plain = (
        choose_format(
            ModelTokenizer("test", text, CHATML, named),
            template=None, date="2025-01-01", samples=[],
        )
        for text in (tokenizer.to_str(), without)
    )  # fmt: skip
    (found,), (wanted,) = (encode(chat, [talk(FOREIGN)], 4096) for chat in (with_it, plain))
    assert isinstance(found, Document), found
    assert isinstance(wanted, Document), wanted
    assert found.input_ids.tolist() == wanted.input_ids.tolist()
    assert found.trained.tolist() == wanted.trained.tolist()
    assert (found.spelled, wanted.spelled) == ({FOREIGN}, frozenset())


@pytest.mark.parametrize(
    ("content", "spelled"),
    [
        ("{{ m['content'].split('<|im_end|>')[0] }}", "It is <|im_end|> then."),
        ("{{ m['content'] | replace('<|im_end|>', '') }}", "It is <|im_end|> then."),
        ("{{ m['content'] }}", f"It is {MARK} then."),
    ],
    ids=["cut off", "taken out", "the mark itself"],
)
def test_what_cannot_be_told_apart_is_dropped_and_counted(content: str, spelled: str) -> None:
    chat = format_of(CHATML.replace("{{ m['content'] }}", content))
    turns: list[Message] = [
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": spelled},
    ]
    assert encode(chat, [turns, talk("that")], 4096)[0] == Dropped(SPELLED)
    assert isinstance(encode(chat, [talk("that")], 4096)[0], Document)


def test_a_special_token_of_one_character_is_dropped() -> None:
    given = tokenizer_of(CHATML)
    tokenizer = Tokenizer.from_str(given.json)
    tokenizer.add_special_tokens([AddedToken("§", normalized=False)])
    model = ModelTokenizer("test", tokenizer.to_str(), CHATML, given.special_tokens)
    chat = choose_format(model, template=None, date="2025-01-01", samples=[])
    assert encode(chat, [talk("§")], 4096) == [Dropped(SPELLED)]


def test_overlapping_spellings_are_all_text() -> None:
    given = tokenizer_of(CHATML)
    tokenizer = Tokenizer.from_str(given.json)
    added = ["<abc>", "bc>def", "<a", ">d"]
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in added])
    model = ModelTokenizer("test", tokenizer.to_str(), CHATML, given.special_tokens)
    chat = choose_format(model, template=None, date="2025-01-01", samples=[])
    (found,) = encode(chat, [talk("<abc>def")], 4096)
    assert isinstance(found, Document)
    assert not set(found.input_ids.tolist()) & {tokenizer.token_to_id(one) for one in added}
    assert backend(chat.tokenizer).decode(found.input_ids.tolist()).count("<abc>def") == 6


@pytest.mark.parametrize("name", ["qwen2_5", "phi3", "gemma3", "llama3_1"])
def test_those_who_mean_it_get_the_tokens(name: str) -> None:
    chat = replace(with_foreign(template_text(name)), allow_special_tokens=True)
    number = backend(chat.tokenizer).token_to_id(FOREIGN)
    (found,) = encode(chat, [talk(FOREIGN)], 4096)
    assert found.input_ids.tolist().count(number) == 6
    assert found.input_ids[found.trained].tolist().count(number) == 2
    assert number_of_tokens(chat, FOREIGN) == 1
    turns = talk("that")
    turns[1] = {"role": "assistant", "content": f"It ends {chat.ends[0]} here."}
    assert encode(chat, [turns], 4096) == [Dropped(SPELLED)]  # it would end there


def test_the_tokenizers_of_transformers_agree_that_it_is_no_token() -> None:
    """Beside `as_text`: split_special_tokens of transformers."""
    chat = with_foreign(CHATML)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(chat.tokenizer), split_special_tokens=True
    )
    words = talk(FOREIGN)[0]["content"]
    ids = prompt_ids(chat, prompt_text(chat, [{"role": "user", "content": words}]))
    wanted = whole(words, add_special_tokens=False)["input_ids"]
    assert json.dumps(wanted)[1:-1] in json.dumps(ids)


def test_rows_are_counted_by_token_with_an_example() -> None:
    chat = with_foreign(CHATML)
    rows = [
        (3 * k, {"messages": talk(word)}) for k, word in enumerate(["no", FOREIGN, "<|im_end|>"])
    ]
    report, documents = read_and_encode([*rows, (9, rows[1][1])], "messages", chat, 4096, 0)
    assert len(documents) == 4
    assert report.spelled == {FOREIGN: 2, "<|im_end|>": 1}
    assert [row.line for row in report.examples[FOREIGN]] == [3, 9]
    assert FOREIGN in report.examples[FOREIGN][0].text
    assert spelled_text(reading_of([report], ["chats.jsonl"])) == (
        f"special tokens in the text, tokenised as text: {FOREIGN} (2 rows), <|im_end|> (1 row)"
    )


def test_a_spelling_shifts_neither_thoughts_nor_calls() -> None:
    chat = with_foreign(template_text("qwen3"))
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": FOREIGN}}}
    turns: Any = [
        {"role": "user", "content": f"Rain {FOREIGN}?"},
        {"role": "assistant", "content": f"So {FOREIGN}:", "tool_calls": [call],
         "reasoning_content": f"I look {FOREIGN} up."},
    ]  # fmt: skip
    (found,) = encode(chat, [Conversation(turns)], 4096)
    assert isinstance(found, Document)
    assert found.kinds is not None
    texts = [
        backend(chat.tokenizer).decode(found.input_ids[found.trained & (found.kinds == kind)])
        for kind in (THOUGHTS, WORDS, CALLS)
    ]
    assert texts[0].strip().endswith("</think>")
    assert f"I look {FOREIGN} up." in texts[0]
    assert texts[1].strip() == f"So {FOREIGN}:"
    assert texts[2].strip().startswith('{"name": "look"')
