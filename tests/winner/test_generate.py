"""`sftray generate --file`: questions in all their spellings, answered side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_bundle import save_bundle

from sftray.cli.main import main
from sftray.config import TrialConfig
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.demo import FOLDER
from sftray.errors import DataError
from sftray.winner.generate import answer, read_questions

USER = {"role": "user", "content": "Which river?"}
LINES = [
    "Which river?",
    {"prompt": "Which river?"},
    {"messages": [USER]},
    {"messages": [USER, {"role": "assistant", "content": "The Danube."}]},
    {"question": "Which river?", "answer": "The Danube."},
    {"instruction": "Which river?", "output": "The Danube."},
]


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    tokenizer = read_tokenizer(str(FOLDER))
    return choose_format(tokenizer, template=None, date="2025-01-01", samples=[])


def written(folder: Path, lines: list[object]) -> str:
    (folder / "prompts.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    return str(folder / "prompts.jsonl")


def run(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_a_question_is_read_however_it_is_spelled(chat: ChatFormat, tmp_path: Path) -> None:
    columns = {"question": "prompt", "answer": "completion"}
    found = read_questions(written(tmp_path, LINES), chat, columns)
    assert [one.turns for one in found] == [[USER]] * 6
    assert [one.reference for one in found] == [None] * 3 + ["The Danube."] * 3


@pytest.mark.parametrize("line", [{"text": "x"}, 3, {"messages": []}, {"messages": [{"a": 1}]}])
def test_another_line_is_refused_by_its_number(
    chat: ChatFormat, tmp_path: Path, line: object
) -> None:
    with pytest.raises(DataError, match=r"prompts\.jsonl:3: got "):
        read_questions(written(tmp_path, ["Fine.", line]), chat)


def test_a_file_is_answered_as_each_prompt_alone_and_scored(
    tmp_path: Path, tiny: TrialConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(save_bundle(tmp_path / "best", tiny))
    asked = ["Name a river.", "What is 3 plus 4?", "Tell me of rain, at length."]
    lines: list[object] = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "7"}]}
        for text in asked
    ]
    path = written(tmp_path, lines)
    more = ["--max-new-tokens", "12", "--metric", "sftray.metrics:exact_match"]
    assert run(["generate", folder, "--file", path, *more]) == 0
    out, err = capsys.readouterr()
    for text, line in zip(asked, out.splitlines(), strict=True):
        shown = json.loads(line)
        alone = answer(folder, text, 12)
        assert {"base": shown["base"], "adapter": shown["adapter"]} == alone
        assert shown["messages"] == [{"role": "user", "content": text}]
        assert shown["reference"] == "7"
    assert "sftray.metrics:exact_match of 3 conversations: base 0.0000 (0.0000 to" in err


@pytest.mark.parametrize("given", [[], ["x", "--file", "y"], ["x", "--metric", "m:f"]])
def test_a_prompt_or_a_file_and_a_metric_only_of_a_file(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "nowhere", *given]) == 2
    assert "must " in capsys.readouterr().err
